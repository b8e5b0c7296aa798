"""History of the emulated cluster as a perfect metrics pipeline would deliver it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from powercap_planner.observations import (
    ClusterObservation,
    DeploymentObservation,
    Reading,
)
from powercap_simulator.cluster import SimulatedCluster, TickRecord
from powercap_simulator.curves import GPU_TYPES
from powercap_simulator.errors import ScenarioError

FloatArray = NDArray[np.float64]

STEP_SECONDS = 300.0
_FRESH_SECONDS = 60.0


def observe_history(
    cluster: SimulatedCluster,
    *,
    step_seconds: float = STEP_SECONDS,
    window_seconds: float | None = None,
) -> ClusterObservation:
    """Return what was measured so far, averaged over windows of ``step_seconds``.

    The newest window ends now; what does not fill a window at the beginning is left out.

    Args:
        cluster: The cluster, stepped at least one window.
        step_seconds: Length of a window, s; a multiple of the cluster's tick.
        window_seconds: How far back to look; None is all there is.

    Raises:
        ScenarioError: when less than one window was stepped.
    """
    ticks = round(step_seconds / cluster.tick_seconds)
    if ticks < 1 or abs(ticks * cluster.tick_seconds - step_seconds) > 1e-6:
        raise ScenarioError(
            f"step_seconds is {step_seconds}; accepted: a multiple of {cluster.tick_seconds} s"
        )
    records = cluster.records
    if window_seconds is not None:
        records = records[-max(1, round(window_seconds / step_seconds)) * ticks :]
    steps = len(records) // ticks
    if steps < 1:
        raise ScenarioError(f"less than one window of {step_seconds:g} s was emulated")
    kept = records[len(records) - steps * ticks :]

    def series(read: Callable[[TickRecord], FloatArray]) -> FloatArray:
        table = np.array([read(record) for record in kept]).reshape(steps, ticks, -1)
        return _mean_of_known(table)

    seconds = cluster.tick_seconds
    power = series(lambda r: r.pod_watts)
    ready = series(lambda r: r.ready)
    present = series(lambda r: r.present)
    arrived = series(lambda r: r.served.arrived_tokens) / seconds
    served = series(lambda r: r.served.served_tokens) / seconds
    running = series(lambda r: r.served.running_requests)
    waiting = series(lambda r: r.served.waiting_requests)
    ttft = series(lambda r: r.served.ttft_p95_seconds)
    itl = series(lambda r: r.served.itl_p95_seconds)
    total = np.array([r.measured_watts for r in kept]).reshape(steps, ticks).mean(axis=1)
    deployments = tuple(
        DeploymentObservation(
            namespace=spec.namespace,
            name=spec.name,
            gpu_type=GPU_TYPES[spec.curve.gpu].name,
            gpus_per_replica=spec.curve.gpus_per_replica,
            power_watts=power[:, d].copy(),
            ready_replicas=ready[:, d].copy(),
            present_replicas=present[:, d].copy(),
            arrived_tps=arrived[:, d].copy(),
            served_tps=served[:, d].copy(),
            running_requests=running[:, d].copy(),
            waiting_requests=waiting[:, d].copy(),
            ttft_p95_seconds=ttft[:, d].copy(),
            itl_p95_seconds=itl[:, d].copy(),
            min_replicas=cluster.scaled_objects[d].min_replicas,
            max_replicas=cluster.scaled_objects[d].max_replicas,
            replica_rule=spec.replica_rule,
        )
        for d, spec in enumerate(cluster.scenario.deployments)
    )
    return ClusterObservation(
        time_seconds=np.array([r.time_seconds for r in kept[ticks - 1 :: ticks]]),
        step_seconds=step_seconds,
        deployments=deployments,
        gpu_count=cluster.scenario.gpu_count,
        parked_gpu_watts={
            kind.name: kind.parked_watts
            for kind in GPU_TYPES.values()
            if kind.name in cluster.scenario.gpu_count
        },
        host_idle_watts=sum(node.host_idle_watts for node in cluster.scenario.nodes),
        total_watts=total,
        measured=_reading(cluster, kept),
    )


def _reading(cluster: SimulatedCluster, records: Sequence[TickRecord]) -> Reading:
    fresh = [
        r.measured_watts for r in records[-max(1, round(_FRESH_SECONDS / cluster.tick_seconds)) :]
    ]
    return Reading(
        power_watts=float(np.mean(fresh)),
        measured_at_seconds=records[-1].time_seconds,
        source="simulator",
    )


def _mean_of_known(table: FloatArray) -> FloatArray:
    """Mean over axis 1 of what is not NaN; NaN where all is."""
    known = np.isfinite(table)
    count = known.sum(axis=1)
    total = np.where(known, table, 0.0).sum(axis=1)
    mean: FloatArray = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean
