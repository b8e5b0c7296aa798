"""History of the emulated cluster as a perfect metrics pipeline would deliver it."""

from __future__ import annotations

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
_DECIMALS = 4
"""Of watts, tokens/s, requests and seconds: finer than any exporter, and files stay short."""
_FIELDS = (
    "power_watts",
    "ready_replicas",
    "present_replicas",
    "arrived_tps",
    "served_tps",
    "running_requests",
    "waiting_requests",
    "ttft_p95_seconds",
    "itl_p95_seconds",
)


class WindowedHistory:
    """Windows of a cluster's history, each averaged once however often it is observed."""

    def __init__(self, cluster: SimulatedCluster, *, step_seconds: float = STEP_SECONDS) -> None:
        """Begin with the cluster's first record.

        Raises:
            ScenarioError: when the step is no multiple of the cluster's tick.
        """
        ticks = round(step_seconds / cluster.tick_seconds)
        if ticks < 1 or abs(ticks * cluster.tick_seconds - step_seconds) > 1e-6:
            raise ScenarioError(
                f"step_seconds is {step_seconds}; accepted: a multiple of {cluster.tick_seconds} s"
            )
        self._cluster = cluster
        self._step_seconds = step_seconds
        self._ticks = ticks
        self._done = 0
        self._times: list[float] = []
        self._totals: list[float] = []
        self._windows: list[FloatArray] = []

    def observe(self, *, window_seconds: float | None = None) -> ClusterObservation:
        """Return what was measured; ticks that do not yet fill a window are left out.

        Args:
            window_seconds: how far back to look; None is all there is.

        Raises:
            ScenarioError: when less than one window was stepped.
        """
        self._catch_up()
        if not self._windows:
            raise ScenarioError(f"less than one window of {self._step_seconds:g} s was emulated")
        kept = len(self._windows)
        if window_seconds is not None:
            kept = min(kept, max(1, round(window_seconds / self._step_seconds)))
        cluster, scenario = self._cluster, self._cluster.scenario
        table = np.array(self._windows[-kept:])
        deployments = tuple(
            DeploymentObservation(
                namespace=spec.namespace,
                name=spec.name,
                gpu_type=GPU_TYPES[spec.curve.gpu].name,
                gpus_per_replica=spec.curve.gpus_per_replica,
                min_replicas=scaled.min_replicas,
                max_replicas=scaled.max_replicas,
                replica_rule=spec.replica_rule,
                **{field: table[:, row, place].copy() for row, field in enumerate(_FIELDS)},
            )
            for place, (spec, scaled) in enumerate(
                zip(scenario.deployments, cluster.scaled_objects, strict=True)
            )
        )
        return ClusterObservation(
            time_seconds=np.array(self._times[-kept:]),
            step_seconds=self._step_seconds,
            deployments=deployments,
            gpu_count=scenario.gpu_count,
            parked_gpu_watts={
                kind.name: kind.parked_watts
                for kind in GPU_TYPES.values()
                if kind.name in scenario.gpu_count
            },
            host_idle_watts=sum(node.host_idle_watts for node in scenario.nodes),
            total_watts=np.array(self._totals[-kept:]),
            measured=_reading(cluster),
        )

    def _catch_up(self) -> None:
        records = self._cluster.records
        while len(records) - self._done >= self._ticks:
            part = records[self._done : self._done + self._ticks]
            self._done += self._ticks
            self._times.append(part[-1].time_seconds)
            self._totals.append(float(np.mean([record.measured_watts for record in part])))
            table = np.array([_row(record, self._cluster.tick_seconds) for record in part])
            self._windows.append(np.round(_mean_of_known(table), _DECIMALS))


def observe_history(
    cluster: SimulatedCluster,
    *,
    step_seconds: float = STEP_SECONDS,
    window_seconds: float | None = None,
) -> ClusterObservation:
    """Return what was measured so far, averaged over windows of ``step_seconds``.

    Windows are counted from the cluster's start; ticks that do not fill the last one are left out.

    Args:
        cluster: The cluster, stepped at least one window.
        step_seconds: Length of a window, s; a multiple of the cluster's tick.
        window_seconds: How far back to look; None is all there is.

    Raises:
        ScenarioError: when less than one window was stepped.
    """
    history = WindowedHistory(cluster, step_seconds=step_seconds)
    return history.observe(window_seconds=window_seconds)


def _row(record: TickRecord, tick_seconds: float) -> FloatArray:
    """One tick, float64[field, deployment], in the order of ``_FIELDS``."""
    served = record.served
    row: FloatArray = np.array(
        [
            record.pod_watts,
            record.ready,
            record.present,
            served.arrived_tokens / tick_seconds,
            served.served_tokens / tick_seconds,
            served.running_requests,
            served.waiting_requests,
            served.ttft_p95_seconds,
            served.itl_p95_seconds,
        ]
    )
    return row


def _reading(cluster: SimulatedCluster) -> Reading:
    fresh = cluster.records[-max(1, round(_FRESH_SECONDS / cluster.tick_seconds)) :]
    return Reading(
        power_watts=float(np.mean([record.measured_watts for record in fresh])),
        measured_at_seconds=fresh[-1].time_seconds,
        source="simulator",
    )


def _mean_of_known(table: FloatArray) -> FloatArray:
    """Mean over axis 0 of what is not NaN; NaN where all is."""
    known = np.isfinite(table)
    count = known.sum(axis=0)
    total = np.where(known, table, 0.0).sum(axis=0)
    mean: FloatArray = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean
