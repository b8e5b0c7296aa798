"""Windows of a deployment's history that tell something about one replica."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from powercap_planner.curves.nameplate import HOST_SHARE_WATTS_PER_GPU, GpuType
from powercap_planner.observations import DeploymentObservation, Finding, FloatArray

ABSURD_FACTOR = 1.3
"""Short peaks reach 1.30 times nameplate; a window mean above that is no measurement."""
ABSURD_PARKED_SHARE = 0.5
"""A loaded replica draws more than its GPUs parked; half of that is no measurement."""
WAITING_PER_REPLICA = 1.0
"""Requests waiting per replica from which a replica counts as saturated."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """One entry per usable window, in order of time."""

    load_tps: FloatArray
    """float64[sample], delivered tokens/s per replica: what the watts belong to."""
    power_watts: FloatArray
    """float64[sample], per replica."""
    is_saturated: NDArray[np.bool_]
    """bool[sample]: requests were waiting, more could not be delivered."""
    findings: tuple[Finding, ...]


def usable_samples(
    deployment: DeploymentObservation,
    *,
    gpu: GpuType | None,
    gpus: int,
    parked_watts: float,
) -> Samples:
    """Return the windows whose watts and tokens can be read as one replica's.

    Windows in which replicas start or end are left out where others exist: their watts are of
    more pods than their tokens.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ready = deployment.ready_replicas
        load = deployment.served_tps / ready
        power = deployment.power_watts / ready
        complete = np.isfinite(load) & np.isfinite(power) & (ready >= 1) & (load >= 0)
        sane = complete & (power > ABSURD_PARKED_SHARE * parked_watts) & (power > 0)
        if gpu is not None and gpus:
            most = gpus * (gpu.nameplate_watts * ABSURD_FACTOR + HOST_SHARE_WATTS_PER_GPU)
            sane &= power <= most
        steady = sane & (deployment.present_replicas == ready)
        waiting = deployment.waiting_requests / ready >= WAITING_PER_REPLICA
    findings: tuple[Finding, ...] = ()
    if absurd := int((complete & ~sane).sum()):
        findings = (
            Finding(
                reason="PowerAbsurd",
                message=f"{absurd} of {complete.sum()} windows with impossible watts left out",
                deployment=deployment.key,
            ),
        )
    kept = steady if steady.any() else sane
    return Samples(
        load_tps=load[kept],
        power_watts=power[kept],
        is_saturated=waiting[kept],
        findings=findings,
    )
