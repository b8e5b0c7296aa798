"""Fleets of LLM deployments as arrays, and the problems made of them: for the instance families.

All numbers are of our own making, guided by what measured serving looks like: power concave over
load with a high floor (a tenfold load draws about 1.4 times the power), throughput that
saturates, upper watts a few percent above the peak. With c the capacity of a replica, L its load
(logistic with mean ``load`` and scale s) and n the replicas allowed:

    served[n]  E[min(L, n c)] = n c - s (log(1 + e^((n c - load) / s)) - log(1 + e^(-load / s)))
    power[n]   r * curve(load / (r c)), r = what an autoscaler with target utilisation 0.7 runs
    upper[n]   n * 1.05 * peak
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray

GPU_TYPES = ("h100", "b200", "a100", "l40s")
_PEAK_WATTS = np.array([700.0, 1000.0, 400.0, 350.0])
_TOKENS_PER_WATT = np.array([3.0, 4.5, 2.0, 1.5])
_UPPER_MARGIN = 1.05
_TARGET_UTILISATION = 0.7
_KNEE = 0.98
"""A deployment needs as many replicas as serve this share of what its last option serves."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fleet:
    """Replicas of every deployment: what one carries and draws, and the load asked."""

    replicas: IntArray
    """int64[deployment, option], 0 where there is no option."""
    option_count: IntArray
    """int64[deployment]."""
    gpus: IntArray
    """int64[deployment], GPUs of one replica."""
    gpu_type: IntArray
    """int64[deployment], a place in ``GPU_TYPES``."""
    capacity_tps: FloatArray
    """float64[deployment]: largest load of one replica."""
    idle_watts: FloatArray
    """float64[deployment], above parked."""
    peak_watts: FloatArray
    """float64[deployment], above parked."""
    bend: FloatArray
    """float64[deployment]: exponent of the curve over load; below 1 is concave."""
    sag: float
    """Share of the peak that is lost again at saturation."""
    load_tps: FloatArray
    """float64[deployment, period]."""
    load_spread: float
    """Scale of the load's distribution over its mean."""
    is_ceiling: BoolArray
    """bool[deployment]."""

    @property
    def is_option(self) -> BoolArray:
        """bool[deployment, option]."""
        mask: BoolArray = np.arange(self.replicas.shape[1]) < self.option_count[:, None]
        return mask

    @property
    def weight(self) -> FloatArray:
        """float64[deployment], joules a token takes at best: 1 over the best tokens per joule."""
        weight: FloatArray = self.peak_watts / self.capacity_tps
        return weight

    def curve(self, load_fraction: FloatArray) -> FloatArray:
        """W of one replica at a fraction of its capacity, float64[deployment, ...]."""
        trailing = (slice(None),) + (None,) * (load_fraction.ndim - 1)
        rise = load_fraction ** self.bend[trailing]
        watts = self.idle_watts[trailing] + (self.peak_watts - self.idle_watts)[trailing] * rise
        if self.sag > 0:
            watts *= 1 - self.sag * np.clip((load_fraction - 0.7) / 0.3, 0.0, 1.0)
        return watts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tables:
    """What each option serves and draws, float64[deployment, period, option]; padding is 0."""

    served_tps: FloatArray
    power_watts: FloatArray
    upper_watts: FloatArray

    def knee(self, option_count: IntArray) -> IntArray:
        """int64[deployment, period]: the first option that serves nearly what the last does."""
        last = np.take_along_axis(self.served_tps, (option_count - 1)[:, None, None], axis=2)
        knee: IntArray = np.argmax(self.served_tps >= _KNEE * last, axis=2)
        return knee


def random_fleet(
    generator: np.random.Generator,
    size: int,
    *,
    periods: int = 1,
    options: tuple[int, int] = (4, 32),
    least_replicas: int = 0,
    sag: float = 0.0,
    ceiling_fraction: float = 1.0,
) -> Fleet:
    """A fleet of ``size`` deployments on four types of GPU.

    Args:
        generator: Source of everything random.
        size: Deployments.
        periods: Loads drift by up to a third over them.
        options: Fewest and most options of a deployment; uniform, so (4, 32) has 18 on average.
        least_replicas: Of the first option.
        sag: See ``Fleet``.
        ceiling_fraction: Share of deployments under an autoscaler.
    """
    gpus = generator.choice([1, 2, 4, 8], size, p=[0.4, 0.25, 0.2, 0.15])
    gpu_type = generator.choice(4, size, p=[0.5, 0.15, 0.25, 0.1])
    peak = gpus * _PEAK_WATTS[gpu_type] * generator.uniform(0.6, 0.95, size)
    capacity = peak * _TOKENS_PER_WATT[gpu_type] * np.exp(generator.normal(0.0, 0.7, size))
    count = generator.integers(options[0], options[1] + 1, size)
    step = np.arange(options[1])
    used = generator.uniform(0.1, 0.9, size) * (capacity * (count - 1 + least_replicas))
    return Fleet(
        replicas=np.where(step < count[:, None], step + least_replicas, 0),
        option_count=count,
        gpus=gpus,
        gpu_type=gpu_type,
        capacity_tps=capacity,
        idle_watts=gpus * generator.uniform(20.0, 60.0, size),
        peak_watts=peak,
        bend=generator.uniform(0.12, 0.35, size),
        sag=sag,
        load_tps=used[:, None] * _drift(generator, size, periods),
        load_spread=0.15,
        is_ceiling=np.arange(size) < round(ceiling_fraction * size),
    )


def _drift(generator: np.random.Generator, size: int, periods: int) -> FloatArray:
    if periods == 1:
        return np.ones((size, 1))
    phase = generator.uniform(0.0, 2 * np.pi, size)[:, None]
    swing = generator.uniform(0.0, 0.33, size)[:, None]
    angle = 2 * np.pi * np.arange(periods) / max(periods, 8)
    drift: FloatArray = 1 + swing * np.sin(phase + angle)
    return drift


def tabulate(fleet: Fleet) -> Tables:
    """Tables of every option of ``fleet``."""
    allowed = fleet.replicas[:, None, :].astype(np.float64)
    capacity = fleet.capacity_tps[:, None, None]
    load = fleet.load_tps[:, :, None]
    total = allowed * capacity
    scale = np.maximum(fleet.load_spread * load, 1e-9)
    shortfall = np.logaddexp(0.0, (total - load) / scale) - np.logaddexp(0.0, -load / scale)
    served = np.clip(total - scale * shortfall, 0.0, load)
    running, fraction = running_replicas(fleet)
    power = running * fleet.curve(fraction)
    peak = (_UPPER_MARGIN * fleet.peak_watts)[:, None, None]
    upper = np.broadcast_to(allowed * peak, power.shape)
    real = fleet.is_option[:, None, :]
    return Tables(
        served_tps=np.where(real, served, 0.0),
        power_watts=np.where(real, power, 0.0),
        upper_watts=np.where(real, upper, 0.0),
    )


def running_replicas(fleet: Fleet) -> tuple[FloatArray, FloatArray]:
    """Replicas that run where each option allows as many, and their load.

    Returns:
        float64[deployment, period, option] replicas, and the share of its capacity each carries.
    """
    allowed = fleet.replicas[:, None, :].astype(np.float64)
    capacity = fleet.capacity_tps[:, None, None]
    load = fleet.load_tps[:, :, None]
    scaled = np.minimum(np.ceil(load / (_TARGET_UTILISATION * capacity)), allowed)
    running = np.where(fleet.is_ceiling[:, None, None], scaled, allowed)
    fraction = np.minimum(1.0, load / (np.maximum(running, 1.0) * capacity))
    return running, fraction
