"""The operator on a real API server when something fails: nothing that fails raises a maximum."""

from __future__ import annotations

import datetime
import json
import socket
import time
import urllib.request
from typing import Any

import grpc
import pytest

from powercap_proto.v1 import planner_pb2

pytestmark = pytest.mark.servers


def test_planner_killed_holds_then_safe_maxima(
    site: Any, planner: Any, start_operator: Any, maxima: Any
) -> None:
    site.add("chat", replicas=2, maximum=10)
    site.add("batch", replicas=1, maximum=10)
    planner.allow("chat", 5, safe_max=3)
    planner.allow("batch", 4, safe_max=4)
    planner.valid_seconds = 10.0
    start_operator()
    cap = site.cap(watts=1000)
    site.wait(lambda: (site.maximum("chat"), site.maximum("batch")) == (5, 4), "planned")
    site.cycles(cap, 1)

    killed_at = datetime.datetime.now(datetime.UTC)
    planner.stop()
    site.scale("chat", 5)
    site.wait(
        lambda: site.condition(cap, "PlannerReachable").get("status") == "False", "it is noticed"
    )
    noticed_at = datetime.datetime.now(datetime.UTC)
    outage = site.condition(cap, "PlannerReachable")["lastTransitionTime"]
    expires_at = datetime.datetime.fromisoformat(site.status(cap)["plan"]["expiresAt"])
    outcomes: list[str] = []

    def is_ended() -> bool:
        outcomes.append(site.status(cap)["lastCycle"]["outcome"])
        return outcomes[-1] == "SafeMaxima"

    site.wait(is_ended, "safe maxima apply after expiry")
    site.cycles(cap, 2)

    # Up to the plan's expiry nothing but the plan was written, and after it only safe maxima.
    assert [change for change in maxima.changes if change[0] == "chat"] == [
        ("chat", 10),
        ("chat", 5),
        ("chat", 3),
    ]
    assert maxima.written_at[maxima.changes.index(("chat", 3))] >= expires_at
    assert set(outcomes) == {"PlanHeld", "SafeMaxima"}
    began = datetime.datetime.fromisoformat(outage)
    assert killed_at <= began <= noticed_at
    assert site.condition(cap, "PlannerReachable")["lastTransitionTime"] == outage
    assert (site.maximum("chat"), site.maximum("batch")) == (3, 4)
    assert site.condition(cap, "Ready")["reason"] == "PlannerUnreachable"
    assert site.status(cap)["lastCycle"]["outcome"] == "SafeMaxima"
    assert site.event("SafeMaximaApplied", of=cap)
    assert [change for change in maxima.changes if change[0] == "batch"] == [
        ("batch", 10),
        ("batch", 4),
    ]


def test_a_cap_lowered_while_the_planner_is_down_is_obeyed_at_once(
    site: Any, planner: Any, start_operator: Any, maxima: Any
) -> None:
    site.add("important", replicas=4, maximum=4)
    site.add("batch", replicas=4, maximum=4)
    planner.allow("important", 4, safe_max=4)
    planner.allow("batch", 4, safe_max=4)
    planner.base_watts = 100.0
    start_operator()
    priority = {"namespace": site.namespace, "name": "important", "priority": 5}
    cap = site.cap(watts=1000, targets=[priority])
    site.wait(lambda: site.condition(cap, "Ready").get("reason") == "PlanInForce", "planned")
    planner.stop()
    site.wait(
        lambda: site.condition(cap, "PlannerReachable").get("status") == "False", "it is noticed"
    )

    site.patch_cap(cap, cap={"watts": 750})
    site.wait(lambda: site.maximum("batch") == 2, "650 W above base are six replicas of 100 W")
    site.cycles(cap, 2)
    site.patch_cap(cap, cap={"watts": 1000})
    site.cycles(cap, 2)

    assert maxima.changes == [("important", 4), ("batch", 4), ("batch", 2)]
    assert "batch 4 -> 2" in site.event("LoweredCapObeyed", of=cap)


def test_a_raise_by_hand_during_an_outage_is_taken_back(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 5)
    start_operator()
    cap = site.cap(watts=1000)
    site.wait(lambda: site.maximum("chat") == 5, "planned")
    planner.stop()
    site.wait(
        lambda: site.condition(cap, "PlannerReachable").get("status") == "False", "it is noticed"
    )

    site.set_maximum("chat", 40)

    site.wait(lambda: site.maximum("chat") == 5, "the plan in force holds")
    assert site.target(cap, "chat")["userMax"] == 40
    assert site.event("PlanHeld", of=cap)


def test_a_planner_that_returns_is_used_at_once(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 5)
    start_operator()
    cap = site.cap(watts=1000)
    site.wait(lambda: site.maximum("chat") == 5, "planned")
    planner.stop()
    site.wait(
        lambda: site.condition(cap, "PlannerReachable").get("status") == "False", "it is noticed"
    )

    planner.allow("chat", 7)
    planner.start()

    site.wait(lambda: site.maximum("chat") == 7, "the new plan is written")
    site.wait(lambda: site.condition(cap, "PlannerReachable")["status"] == "True", "reachable")


def test_nothing_is_written_before_there_is_a_plan(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", maximum=10)
    planner.error = (grpc.StatusCode.FAILED_PRECONDITION, "no power metrics of chat")
    start_operator()

    cap = site.cap(watts=1000)
    site.cycles(cap, 3)

    assert site.maximum("chat") == 10
    metrics = site.condition(cap, "MetricsHealthy")
    assert (metrics["status"], metrics["reason"]) == ("False", "MetricsMissing")
    assert "no power metrics of chat" in metrics["message"]
    assert site.condition(cap, "PlannerReachable")["status"] == "True"


def test_a_planner_without_prometheus_is_not_called_unreachable(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", maximum=10)
    planner.error = (grpc.StatusCode.UNAVAILABLE, "Prometheus does not answer")
    start_operator()

    cap = site.cap(watts=1000)
    site.cycles(cap, 1)

    assert site.condition(cap, "PlannerReachable")["status"] == "True"
    metrics = site.condition(cap, "MetricsHealthy")
    assert metrics["reason"] == "MetricsMissing"
    assert "Prometheus does not answer" in metrics["message"]


def test_measured_watts_above_the_cap_shed_the_least_important_first(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("important", replicas=4, maximum=4)
    site.add("batch", replicas=4, maximum=4)
    planner.allow("important", 4)
    planner.allow("batch", 4)
    start_operator(interval=None)
    namespace = site.namespace
    cap = site.cap(
        watts=1000,
        intervalSeconds=3600,
        feedbackIntervalSeconds=1,
        targets=[{"namespace": namespace, "name": "important", "priority": 5}],
    )
    site.cycles(cap, 1)
    before = (site.maximum("important"), site.maximum("batch"))

    planner.measured_watts = 1150.0
    site.wait(lambda: site.maximum("batch") == 2, "150 W are two replicas of 100 W")
    planner.measured_watts = 900.0
    site.wait(lambda: site.condition(cap, "CapHeld").get("status") == "True", "held again")

    assert before == (4, 4)
    assert site.maximum("important") == 4
    assert site.maximum("batch") == 2
    assert site.status(cap)["lastShed"]["watts"] == 200
    assert "1150 W are above the cap of 1000 W" in site.event("Shed", of=cap)


def test_without_measured_watts_nothing_rises(site: Any, planner: Any, start_operator: Any) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 3)
    start_operator()
    cap = site.cap(watts=1000)
    site.wait(lambda: site.maximum("chat") == 3, "planned")

    planner.measured_watts = None
    planner.allow("chat", 6)
    site.cycles(cap, 3)

    assert site.maximum("chat") == 3
    assert site.condition(cap, "MetricsHealthy")["reason"] == "PowerNotMeasured"
    assert site.condition(cap, "CapHeld")["status"] == "Unknown"
    assert "watts are not measured" in site.target(cap, "chat")["reason"]


def test_a_target_without_data_is_never_raised(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 3)
    start_operator()
    cap = site.cap(watts=1000)
    site.wait(lambda: site.maximum("chat") == 3, "planned")

    planner.allow("chat", 6, status=planner_pb2.DeploymentReplicas.STATUS_HELD)
    site.cycles(cap, 3)

    assert site.maximum("chat") == 3
    assert site.target(cap, "chat")["state"] == "Held"
    assert site.condition(cap, "MetricsHealthy")["reason"] == "TargetsHeld"


def test_an_impossible_answer_is_not_used(site: Any, planner: Any, start_operator: Any) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 3, watts=float("nan"))
    start_operator()

    cap = site.cap(watts=1000)
    site.cycles(cap, 2)

    assert site.maximum("chat") == 10
    ready = site.condition(cap, "Ready")
    assert ready["reason"] == "AnswerUnusable"
    assert "charged_watts_per_replica is nan" in ready["message"]


def test_an_operator_killed_after_remembering_loses_no_maximum(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 3)
    first = start_operator()
    cap = site.cap(watts=1000)
    site.wait(lambda: site.maximum("chat") == 3, "planned")
    first.kill()

    planner.allow("chat", 2)
    start_operator()
    site.wait(lambda: site.maximum("chat") == 2, "the new process plans on")
    remembered = site.target(cap, "chat")["userMax"]
    site.delete_cap(cap)

    assert remembered == 10
    assert site.maximum("chat") == 10


def test_two_operators_at_once_do_no_harm(
    site: Any, planner: Any, start_operator: Any, maxima: Any
) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 4)
    start_operator()
    start_operator()

    cap = site.cap(watts=1000)
    site.wait(lambda: site.maximum("chat") == 4, "planned")
    site.cycles(cap, 6)
    planner.allow("chat", 6)
    site.wait(lambda: site.maximum("chat") == 6, "planned again")
    site.cycles(cap, 6)

    assert maxima.changes == [("chat", 10), ("chat", 4), ("chat", 6)]
    assert site.target(cap, "chat")["userMax"] == 10
    assert "ForeignChange" not in dict(site.events())


def test_the_probe_answers_with_the_age_of_the_last_turn(site: Any, start_operator: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start_operator(f"--liveness-port={port}")
    started_at = time.monotonic()
    cap = site.cap(watts=1000)
    site.cycles(cap, 1)

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
        found = json.load(answer)

    age_seconds = found["last_cycle"]["seconds_since_last_turn"]
    assert 0 <= age_seconds <= time.monotonic() - started_at


# Less than its own overhead: a rule over two fields, which older schemas do not hold.
REFUSED_CAP = {"watts": 1000, "fixedOverheadWatts": 2000}


def test_a_spec_that_turned_invalid_sheds_by_the_last_valid_one(
    site: Any, planner: Any, older_schema: None, start_operator: Any
) -> None:
    site.add("important", replicas=4, maximum=4)
    site.add("batch", replicas=4, maximum=4)
    planner.allow("important", 4)
    planner.allow("batch", 4)
    start_operator()
    priority = {"namespace": site.namespace, "name": "important", "priority": 5}
    cap = site.cap(watts=1000, targets=[priority])
    site.wait(lambda: site.condition(cap, "Ready").get("status") == "True", "planned")

    site.patch_cap(cap, cap=REFUSED_CAP, targets=[])
    site.wait(lambda: site.condition(cap, "Ready").get("reason") == "InvalidSpec", "refused")
    planner.measured_watts = 1150.0
    site.wait(lambda: site.maximum("batch") == 2, "150 W are two replicas of 100 W")
    site.wait(lambda: site.condition(cap, "CapHeld").get("status") == "False", "it is told")

    assert site.maximum("important") == 4
    ready = site.condition(cap, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert "spec.cap.fixedOverheadWatts is 2000 W" in ready["message"]


def test_a_spec_that_turned_invalid_lets_its_plan_expire_and_raises_nothing(
    site: Any, planner: Any, older_schema: None, start_operator: Any, maxima: Any
) -> None:
    site.add("chat", replicas=2, maximum=10, labels={"tier": "a"})
    site.add("new", replicas=1, maximum=10, labels={"tier": "b"})
    planner.allow("chat", 5, safe_max=3)
    planner.valid_seconds = 10.0
    start_operator()
    tier = {"namespaces": [site.namespace], "matchLabels": {"tier": "a"}}
    cap = site.cap(watts=1000, selector=tier)
    site.wait(lambda: site.maximum("chat") == 5, "planned")
    site.wait(lambda: "lastValidSpec" in site.status(cap), "the valid spec is remembered")

    planner.allow("chat", 8)
    site.patch_cap(cap, cap=REFUSED_CAP, selector={"matchLabels": {"tier": "none"}})
    site.wait(lambda: site.maximum("chat") == 3, "safe maxima apply after expiry")
    site.cycles(cap, 2)
    site.patch_cap(cap, cap={"fixedOverheadWatts": 0}, selector={"matchLabels": {"tier": "a"}})
    site.wait(lambda: site.maximum("chat") == 8, "corrected, it is planned again")

    assert maxima.changes == [
        ("chat", 10),
        ("new", 10),
        ("chat", 5),
        ("chat", 3),
        ("chat", 8),
    ]


def test_no_matching_scaled_object_is_said(site: Any, start_operator: Any) -> None:
    start_operator()

    cap = site.cap(watts=1000)
    site.cycles(cap, 1)

    ready = site.condition(cap, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NoTargets")
