"""KEDA and its HPA, as far as a replica cap can notice them.

Behaviour after kedacore/keda v2.12 to v2.20 and the HPA controller of Kubernetes: a sync every
15 s, ``ceil(metric / target)`` with a tolerance of 10 %, a scale-down that waits for the highest
recommendation of the last 300 s, a scale-up of at most 4 pods or a doubling per sync. A current
count above ``maxReplicaCount`` goes to the maximum at the next sync, without metrics and without
stabilisation. ``paused`` freezes the count, ``paused-replicas`` sets it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from powercap_simulator.errors import ScenarioError

SYNC_SECONDS = 15.0
STABILISATION_SECONDS = 300.0
COOLDOWN_SECONDS = 300.0
TOLERANCE = 0.1


@dataclass(slots=True, kw_only=True)
class ScaledObject:
    """One ScaledObject with the state of its HPA.

    The metric is the load of the whole deployment in tokens/s (a Prometheus trigger on the rate of
    generated tokens and the queue), ``target`` that of one replica. Requests in flight would not
    do: they grow faster than the load, and the count would swing.
    """

    min_replicas: int
    max_replicas: int
    target: float
    """Tokens/s per replica."""
    is_paused: bool = False
    paused_replicas: int | None = None
    desired_replicas: int = 1
    """What the HPA asked for last."""
    _recommendations: deque[tuple[float, int]] = field(default_factory=deque)
    _last_active_seconds: float = -math.inf

    def set_limits(
        self, *, min_replicas: int | None = None, max_replicas: int | None = None
    ) -> None:
        """Change the limits as one patch; takes effect at the next sync.

        Raises:
            ScenarioError: as KEDA's admission would refuse it.
        """
        low = self.min_replicas if min_replicas is None else min_replicas
        high = self.max_replicas if max_replicas is None else max_replicas
        if low < 0:
            raise ScenarioError(f"minReplicaCount is {low}; accepted: 0 or more")
        if high < max(1, low):
            raise ScenarioError(
                f"maxReplicaCount is {high}; accepted: {max(1, low)} or more "
                f"(minReplicaCount is {low})"
            )
        self.min_replicas, self.max_replicas = low, high

    def sync(self, *, now_seconds: float, current: int, metric: float) -> int:
        """Return the replicas asked for at one HPA sync.

        Args:
            now_seconds: Unix time, s.
            current: Replicas in the workload's spec.
            metric: Tokens/s asked of the whole deployment.
        """
        if self.paused_replicas is not None:
            self.desired_replicas = self.paused_replicas
        elif self.is_paused:
            self.desired_replicas = current
        else:
            self.desired_replicas = self._scale(now_seconds, current, metric)
        return self.desired_replicas

    def _scale(self, now_seconds: float, current: int, metric: float) -> int:
        if metric > 0:
            self._last_active_seconds = now_seconds
        if current == 0:
            # KEDA alone wakes a workload at zero; the HPA is disabled there.
            return max(1, self.min_replicas) if metric > 0 else self.min_replicas
        # KEDA scales the last replica to zero, outside the HPA, after its cooldown.
        idle_seconds = now_seconds - self._last_active_seconds
        if self.min_replicas == 0 and metric == 0 and idle_seconds >= COOLDOWN_SECONDS:
            return 0
        if current > self.max_replicas:
            return self.max_replicas
        low = max(1, self.min_replicas)
        if current < low:
            return low
        recommended = self._recommend(current, metric)
        self._recommendations.append((now_seconds, recommended))
        while self._recommendations[0][0] < now_seconds - STABILISATION_SECONDS:
            self._recommendations.popleft()
        if recommended < current:
            recommended = min(current, max(count for _, count in self._recommendations))
        fastest = max(2 * current, current + 4)
        return min(max(min(recommended, fastest), low), self.max_replicas)

    def _recommend(self, current: int, metric: float) -> int:
        ratio = metric / (self.target * current)
        if abs(ratio - 1) <= TOLERANCE:
            return current
        return math.ceil(metric / self.target)
