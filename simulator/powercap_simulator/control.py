"""The emulated cluster under a planner's control, as the operator controls a real one.

Each cycle a plan is asked for over gRPC with the least cap that is valid until the next one has
taken effect; maxima are lowered at once and raised only as far as the operator's own ledger leaves
watts: what is present is charged until it is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from powercap_operator.ledger import Entry, Key, Ledger
from powercap_operator.rollout import Wish, plan_steps, raising_steps
from powercap_proto.v1 import planner_pb2 as pb
from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.errors import ScenarioError

CYCLE_SECONDS = 60.0
"""Between two looks at the ledger."""
DRAIN_SECONDS = 120.0
"""From a lowered maximum until its pods are gone: HPA sync, grace, and a margin."""

AskPlan = Callable[[pb.CalculateOptimalReplicasRequest], pb.CalculateOptimalReplicasResponse]


@dataclass(frozen=True, slots=True, kw_only=True)
class CapEvent:
    """A span of time in which another cap holds."""

    start_seconds: float
    end_seconds: float
    cap_watts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CapSchedule:
    """The cap over time: one that always holds, and events that lower it."""

    cap_watts: float
    events: tuple[CapEvent, ...] = ()

    def __post_init__(self) -> None:
        """Check the caps.

        Raises:
            ScenarioError: naming the value.
        """
        for watts in (self.cap_watts, *(event.cap_watts for event in self.events)):
            if not watts > 0:
                raise ScenarioError(f"cap is {watts} W; accepted: more than 0")

    def at(self, time_seconds: float) -> float:
        """Return the cap in force at a moment, W."""
        return self.least(time_seconds, time_seconds)

    def least(self, start_seconds: float, end_seconds: float) -> float:
        """Return the least cap valid within a span, W."""
        within = (
            event.cap_watts
            for event in self.events
            if event.start_seconds <= end_seconds and start_seconds < event.end_seconds
        )
        return min((self.cap_watts, *within))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCycle:
    """One plan with what was asked."""

    time_seconds: float
    request: pb.CalculateOptimalReplicasRequest
    response: pb.CalculateOptimalReplicasResponse
    answer_seconds: float
    """Until the answer came."""


class CappedCluster:
    """Keeps a cluster under a schedule of caps."""

    def __init__(self, cluster: SimulatedCluster, *, schedule: CapSchedule, ask: AskPlan) -> None:
        """Take the maxima in force as the user's own."""
        self.cluster = cluster
        self._schedule = schedule
        self._ask = ask
        self._user_maxima = {
            spec.key: scaled.max_replicas
            for spec, scaled in zip(
                cluster.scenario.deployments, cluster.scaled_objects, strict=True
            )
        }
        self.cycles: list[PlannedCycle] = []

    def plan(self, *, until_next_seconds: float) -> PlannedCycle:
        """Ask for a plan, lower what it lowers, and raise what the ledger leaves watts for.

        Raises:
            PlannerError: the planner gave none; nothing was changed.
        """
        now = self.cluster.now_seconds
        cap = self._schedule.least(now, now + until_next_seconds + DRAIN_SECONDS)
        request = self._request(cap)
        started = time.perf_counter()
        response = self._ask(request)
        cycle = PlannedCycle(
            time_seconds=now,
            request=request,
            response=response,
            answer_seconds=time.perf_counter() - started,
        )
        self.cycles.append(cycle)
        wishes, ledger = self._wishes(response)
        for step in plan_steps(wishes, ledger=ledger):
            self._write(step.key, step.after)
        return cycle

    def advance(self, seconds: float) -> None:
        """Let time run, raising what the plan in force still has to raise as watts come free."""
        end = self.cluster.now_seconds + seconds
        while self.cluster.now_seconds < end:
            self.cluster.step(min(CYCLE_SECONDS, end - self.cluster.now_seconds))
            if self.cycles:
                wishes, ledger = self._wishes(self.cycles[-1].response)
                for step in raising_steps(wishes, ledger=ledger):
                    self._write(step.key, step.after)

    def present(self, index: int) -> int:
        """Return the replicas of a deployment that exist, whatever their state."""
        return len(self.cluster.pods_of(index))

    def _write(self, key: Key, replicas: int) -> None:
        self.cluster.set_max_replicas("/".join(key), replicas)

    def _request(self, cap_watts: float) -> pb.CalculateOptimalReplicasRequest:
        deployments = [
            pb.Deployment(
                name=spec.name,
                namespace=spec.namespace,
                min_replicas=scaled.min_replicas,
                max_replicas=self._user_maxima[spec.key],
                weight=spec.weight,
                priority=spec.priority,
                allowed_replicas=scaled.max_replicas,
                present_replicas=self.present(index),
            )
            for index, (spec, scaled) in enumerate(
                zip(self.cluster.scenario.deployments, self.cluster.scaled_objects, strict=True)
            )
        ]
        return pb.CalculateOptimalReplicasRequest(
            deployments=deployments, power_cap_watts=cap_watts
        )

    def _wishes(self, response: pb.CalculateOptimalReplicasResponse) -> tuple[list[Wish], Ledger]:
        wishes, entries = [], {}
        for one in response.deployment_replicas:
            index = self.cluster.index(f"{one.namespace}/{one.name}")
            spec = self.cluster.scenario.deployments[index]
            current = self.cluster.scaled_objects[index].max_replicas
            key = (one.namespace, one.name)
            wishes.append(
                Wish(
                    key=key,
                    current=current,
                    desired=one.optimal_replicas,
                    priority=spec.priority,
                    weight=spec.weight,
                )
            )
            entries[key] = Entry(
                # Until the HPA has followed a lower maximum, what it asks for still counts.
                allowed=max(current, int(self.cluster.spec_replicas[index])),
                present=self.present(index),
                watts_per_replica=one.charged_watts_per_replica,
            )
        return wishes, Ledger(entries=entries, available_watts=response.caps[0].available_watts)
