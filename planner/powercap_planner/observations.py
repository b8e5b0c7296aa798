"""What was measured: the values every metrics source delivers, whatever it reads.

Missing is NaN in a series and ``None`` in a field, with a finding that says why; never 0.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class ReplicaRule(enum.StrEnum):
    """Who decides how many of the allowed replicas run."""

    CEILING = "ceiling"
    """An autoscaler: as many as the load needs, up to the allowed."""
    FIXED = "fixed"
    """Nobody: all allowed replicas run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing a reader should know about the data: missing, doubtful or assumed."""

    reason: str
    """CamelCase, stable: fits a Kubernetes condition's reason."""
    message: str
    deployment: str = ""
    """``namespace/name``, empty when it is about the whole cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One measured watts value with its time and source."""

    power_watts: float
    measured_at_seconds: float
    """Unix time, s."""
    source: str
    """For example ``dcgm+kepler``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeploymentObservation:
    """The history of one deployment on the time grid of its ``ClusterObservation``.

    All arrays are float64[time]; NaN where nothing usable was measured.
    """

    namespace: str
    name: str
    gpu_type: str | None
    """As the exporter names it, for example ``NVIDIA H100 80GB HBM3``; None when unknown."""
    gpus_per_replica: int | None
    power_watts: FloatArray
    """GPU and attributed host watts of all its pods, parked watts of their GPUs included."""
    ready_replicas: FloatArray
    present_replicas: FloatArray
    """Pending, ready and terminating."""
    arrived_tps: FloatArray
    """Load: generated tokens/s asked, from arrivals and queue growth, not completions."""
    served_tps: FloatArray
    """Generated tokens/s delivered."""
    running_requests: FloatArray
    waiting_requests: FloatArray
    ttft_p95_seconds: FloatArray
    itl_p95_seconds: FloatArray
    min_replicas: int | None
    """Of its autoscaler; None when there is none or it is not known."""
    max_replicas: int | None
    """The user's own: the highest there was, where clients write lower ones."""
    replica_rule: ReplicaRule = ReplicaRule.CEILING

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClusterObservation:
    """One snapshot of history, all series on one time grid."""

    time_seconds: FloatArray
    """float64[time], Unix time of the end of each window, s, evenly spaced."""
    step_seconds: float
    deployments: tuple[DeploymentObservation, ...]
    gpu_count: dict[str, int]
    """GPUs of the cluster by type, in use or not."""
    parked_gpu_watts: dict[str, float]
    """Watts of one GPU with no replica on it, by type; measured, else from the table of types."""
    host_idle_watts: float
    """Idle watts of all hosts together (their GPUs apart), W."""
    total_watts: FloatArray
    """float64[time]: GPUs and hosts of the whole cluster."""
    measured: Reading | None
    """The latest total, None when nothing fresh is measured."""
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        self.time_seconds.setflags(write=False)
        self.total_watts.setflags(write=False)
