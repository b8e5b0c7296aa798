"""Watts that no target of the request explains: other pods, foreign GPUs, meter drift."""

from __future__ import annotations

import numpy as np

from powercap_planner.curves.model import DeploymentModel
from powercap_planner.curves.nameplate import LARGEST, find_gpu
from powercap_planner.errors import DataMissingError
from powercap_planner.observations import (
    ClusterObservation,
    DeploymentObservation,
    Finding,
    FloatArray,
)


def base_watts(observation: ClusterObservation) -> tuple[float, tuple[Finding, ...]]:
    """Return the watts of all GPUs parked and all hosts idle."""
    findings = []
    total = observation.host_idle_watts
    for name, count in observation.gpu_count.items():
        parked = observation.parked_gpu_watts.get(name)
        if parked is None:
            gpu = find_gpu(name)
            parked = (gpu or LARGEST).parked_watts
            message = f"parked watts of {name} are not measured: taken as {parked:.0f} W"
            findings.append(Finding(reason="ParkedAssumed", message=message))
        total += count * parked
    if not observation.gpu_count:
        message = "GPUs of the cluster are not known: replicas are charged with their parked watts"
        findings.append(Finding(reason="GpuCountUnknown", message=message))
    return total, tuple(findings)


def unmanaged_watts(
    observation: ClusterObservation,
    *,
    models: dict[str, DeploymentModel],
    targets: frozenset[str],
    base: float,
    uncertain_watts: float,
    now_seconds: float,
    span_seconds: float,
) -> tuple[float, tuple[Finding, ...]]:
    """Return the upper unmanaged watts: the most seen lately, never below what is drawn now.

    Without a total of late, those of the span that ends with the last total there is, however
    old, and what other deployments may draw more since. Without any, all that GPUs no deployment
    explains can draw.

    Args:
        observation: the history.
        models: by ``namespace/name``.
        targets: keys of the deployments that the request names, explained elsewhere.
        base: base watts, W.
        uncertain_watts: charge of targets whose draw is not measured; their real draw is in the
            measured total too and must not be taken for unmanaged.
        now_seconds: Unix time, s.
        span_seconds: how far back to look, s.

    Raises:
        DataMissingError: nothing bounds them: no total was ever measured and the cluster's GPUs
            are not known.
    """
    time = observation.time_seconds
    past = time <= now_seconds
    late = past & (time > now_seconds - span_seconds)
    known = np.ones(time.size, dtype=np.bool_)
    explained, by_others = np.zeros(time.size), np.zeros(time.size)
    others = 0.0
    for one in observation.deployments:
        above = _above_parked(one, models[one.key])
        if one.key in targets:
            known &= np.isfinite(above)
            explained += np.where(np.isfinite(above), above, 0.0)
        else:
            by_others += np.where(np.isfinite(above), above, 0.0)
            others += _upper_of_other(one, models[one.key], above[late])
    remainder = observation.total_watts - base - explained
    measured = past & np.isfinite(remainder)
    if not measured.any():
        return _never_measured(observation, models, others)
    last_seconds = float(time[measured][-1])
    measured &= time > min(now_seconds, last_seconds) - span_seconds
    findings: list[Finding] = []
    certain = measured & known
    upper = float(remainder[certain if certain.any() else measured].max())
    if certain.any():
        # The latest window counts even where a target's share of it is not known.
        upper = max(upper, float(remainder[measured][-1]) - uncertain_watts)
    else:
        message = (
            "no window in which all targets are measured: their unknown watts count as unmanaged"
        )
        findings.append(Finding(reason="AttributionIncomplete", message=message))
    upper = max(upper, others, 0.0)
    if not (measured & late).any():
        # Others may have grown since: a lost total must not charge less than a measured one.
        foreign = float((remainder - by_others)[measured].max())
        upper = max(upper, foreign + others)
        message = (
            f"no total is measured for {(now_seconds - last_seconds) / 60:.0f} min: unmanaged "
            f"watts stay at the {upper:.0f} W of then"
        )
        findings.append(Finding(reason="TotalNotMeasured", message=message))
    return upper, tuple(findings)


def _never_measured(
    observation: ClusterObservation, models: dict[str, DeploymentModel], others: float
) -> tuple[float, tuple[Finding, ...]]:
    """Return what other deployments draw and what GPUs that no deployment explains can draw."""
    if not observation.gpu_count:
        raise DataMissingError(
            "total_watts, gpu_count: neither is known, so that nothing bounds what others draw; "
            "accepted: the cluster's watts of at least one window, or its GPUs by type"
        )
    upper = others
    unexplained = 0
    for name, count in observation.gpu_count.items():
        free = max(count - _gpus_held(observation, models, name), 0)
        gpu = find_gpu(name) or LARGEST
        parked = observation.parked_gpu_watts.get(name, gpu.parked_watts)
        upper += max(gpu.ceiling_watts(free) - free * parked, 0.0)
        unexplained += free
    message = (
        f"the total was never measured: {unexplained} GPUs that no deployment explains count at "
        f"their limit, unmanaged watts are taken as {upper:.0f} W"
    )
    return upper, (Finding(reason="UnmanagedAssumed", message=message),)


def _gpus_held(
    observation: ClusterObservation, models: dict[str, DeploymentModel], gpu_type: str
) -> int:
    """Return GPUs of a type that observed deployments hold; one not counted holds none."""
    held = 0
    for one in observation.deployments:
        model = models[one.key]
        present = one.present_replicas[np.isfinite(one.present_replicas)]
        if model.gpu_type == gpu_type and present.size:
            held += int(present[-1]) * model.gpus_per_replica
    return held


def _above_parked(one: DeploymentObservation, model: DeploymentModel) -> FloatArray:
    """Return float64[time], W above the parked watts of its GPUs; NaN where not known."""
    present = one.present_replicas
    with np.errstate(invalid="ignore"):
        above = np.maximum(one.power_watts - present * model.parked_watts, 0.0)
        above = np.where(one.power_watts >= 0, above, np.nan)
    result: FloatArray = np.where(present == 0, 0.0, above)
    return result


def _upper_of_other(one: DeploymentObservation, model: DeploymentModel, above: FloatArray) -> float:
    if np.isfinite(above).any():
        return float(np.nanmax(above))
    present = one.present_replicas[np.isfinite(one.present_replicas)]
    # Nothing is known of it: charge what may run.
    count = float(present[-1]) if present.size else float(one.max_replicas or 1)
    return count * model.peak_above_parked_watts
