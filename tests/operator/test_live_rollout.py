"""The operator on a real API server: what it writes, in which order, and what it gives back."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.servers


def test_a_plan_is_written_and_told(site: Any, planner: Any, start_operator: Any) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 4)
    start_operator()

    cap = site.cap(watts=1000)

    site.wait(lambda: site.maximum("chat") == 4, "the plan is written")
    site.wait(lambda: site.condition(cap, "Ready").get("reason") == "PlanInForce", "settled")
    status = site.status(cap)
    target = site.target(cap, "chat")
    assert target["userMax"] == 10
    assert target["allowed"] == 4
    assert target["state"] == "Managed"
    assert target["reason"] == "as the test says"
    assert status["chargedWatts"] == pytest.approx(400)
    assert status["headroomWatts"] == pytest.approx(600)
    assert status["managedTargets"] == "1/1"
    assert "from 10 to 4" in site.event("MaximumLowered")
    assert site.event("PlanApplied", of=cap)


def test_advisory_plans_and_writes_nothing(site: Any, planner: Any, start_operator: Any) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 4)
    start_operator()

    cap = site.cap(watts=1000, rollout="Advisory")
    site.cycles(cap, 3)

    assert site.maximum("chat") == 10
    assert site.target(cap, "chat")["planned"] == 4
    assert site.condition(cap, "Ready")["reason"] == "Advised"
    assert site.events() == []


def test_lowers_before_it_raises_and_only_once_the_pods_are_gone(
    site: Any, planner: Any, start_operator: Any, maxima: Any
) -> None:
    site.add("big", replicas=6, maximum=6)
    site.add("small", replicas=2, maximum=8)
    planner.allow("big", 6)
    planner.allow("small", 2)
    start_operator()
    cap = site.cap(watts=800)
    site.wait(lambda: site.maximum("small") == 2, "the first plan is in force")

    planner.allow("big", 2)
    planner.allow("small", 6)
    site.wait(lambda: site.maximum("big") == 2, "big is lowered")
    site.cycles(cap, 2)
    while_pods_remain = site.maximum("small")
    waiting = site.target(cap, "small")["reason"]
    site.scale("big", 3)
    site.wait(lambda: site.maximum("small") == 5, "small rises by the watts of three pods")
    site.scale("big", 2)
    site.wait(lambda: site.maximum("small") == 6, "the plan is reached")

    assert while_pods_remain == 2
    assert "waits to rise to 6" in waiting
    changes = [maximum for name, maximum in maxima.changes if name == "small"]
    assert changes[:2] == [8, 2]
    # Pods may be seen to go one by one: more steps up, none of them back.
    rises = changes[1:]
    assert rises == sorted(set(rises))
    assert {5, 6} <= set(rises)
    after_lowering = maxima.changes[maxima.changes.index(("big", 2)) :]
    assert ("small", 5) in after_lowering
    assert site.status(cap)["chargedWatts"] <= 800


def test_a_raised_cap_brings_the_users_values_back(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", maximum=10)
    site.add("batch", maximum=None)
    planner.allow("chat", 3)
    planner.allow("batch", 2)
    start_operator()
    cap = site.cap(watts=1000)
    site.wait(lambda: (site.maximum("chat"), site.maximum("batch")) == (3, 2), "capped")

    planner.allow("chat", 10)
    planner.allow("batch", 100)
    site.patch_cap(cap, cap={"watts": 20000})

    site.wait(lambda: (site.maximum("chat"), site.maximum("batch")) == (10, None), "as before")
    site.cycles(cap, 2)
    assert "written" not in site.target(cap, "batch")
    assert "userMax" not in site.target(cap, "batch")


def test_deleting_the_cap_restores_set_and_unset_maxima(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", maximum=10)
    site.add("batch", maximum=None)
    planner.allow("chat", 3)
    planner.allow("batch", 2)
    start_operator()
    cap = site.cap(watts=1000)
    site.wait(lambda: (site.maximum("chat"), site.maximum("batch")) == (3, 2), "capped")

    site.delete_cap(cap)

    assert site.maximum("chat") == 10
    assert site.maximum("batch") is None
    assert site.event("MaximumRestored")


def test_going_back_to_advisory_restores(site: Any, planner: Any, start_operator: Any) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 3)
    start_operator()
    cap = site.cap(watts=1000)
    site.wait(lambda: site.maximum("chat") == 3, "capped")

    site.patch_cap(cap, rollout="Advisory")

    site.wait(lambda: site.maximum("chat") == 10, "restored")
    site.cycles(cap, 2)
    assert site.maximum("chat") == 10
    assert "written" not in site.target(cap, "chat")


def test_a_target_no_longer_selected_is_restored(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", maximum=10, labels={"tier": "a"})
    site.add("batch", maximum=9, labels={"tier": "b"})
    planner.allow("chat", 3)
    planner.allow("batch", 2)
    start_operator()
    cap = site.cap(watts=1000)
    site.wait(lambda: (site.maximum("chat"), site.maximum("batch")) == (3, 2), "capped")

    selector = {"namespaces": [site.namespace], "matchLabels": {"tier": "a"}}
    site.patch_cap(cap, selector=selector)

    site.wait(lambda: site.maximum("batch") == 9, "batch is restored")
    assert site.maximum("chat") == 3
    site.cycles(cap, 1)
    assert site.target(cap, "batch") == {}


def test_a_maximum_never_goes_below_the_minimum(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", minimum=3, replicas=3, maximum=10)
    planner.allow("chat", 1)
    start_operator()

    cap = site.cap(watts=1000)

    site.wait(lambda: site.maximum("chat") == 3, "lowered to the minimum")
    site.cycles(cap, 2)
    assert site.maximum("chat") == 3


def test_an_unchanged_plan_writes_nothing(
    site: Any, planner: Any, start_operator: Any, maxima: Any
) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 4)
    start_operator()
    cap = site.cap(watts=1000)
    site.wait(lambda: site.maximum("chat") == 4, "the plan is written")

    site.cycles(cap, 4)

    assert maxima.changes == [("chat", 10), ("chat", 4)]
    assert [reason for reason, _ in site.events()] == ["MaximumLowered"]


def test_the_planner_is_told_what_it_needs(site: Any, planner: Any, start_operator: Any) -> None:
    site.add("chat", minimum=2, replicas=3, maximum=10)
    start_operator(interval=None)

    target = {"namespace": site.namespace, "name": "chat", "minReplicas": 4, "weight": 2.5}
    cap = site.cap(
        watts=5000,
        targets=[{**target, "priority": 7, "maxReplicas": 8, "replicas": "Fixed"}],
        objective={"type": "Throughput", "priceWeight": 0.25},
        grid={"zone": "DE"},
    )
    site.cycles(cap, 1)

    asked = planner.requests[0]
    deployment = asked.deployments[0]
    assert (deployment.namespace, deployment.name) == (site.namespace, "chat")
    assert (deployment.min_replicas, deployment.max_replicas) == (4, 8)
    assert deployment.present_replicas == 3
    assert not deployment.HasField("allowed_replicas")
    assert (deployment.weight, deployment.priority) == (2.5, 7)
    assert deployment.replica_rule == deployment.REPLICA_RULE_FIXED
    assert asked.caps[0].watts == 5000
    assert asked.objective.kind == asked.objective.KIND_THROUGHPUT
    assert asked.objective.price_weight == 0.25
    assert asked.grid_zone == "DE"
    assert asked.valid_seconds == 3
