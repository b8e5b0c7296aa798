"""Seeded families of problems, registered with their sizes: for benchmarks, tests and trials.

All numbers are of our own making, guided by what measured serving looks like: power concave over
load with a high floor, sometimes not monotone; a replica saturates; upper watts a few percent
above the peak. Adding a family is adding one function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from powercap_solver.problem import FloatArray, IntArray, PlanningProblem

Build = Callable[[np.random.Generator, int], PlanningProblem]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family of problems."""

    name: str
    sizes: tuple[int, ...]
    """Numbers of deployments worth measuring, ascending."""
    build: Build

    def make(self, *, size: int, seed: int) -> PlanningProblem:
        """Build one problem of ``size`` deployments; equal arguments give equal problems."""
        return self.build(np.random.default_rng([seed, size]), size)


FAMILIES: dict[str, Family] = {}


def family(*, sizes: tuple[int, ...]) -> Callable[[Build], Build]:
    """Register the function under its own name."""

    def register(build: Build) -> Build:
        name = build.__name__
        FAMILIES[name] = Family(name=name, sizes=sizes, build=build)
        return build

    return register


@family(sizes=(10, 50, 200))
def concave_one_cap(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Ceilings with concave curves under one cap of half of what all options could draw."""
    return _problem(generator, _fleet(generator, size), cap_fraction=0.5)


@family(sizes=(10, 50, 200))
def scarce_one_cap(generator: np.random.Generator, size: int) -> PlanningProblem:
    """The same under a cap that the load alone does not fit: every watt is fought for."""
    return _problem(generator, _fleet(generator, size), cap_fraction=0.2)


@family(sizes=(10, 50, 200))
def not_monotone(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Fixed replicas on curves that fall again near saturation, so that fewer can draw more."""
    fleet = _fleet(generator, size, sag=0.15)
    return _problem(generator, fleet, cap_fraction=0.25, ceiling_fraction=0.0)


@family(sizes=(10, 50))
def tight_floors(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Floors of three priorities that the cap cannot keep."""
    floors = generator.integers(2, 6, size)
    return _problem(
        generator, _fleet(generator, size), cap_fraction=0.1, min_replicas=floors, shed=0.95
    )


@family(sizes=(10, 50, 200))
def plan_in_force(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Half ceilings, half fixed, with a plan in force that the cap has outgrown."""
    return _problem(
        generator,
        _fleet(generator, size),
        cap_fraction=0.3,
        ceiling_fraction=0.5,
        in_force=generator.integers(1, 12, size),
    )


@family(sizes=(10, 30))
def racks_and_periods(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Three racks under one feed, four periods, two zones with their own price."""
    return _problem(
        generator, _fleet(generator, size, periods=4), cap_fraction=0.3, racks=3, zones=2
    )


@family(sizes=(100, 500, 1000))
def many_deployments(generator: np.random.Generator, size: int) -> PlanningProblem:
    """More deployments than one cluster has today."""
    return _problem(generator, _fleet(generator, size), cap_fraction=0.3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fleet:
    """Replicas of every deployment: what one carries and draws, and the load asked."""

    capacity_tps: FloatArray
    idle_watts: FloatArray
    peak_watts: FloatArray
    bend: FloatArray
    """Exponent of the curve over load: below 1 is concave."""
    sag: float
    """Share of the peak that is lost again at saturation."""
    load_tps: FloatArray
    option_count: IntArray

    def power(self, load_fraction: FloatArray) -> FloatArray:
        """W of one replica at a fraction of its capacity, float64[deployment, ...]."""
        trailing = (slice(None),) + (None,) * (load_fraction.ndim - 1)
        rise = load_fraction ** self.bend[trailing]
        curve = self.idle_watts[trailing] + (self.peak_watts - self.idle_watts)[trailing] * rise
        drop = self.sag * np.clip((load_fraction - 0.7) / 0.3, 0.0, 1.0)
        watts: FloatArray = curve * (1 - drop)
        return watts


def _fleet(
    generator: np.random.Generator, size: int, *, periods: int = 1, sag: float = 0.0
) -> _Fleet:
    gpus = generator.choice([1, 2, 4, 8], size)
    peak = gpus * generator.uniform(350.0, 700.0, size)
    option_count = generator.integers(8, 21, size)
    capacity = gpus * generator.uniform(400.0, 2500.0, size)
    used = generator.uniform(0.1, 0.7, (size, periods))
    return _Fleet(
        capacity_tps=capacity,
        idle_watts=gpus * generator.uniform(20.0, 70.0, size),
        peak_watts=peak,
        bend=generator.uniform(0.15, 0.5, size),
        sag=sag,
        load_tps=used * (capacity * (option_count - 1))[:, None],
        option_count=option_count,
    )


def _problem(
    generator: np.random.Generator,
    fleet: _Fleet,
    *,
    cap_fraction: float,
    ceiling_fraction: float = 1.0,
    min_replicas: IntArray | None = None,
    in_force: IntArray | None = None,
    racks: int = 0,
    zones: int = 1,
    shed: float = 0.998,
) -> PlanningProblem:
    size, periods = fleet.load_tps.shape
    width = int(fleet.option_count.max())
    is_option = np.arange(width) < fleet.option_count[:, None]
    replicas = np.where(is_option, np.arange(width), 0)
    is_ceiling = np.arange(size) < round(ceiling_fraction * size)
    load = fleet.load_tps[:, :, None]
    capacity = fleet.capacity_tps[:, None, None]
    allowed = replicas[:, None, :]
    served = np.minimum(load, allowed * capacity)
    # What an autoscaler with a target utilisation of 0.7 would run of the replicas allowed.
    running = np.minimum(np.ceil(load / (0.7 * capacity)), allowed)
    running = np.where(is_ceiling[:, None, None], running, allowed)
    fraction = np.minimum(1.0, load / (np.maximum(running, 1.0) * capacity))
    mean = running * fleet.power(fraction)
    upper = np.broadcast_to(allowed * (fleet.peak_watts * 1.05)[:, None, None], mean.shape)
    real = is_option[:, None, :]
    rack = np.arange(size) % max(racks, 1)
    domains = ("feed", *(f"rack{index}" for index in range(racks)))
    in_domain = np.array([np.ones(size, dtype=bool), *(rack == index for index in range(racks))])
    charged = in_domain[:, :, None, None] * np.where(real, upper, 0.0)[None]
    most = charged.max(axis=3).sum(axis=1)
    looser = np.array([1.0, *[1.1] * racks])[:, None]
    base = in_domain.sum(axis=1)[:, None] * np.full(periods, 140.0)
    cap = 1.1 * (base + most * cap_fraction * looser)
    token_value = 1.0 / (fleet.capacity_tps / fleet.peak_watts)
    zone = np.arange(size) % zones
    return PlanningProblem(
        deployments=tuple(f"serving/model-{index:04d}" for index in range(size)),
        domains=domains,
        zones=tuple(f"zone{index}" for index in range(zones)),
        period_seconds=np.full(periods, 300.0),
        option_count=fleet.option_count,
        replicas=replicas,
        served_tps=np.where(real, served, 0.0),
        power_watts=np.where(real, mean, 0.0),
        upper_watts=charged,
        load_tps=fleet.load_tps,
        weight=token_value * generator.choice([1.0, 2.0, 4.0], size),
        priority=np.asarray(generator.integers(0, 3, size)),
        min_replicas=np.ones(size, dtype=np.int64) if min_replicas is None else min_replicas,
        min_served_fraction=np.zeros(size),
        served_share=np.full((size, periods), shed),
        is_ceiling=is_ceiling,
        replicas_in_force=np.full(size, -1) if in_force is None else in_force,
        zone_index=zone,
        energy_weight=generator.uniform(0.6, 1.8, (zones, periods)),
        zone_base_watts=np.full((zones, periods), 140.0 * size / zones),
        cap_watts=cap,
        overhead_factor=np.full(len(domains), 1.1),
        fixed_overhead_watts=np.zeros(len(domains)),
        base_watts=base,
        unmanaged_watts=np.zeros((len(domains), periods)),
        fixed_watts=np.zeros((len(domains), periods)),
    )
