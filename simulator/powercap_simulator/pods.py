"""Pods of the emulated cluster: where they run, in which state, and what they have counted."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from powercap_simulator.scenario import NodeSpec

FloatArray = NDArray[np.float64]


class PodState(enum.StrEnum):
    """Life of a pod."""

    UNSCHEDULED = "unscheduled"
    """Waits for GPUs; draws nothing."""
    STARTING = "starting"
    """Holds its GPUs and loads its model."""
    READY = "ready"
    TERMINATING = "terminating"
    """Takes no new request, finishes its own, still draws."""


@dataclass(slots=True, kw_only=True)
class Pod:
    """One replica; energies are joules since it was scheduled."""

    name: str
    uid: str
    deployment: int
    """Index of its deployment."""
    created_seconds: float
    state: PodState = PodState.UNSCHEDULED
    node: int = -1
    gpus: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Indices into the cluster's GPUs."""
    scheduled_seconds: float = np.nan
    changes_at_seconds: float = np.inf
    """When it becomes ready, or is gone."""
    power_watts: float = 0.0
    """Its GPUs together."""
    host_watts: float = 0.0
    gpu_joules: float = 0.0
    host_joules: float = 0.0
    """Above the host's idle."""
    idle_joules: float = 0.0
    """Its equal share of the host's idle."""
    counters_at_ready: FloatArray | None = None
    """The deployment's counters per ready replica when it became ready."""
    counters_at_end: FloatArray | None = None
    """The same when it began to terminate."""


class Placement:
    """Which GPU holds which pod."""

    def __init__(self, nodes: tuple[NodeSpec, ...]) -> None:
        self.node_of_gpu = np.repeat(np.arange(len(nodes)), [node.gpu_count for node in nodes])
        """int64[gpu]."""
        self.owner = np.full(self.node_of_gpu.size, -1)
        """int64[gpu]: index of the deployment whose pod holds it, -1 when parked."""
        self.pods_on_node = [0] * len(nodes)
        self._nodes = nodes

    def place(self, pod: Pod, *, gpu: str, gpu_count: int) -> bool:
        """Give the pod GPUs on the fullest node that fits, and say whether one did.

        The fullest first keeps whole nodes free for replicas that need many GPUs.
        """
        best: tuple[int, int] | None = None
        for index, node in enumerate(self._nodes):
            if node.gpu != gpu:
                continue
            free = int((self.owner[self.node_of_gpu == index] < 0).sum())
            if free >= gpu_count and (best is None or free < best[0]):
                best = (free, index)
        if best is None:
            return False
        free_gpus = np.flatnonzero((self.node_of_gpu == best[1]) & (self.owner < 0))
        pod.node, pod.gpus = best[1], free_gpus[:gpu_count]
        self.owner[pod.gpus] = pod.deployment
        self.pods_on_node[pod.node] += 1
        return True

    def release(self, pod: Pod) -> None:
        """Take the pod's GPUs back."""
        self.owner[pod.gpus] = -1
        self.pods_on_node[pod.node] -= 1
