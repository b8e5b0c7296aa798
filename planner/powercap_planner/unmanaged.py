"""Watts that no target of the request explains: other pods, foreign GPUs, meter drift."""

from __future__ import annotations

import numpy as np

from powercap_planner.curves.model import DeploymentModel
from powercap_planner.curves.nameplate import LARGEST, find_gpu
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

    Args:
        observation: the history.
        models: by ``namespace/name``.
        targets: keys of the deployments that the request names, explained elsewhere.
        base: base watts, W.
        uncertain_watts: charge of targets whose draw is not measured; their real draw is in the
            measured total too and must not be taken for unmanaged.
        now_seconds: Unix time, s.
        span_seconds: how far back to look, s.
    """
    recent = (observation.time_seconds > now_seconds - span_seconds) & (
        observation.time_seconds <= now_seconds
    )
    known = np.ones(recent.size, dtype=np.bool_)
    explained = np.zeros(recent.size)
    others = 0.0
    for one in observation.deployments:
        above = _above_parked(one, models[one.key])
        if one.key in targets:
            known &= np.isfinite(above)
            explained += np.where(np.isfinite(above), above, 0.0)
        else:
            others += _upper_of_other(one, models[one.key], above[recent])
    remainder = observation.total_watts - base - explained
    measured = recent & np.isfinite(remainder)
    if not measured.any():
        message = f"no total measured: unmanaged watts are those of other deployments, {others:.0f}"
        return others, (Finding(reason="TotalNotMeasured", message=message),)
    certain = measured & known
    latest = float(remainder[measured][-1])
    if certain.any():
        # The latest window counts even where a target's share of it is not known.
        upper = max(float(remainder[certain].max()), latest - uncertain_watts)
        return max(upper, others, 0.0), ()
    message = "no window in which all targets are measured: their unknown watts count as unmanaged"
    upper = float(remainder[measured].max())
    return max(upper, others, 0.0), (Finding(reason="AttributionIncomplete", message=message),)


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
