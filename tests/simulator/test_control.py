import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_proto.v1 import planner_pb2 as pb
from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.control import (
    DRAIN_SECONDS,
    CapEvent,
    CappedCluster,
    CapSchedule,
)
from powercap_simulator.errors import ScenarioError
from powercap_simulator.outcome import Course, course_of, worst_excess_watts
from powercap_simulator.scenario import mixed_scenario

CHARGE = 1000.0
EVENT = CapEvent(start_seconds=1000.0, end_seconds=2000.0, cap_watts=70.0)
SCHEDULE = CapSchedule(cap_watts=100.0, events=(EVENT,))


@given(start=st.floats(0.0, 3000.0), length=st.floats(0.0, 3000.0))
def test_the_cap_of_a_span_is_the_least_valid_within_it(start: float, length: float) -> None:
    end = start + length

    least = SCHEDULE.least(start, end)

    moments = np.append(np.linspace(start, end, 50), [m for m in (1000.0,) if start <= m <= end])
    assert least == min(SCHEDULE.at(moment) for moment in moments.tolist())


def test_the_cap_changes_at_the_events_edges() -> None:
    assert [SCHEDULE.at(when) for when in (999.0, 1000.0, 1999.0, 2000.0)] == [100, 70, 70, 100]
    with pytest.raises(ScenarioError, match="cap is 0"):
        CapSchedule(cap_watts=0.0)


def test_a_window_counts_against_the_least_cap_within_it() -> None:
    course = Course(
        time_seconds=np.array([960.0, 1020.0, 1080.0]),
        measured_watts=np.array([99.0, 75.0, 69.0]),
        asked_tps=np.zeros(3),
        served_tps=np.zeros(3),
    )

    assert worst_excess_watts(course, SCHEDULE) == 5.0
    assert worst_excess_watts(course.between(0.0, 960.0), SCHEDULE) == -1.0


class Planner:
    """Answers what the test wants, within the cap that is asked."""

    def __init__(self, wanted: dict[str, int]) -> None:
        self.wanted = wanted
        self.requests: list[pb.CalculateOptimalReplicasRequest] = []

    def __call__(
        self, request: pb.CalculateOptimalReplicasRequest
    ) -> pb.CalculateOptimalReplicasResponse:
        self.requests.append(request)
        return pb.CalculateOptimalReplicasResponse(
            deployment_replicas=[
                pb.DeploymentReplicas(
                    name=one.name,
                    namespace=one.namespace,
                    optimal_replicas=self.wanted[f"{one.namespace}/{one.name}"],
                    charged_watts_per_replica=CHARGE,
                )
                for one in request.deployments
            ],
            caps=[pb.CapResult(name="cluster", available_watts=request.power_cap_watts)],
        )


def charged(capped: CappedCluster) -> float:
    cluster = capped.cluster
    return math.fsum(
        CHARGE * max(scaled.max_replicas, capped.present(index))
        for index, scaled in enumerate(cluster.scaled_objects)
    )


def test_lowers_before_it_raises_and_never_charges_more_than_the_cap_leaves() -> None:
    cluster = SimulatedCluster(mixed_scenario().starting_at(1_767_614_400.0), seed=3)
    cluster.step(600.0)
    keys = [spec.key for spec in cluster.scenario.deployments]
    maxima = {key: s.max_replicas for key, s in zip(keys, cluster.scaled_objects, strict=True)}
    before = dict.fromkeys(keys, 1) | {"chat/assistant-8b": 4, "agents/tools-20b": 1}
    after = dict.fromkeys(keys, 1) | {"chat/assistant-8b": 1, "agents/tools-20b": 3}
    planner = Planner(before)
    total = sum(before.values()) * CHARGE
    capped = CappedCluster(cluster, schedule=CapSchedule(cap_watts=total), ask=planner)
    capped.plan(until_next_seconds=300.0)
    capped.advance(600.0)
    assert charged(capped) <= total

    planner.wanted = after
    capped.plan(until_next_seconds=300.0)

    index = cluster.index("agents/tools-20b")
    assert cluster.scaled_objects[index].max_replicas == 1
    for _ in range(10):
        capped.advance(60.0)
        assert charged(capped) <= total
    assert cluster.scaled_objects[index].max_replicas == 3
    assert [one.max_replicas for one in planner.requests[-1].deployments] == [*maxima.values()]


def test_a_plan_ahead_of_an_event_already_asks_for_its_cap() -> None:
    cluster = SimulatedCluster(mixed_scenario(), seed=3)
    now = cluster.now_seconds
    event = CapEvent(start_seconds=now + 400.0, end_seconds=now + 900.0, cap_watts=7.0)
    keys = [spec.key for spec in cluster.scenario.deployments]
    planner = Planner(dict.fromkeys(keys, 1))
    schedule = CapSchedule(cap_watts=10.0, events=(event,))
    capped = CappedCluster(cluster, schedule=schedule, ask=planner)

    capped.plan(until_next_seconds=400.0 - DRAIN_SECONDS - 1.0)
    capped.plan(until_next_seconds=400.0 - DRAIN_SECONDS)

    assert [request.power_cap_watts for request in planner.requests] == [10.0, 7.0]


def test_the_course_conserves_tokens_and_energy() -> None:
    cluster = SimulatedCluster(mixed_scenario(), seed=3)
    since = cluster.now_seconds
    cluster.step(1800.0)

    course = course_of(cluster, since_seconds=since)

    served = sum(float(record.served.served_tokens.sum()) for record in cluster.records)
    assert course.served_tps.sum() * 60.0 == pytest.approx(served)
    assert course.time_seconds[[0, -1]].tolist() == [since + 60.0, since + 1800.0]
    with pytest.raises(ScenarioError, match="less than 60 s"):
        course_of(cluster, since_seconds=cluster.now_seconds)
