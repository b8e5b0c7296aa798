"""Models fitted to observations: one power curve and one capacity per deployment."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powercap_planner.curves.model import DeploymentModel, ModelKind
from powercap_planner.curves.nameplate import (
    LARGEST,
    UNKNOWN_GPUS_PER_REPLICA,
    GpuType,
    find_gpu,
)
from powercap_planner.curves.regressor import PowerCurveRegressor
from powercap_planner.curves.samples import Samples, usable_samples
from powercap_planner.observations import (
    ClusterObservation,
    DeploymentObservation,
    Finding,
    FloatArray,
)

_KNOTS = 65
_GROUPS = 128
"""Training windows are averaged into this many groups of neighbouring load: enough for a curve
of one variable, and fitting stays within milliseconds."""
_HOLD_OUT_BLOCKS = 8
"""History is cut into this many spans of time; every fourth is held back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How curves are fitted."""

    coverage_fraction: float = 0.999
    """Share of windows that the upper bound is to cover."""
    capacity_fraction: float = 0.9
    """Capacity as a share of saturated throughput when no latency objective is known."""
    min_samples: int = 20
    """With fewer windows the cap is charged by nameplate."""
    min_saturated_samples: int = 3
    """With fewer windows with requests waiting the saturated throughput is not known."""
    min_support_fraction: float = 0.1
    """Spread of the loads seen, as a share of the largest, that makes points a curve."""
    random_state: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hardware:
    gpu: GpuType | None
    gpus: int
    """0 when unknown."""
    parked_watts: float
    ceiling_watts: float
    unmeasured_watts: float
    findings: tuple[Finding, ...]


def fit_models(
    observation: ClusterObservation, *, settings: FitSettings | None = None
) -> dict[str, DeploymentModel]:
    """Return a model for every observed deployment, by ``namespace/name``.

    A deployment without usable windows gets a nameplate model: it can be charged, not planned.
    """
    used = settings or FitSettings()
    return {
        one.key: fit_model(one, parked_gpu_watts=observation.parked_gpu_watts, settings=used)
        for one in observation.deployments
    }


def fit_model(
    deployment: DeploymentObservation,
    *,
    parked_gpu_watts: dict[str, float],
    settings: FitSettings,
) -> DeploymentModel:
    """Return the model of one deployment."""
    hardware = _hardware(deployment, parked_gpu_watts)
    samples = samples_of(deployment, parked_gpu_watts=parked_gpu_watts)
    if not samples.load_tps.size or not (samples.load_tps > 0).any():
        return _nameplate_model(deployment, hardware, samples.findings)
    return _fitted_model(deployment, hardware, samples, settings)


def samples_of(deployment: DeploymentObservation, *, parked_gpu_watts: dict[str, float]) -> Samples:
    """Return the windows that a deployment's model is fitted on."""
    hardware = _hardware(deployment, parked_gpu_watts)
    return usable_samples(
        deployment,
        gpu=hardware.gpu,
        gpus=hardware.gpus,
        parked_watts=hardware.parked_watts,
    )


def nameplate_model(
    *, key: str, gpu_type: str | None = None, gpus_per_replica: int | None = None
) -> DeploymentModel:
    """Return the model of a deployment nobody has observed: charged by nameplate alone."""
    namespace, _, name = key.partition("/")
    missing = np.empty(0)
    bare = DeploymentObservation(
        namespace=namespace,
        name=name,
        gpu_type=gpu_type,
        gpus_per_replica=gpus_per_replica,
        power_watts=missing,
        ready_replicas=missing,
        present_replicas=missing,
        arrived_tps=missing,
        served_tps=missing,
        running_requests=missing,
        waiting_requests=missing,
        ttft_p95_seconds=missing,
        itl_p95_seconds=missing,
        min_replicas=None,
        max_replicas=None,
    )
    return _nameplate_model(bare, _hardware(bare, {}), ())


def _hardware(one: DeploymentObservation, parked_gpu_watts: dict[str, float]) -> _Hardware:
    """What the deployment runs on; what is unknown is charged as the most there is."""
    findings = []
    gpu = find_gpu(one.gpu_type)
    if gpu is None:
        findings.append(
            Finding(
                reason="GpuTypeUnknown",
                message=f"GPU type {one.gpu_type!r} is not in the table: its limit is taken as "
                f"{LARGEST.nameplate_watts:.0f} W ({LARGEST.name})",
                deployment=one.key,
            )
        )
    if one.gpus_per_replica is None:
        findings.append(
            Finding(
                reason="GpusPerReplicaUnknown",
                message=f"GPUs per replica are not known: charged as {UNKNOWN_GPUS_PER_REPLICA}",
                deployment=one.key,
            )
        )
    gpus = one.gpus_per_replica or 0
    parked = parked_gpu_watts.get(one.gpu_type or "", gpu.parked_watts if gpu else 0.0)
    charged = gpu or LARGEST
    return _Hardware(
        gpu=gpu,
        gpus=gpus,
        # Unknown GPUs are credited with no parked watts: the whole replica is charged.
        parked_watts=gpus * parked,
        ceiling_watts=charged.ceiling_watts(gpus or UNKNOWN_GPUS_PER_REPLICA),
        unmeasured_watts=charged.unmeasured_watts(gpus or UNKNOWN_GPUS_PER_REPLICA),
        findings=tuple(findings),
    )


def _nameplate_model(
    one: DeploymentObservation, hardware: _Hardware, findings: tuple[Finding, ...]
) -> DeploymentModel:
    message = (
        "no usable window with watts and tokens: charged by nameplate, "
        f"{hardware.unmeasured_watts:.0f} W a replica"
    )
    return DeploymentModel(
        kind=ModelKind.NAMEPLATE,
        gpu_type=one.gpu_type or "",
        gpus_per_replica=hardware.gpus,
        parked_watts=hardware.parked_watts,
        knot_tps=np.empty(0),
        mean_watts=np.empty(0),
        upper_watts=np.empty(0),
        peak_upper_watts=hardware.unmeasured_watts,
        nameplate_watts=hardware.unmeasured_watts,
        saturated_tps=0.0,
        capacity_tps=0.0,
        support_low_tps=0.0,
        support_high_tps=0.0,
        samples=0,
        error_fraction=None,
        coverage_fraction=None,
        findings=(
            *hardware.findings,
            *findings,
            Finding(reason="NeverMeasured", message=message, deployment=one.key),
        ),
    )


def _fitted_model(
    one: DeploymentObservation, hardware: _Hardware, samples: Samples, settings: FitSettings
) -> DeploymentModel:
    load, power = samples.load_tps, samples.power_watts
    findings = [*hardware.findings, *samples.findings]

    def note(reason: str, message: str) -> None:
        findings.append(Finding(reason=reason, message=message, deployment=one.key))

    # Never charge less than was measured: a limit below it is not this GPU's limit.
    ceiling = hardware.ceiling_watts
    if power.max() > ceiling:
        note("PowerAboveNameplate", f"{power.max():.0f} W measured, {ceiling:.0f} W expected")
        ceiling = float(power.max())
    saturated, is_seen = _saturated_tps(samples, settings)
    if not is_seen:
        note(
            "SaturationNotSeen",
            f"no window with requests waiting: {saturated:.0f} tokens/s a replica is the most "
            "seen, not the most possible; the peak is charged by nameplate",
        )
    note(
        "CapacityAssumed",
        f"no latency objective: capacity is {settings.capacity_fraction:g} of the saturated "
        "throughput",
    )
    if hardware.parked_watts > 0:
        note("IdleAssumed", f"curve starts at {hardware.parked_watts:.0f} W, parked, not measured")
    idle = hardware.parked_watts if hardware.parked_watts > 0 else None

    knots = np.linspace(0.0, max(saturated, float(load.max())), _KNOTS)
    curve = _fit(load, power, idle, ceiling, settings)
    mean = curve.predict(knots[:, None])
    errors = _held_out_errors(load, power, idle, ceiling, settings)
    upper_factor, coverage = _upper_factor(errors, settings.coverage_fraction)
    # Held-back windows are few: the bound must cover the windows of the fit as well.
    seen = _relative_errors(curve, load, power)
    upper_factor = max(upper_factor, _upper_factor(seen, settings.coverage_fraction)[0])
    upper = np.minimum(np.maximum.accumulate(mean * upper_factor), ceiling)

    is_curve = np.ptp(load) >= settings.min_support_fraction * load.max()
    if not is_curve:
        note("SupportNarrow", f"seen at {load.max():.0f} tokens/s a replica alone: a point")
    if power.size < settings.min_samples:
        note("FewSamples", f"{power.size} windows, {settings.min_samples} are needed for a bound")
    is_bounded = is_seen and is_curve and power.size >= settings.min_samples
    return DeploymentModel(
        kind=ModelKind.FITTED,
        gpu_type=one.gpu_type or "",
        gpus_per_replica=hardware.gpus,
        parked_watts=hardware.parked_watts,
        knot_tps=knots,
        mean_watts=mean,
        upper_watts=upper,
        peak_upper_watts=float(upper[-1]) if is_bounded else ceiling,
        nameplate_watts=ceiling,
        saturated_tps=saturated,
        capacity_tps=settings.capacity_fraction * saturated,
        support_low_tps=float(load.min()),
        support_high_tps=float(load.max()),
        samples=int(power.size),
        error_fraction=float(np.abs(errors).mean()) if errors.size else None,
        coverage_fraction=coverage if is_bounded else None,
        findings=tuple(findings),
    )


def _saturated_tps(samples: Samples, settings: FitSettings) -> tuple[float, bool]:
    """Return the most tokens/s of one replica, and whether saturation was really seen."""
    saturated = samples.load_tps[samples.is_saturated & (samples.load_tps > 0)]
    if saturated.size >= settings.min_saturated_samples:
        return float(np.quantile(saturated, 0.5)), True
    return float(np.quantile(samples.load_tps, 0.99)) or float(samples.load_tps.max()), False


def _fit(
    load: FloatArray,
    power: FloatArray,
    idle_watts: float | None,
    ceiling_watts: float,
    settings: FitSettings,
) -> PowerCurveRegressor:
    order = np.argsort(load, kind="stable")
    groups = np.array_split(order, min(_GROUPS, order.size))
    grouped_load = np.array([load[group].mean() for group in groups])
    grouped_power = np.array([power[group].mean() for group in groups])
    return PowerCurveRegressor(
        idle_watts=idle_watts, ceiling_watts=ceiling_watts, random_state=settings.random_state
    ).fit(grouped_load[:, None], grouped_power)


def _held_out_errors(
    load: FloatArray,
    power: FloatArray,
    idle_watts: float | None,
    ceiling_watts: float,
    settings: FitSettings,
) -> FloatArray:
    """Return (measured - predicted) / predicted of spans of time the fit has not seen."""
    block = np.arange(load.size) * _HOLD_OUT_BLOCKS // load.size
    held = block % 4 == 1
    if load.size < settings.min_samples or not held.any():
        return np.empty(0)
    model = _fit(load[~held], power[~held], idle_watts, ceiling_watts, settings)
    return _relative_errors(model, load[held], power[held])


def _relative_errors(curve: PowerCurveRegressor, load: FloatArray, power: FloatArray) -> FloatArray:
    predicted = curve.predict(load[:, None])
    errors: FloatArray = (power - predicted) / predicted
    return errors


def _upper_factor(errors: FloatArray, coverage_fraction: float) -> tuple[float, float | None]:
    """Return the factor on the mean that covers the held-back windows, and the coverage.

    Split conformal: with m held-back windows the k-th smallest error covers k / (m + 1) of new
    ones; a sample too small for what is asked gives its largest error and says what that covers.
    """
    if not errors.size:
        return 1.0, None
    count = errors.size
    rank = min(math.ceil((count + 1) * coverage_fraction), count)
    factor = 1.0 + max(float(np.sort(errors)[rank - 1]), 0.0)
    return factor, min(coverage_fraction, rank / (count + 1))
