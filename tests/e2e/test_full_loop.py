"""Measure, learn, solve, act, verify: on real servers, through the real entry points.

The tests share one world and run in order: each leaves no PowerCap behind.
"""

from __future__ import annotations

import datetime
import itertools
import math
from typing import Any

import pytest

from powercap_simulator.curves import GPU_TYPES

NAME = "site"
TIGHT_WATTS = 9800.0
TIGHTER_WATTS = 8200.0
AMPLE_WATTS = 60000.0
# No served token is given up for efficiency or for steadiness: the maxima are the optimum itself.
EXACT = {"objective": {"servedShareFraction": 1.0, "stabilityToleranceFraction": 0.0}}

pytestmark = pytest.mark.servers


def brute_force(problem: dict[str, Any]) -> float:
    """Return the best weighted served tokens/s over every choice whose upper watts fit."""
    counts = problem["option_count"]
    available = available_watts(problem)
    best = -math.inf
    for choice in itertools.product(*(range(count) for count in counts)):
        if upper_watts(problem, choice) <= available:
            best = max(best, weighted_served(problem, choice))
    return best


def available_watts(problem: dict[str, Any]) -> float:
    at_devices = (problem["cap_watts"][0][0] - problem["fixed_overhead_watts"][0]) / problem[
        "overhead_factor"
    ][0]
    others = (problem[name][0][0] for name in ("base_watts", "unmanaged_watts", "fixed_watts"))
    return at_devices - sum(others)


def upper_watts(problem: dict[str, Any], choice: tuple[int, ...]) -> float:
    # One domain: a draw for every deployment, [draw][period][option].
    assert problem["draw_deployment"] == list(range(len(choice)))
    return math.fsum(problem["upper_watts"][d][0][k] for d, k in enumerate(choice))


def weighted_served(problem: dict[str, Any], choice: tuple[int, ...]) -> float:
    return math.fsum(
        problem["weight"][d] * problem["served_tps"][d][0][k] for d, k in enumerate(choice)
    )


def parked_watts(curve: Any) -> float:
    return GPU_TYPES[curve.gpu].parked_watts * curve.gpus_per_replica


def charged_by_hand(world: Any) -> float:
    """Return true base watts and what the status charges for each replica allowed."""
    cluster = world.exporters.cluster
    base = sum(
        node.host_idle_watts + node.gpu_count * GPU_TYPES[node.gpu].parked_watts
        for node in cluster.scenario.nodes
    )
    maxima = world.maxima()
    return base + sum(
        maxima[target["name"]] * target["chargedWattsPerReplica"]
        for target in world.status(NAME)["targets"]
    )


def choice_of_maxima(problem: dict[str, Any], maxima: dict[str, int]) -> tuple[int, ...]:
    return tuple(
        problem["replicas"][d].index(maxima[key.partition("/")[2]])
        for d, key in enumerate(problem["deployments"])
    )


def applied(world: Any) -> bool:
    """Tell whether the plan is what the ScaledObjects say, and its pods alone are charged."""
    status = world.status(NAME)
    targets = status.get("targets", [])
    if len(targets) != len(world.user_maxima) or not status.get("plan", {}).get("id"):
        return False
    maxima = world.maxima()
    return all(
        target.get("planned") == target.get("allowed") == maxima[target["name"]]
        and target["present"] <= target["allowed"]
        for target in targets
    )


def test_the_maxima_are_the_brute_force_optimum_under_the_cap(world):
    world.create_cap(NAME, watts=TIGHT_WATTS, **EXACT)

    world.wait(lambda: applied(world), "the plan to be in force")

    status, maxima = world.status(NAME), world.maxima()
    problem, _ = world.recorded(status["plan"]["id"])
    choice = choice_of_maxima(problem, maxima)
    assert weighted_served(problem, choice) == pytest.approx(brute_force(problem), rel=1e-6)
    assert upper_watts(problem, choice) <= available_watts(problem)
    assert status["chargedWatts"] <= TIGHT_WATTS
    assert charged_by_hand(world) <= TIGHT_WATTS
    between = [name for name, user in world.user_maxima.items() if 1 < maxima[name] < user]
    assert len(between) >= 2, maxima


def test_what_was_learned_is_what_is_emulated(world):
    problem, _ = world.recorded(world.status(NAME)["plan"]["id"])

    for place, key in enumerate(problem["deployments"]):
        cluster = world.exporters.cluster
        deployment = cluster.scenario.deployments[cluster.index(key)]
        curve = deployment.curve
        one_replica = problem["upper_watts"][place][0][0]
        # A learned bound: above the true peak, below nameplate and the host share it assumes.
        nameplate = 1.02 * curve.limit_watts + 100.0 * curve.gpus_per_replica
        assert one_replica >= curve.peak_watts - parked_watts(curve)
        assert one_replica < nameplate - parked_watts(curve)
        served_tps = problem["served_tps"][place][0]
        first, last = served_tps[0], served_tps[problem["option_count"][place] - 1]
        assert first == pytest.approx(0.9 * curve.saturated_tps, rel=0.05)
        assert last == pytest.approx(deployment.workload.load_tps, rel=0.2)


def test_status_and_events_tell_why(world):
    status = world.status(NAME)

    assert world.condition(NAME, "Ready")["status"] == "True"
    assert status["bindingCap"] == "cluster"
    assert status["shadowPrice"] > 0
    assert all(target["reason"] for target in status["targets"])
    # Events follow the status.
    world.wait(
        lambda: any(
            event.involvedObject.kind == "PowerCap" and "assistant" in (event.message or "")
            for event in world.events()
        ),
        "an Event on the PowerCap that names what was lowered",
    )


def test_measured_watts_come_from_the_live_scrapes(world):
    def is_measured() -> bool:
        with world.exporters.lock:
            true_watts = world.exporters.cluster.total_watts
        measured = world.status(NAME).get("measuredWatts", {}).get("watts", math.nan)
        return abs(measured - true_watts) < 0.05 * true_watts

    # A mean over the cap's window: it is what is drawn once the lowered pods are gone so long.
    world.wait(is_measured, "the measured watts to be those drawn")

    measured = world.status(NAME)["measuredWatts"]
    assert measured["source"] == "dcgm+kepler"
    assert measured["watts"] <= TIGHT_WATTS
    with world.exporters.lock:
        assert world.exporters.cluster.total_watts <= TIGHT_WATTS


def test_a_lower_cap_lowers_the_maxima(world):
    # Not in the middle of a step: with other load the plan under the first cap may have moved.
    world.wait(
        lambda: applied(world) and world.status(NAME)["chargedWatts"] > TIGHTER_WATTS,
        "a plan above the cap to come",
        seconds=300,
    )
    before = world.maxima()

    world.patch_cap(NAME, {"cap": {"watts": TIGHTER_WATTS}})
    world.wait(
        lambda: applied(world) and world.status(NAME)["chargedWatts"] <= TIGHTER_WATTS,
        "the maxima to fall",
        seconds=300,
    )

    after = world.maxima()
    assert any(after[name] < before[name] for name in before), (before, after)


def test_what_is_raised_was_first_freed(world):
    before = world.maxima()
    raised = min(
        (name for name in before if before[name] < world.user_maxima[name]), key=before.__getitem__
    )

    target = {"namespace": "serving", "name": raised, "weight": 50.0}
    world.patch_cap(NAME, {"targets": [target]})
    world.wait(
        lambda: applied(world) and world.maxima()[raised] > before[raised], f"{raised} to rise"
    )

    after = world.maxima()
    assert any(after[name] < before[name] for name in before), (before, after)
    assert world.status(NAME)["chargedWatts"] <= TIGHTER_WATTS


def test_an_ample_cap_gives_the_users_values_back(world):
    world.patch_cap(NAME, {"cap": {"watts": AMPLE_WATTS}, "targets": None})

    world.wait(lambda: world.maxima() == world.user_maxima, "the users' maxima")


def test_deleting_the_cap_gives_the_users_values_back(world):
    world.patch_cap(NAME, {"cap": {"watts": TIGHT_WATTS}})
    world.wait(lambda: world.maxima() != world.user_maxima, "the maxima to fall")

    world.delete_cap(NAME)

    assert world.maxima() == world.user_maxima


def test_a_killed_planner_raises_nothing_and_ends_in_the_safe_maxima(world):
    world.create_cap(NAME, watts=TIGHT_WATTS, **EXACT)
    world.wait(lambda: applied(world), "the plan to be in force")
    before = world.maxima()
    status = world.status(NAME)
    safe = {target["name"]: target["safeMax"] for target in status["targets"]}
    # The nameplate allows less than what was learned, or the fallback would show nothing.
    assert any(safe[name] < before[name] for name in before), (safe, before)

    killed_at = datetime.datetime.now(datetime.UTC)
    world.planner.kill()
    world.wait(
        lambda: world.condition(NAME, "PlannerReachable").get("status") == "False",
        "the outage to be noticed",
    )
    noticed_at = datetime.datetime.now(datetime.UTC)
    with world.exporters.lock:
        for deployment in world.exporters.cluster.scenario.deployments:
            deployment.workload.load_tps *= 1.5
    cycles: list[str] = []

    def three_cycles_passed() -> bool:
        now = world.maxima()
        assert all(now[name] <= before[name] for name in before), (before, now)
        cycle = world.status(NAME)["lastCycle"]["time"]
        if cycle not in cycles:
            cycles.append(cycle)
        return len(cycles) > 3

    world.wait(three_cycles_passed, "three more cycles")
    condition = world.condition(NAME, "PlannerReachable")
    assert condition["status"] == "False"
    since = datetime.datetime.fromisoformat(condition["lastTransitionTime"])
    assert killed_at <= since <= noticed_at

    def expired() -> bool:
        now = world.maxima()
        assert all(now[name] <= before[name] for name in before), (before, now)
        return now == safe

    world.wait(expired, f"the safe maxima {safe}")
    world.wait(
        lambda: world.status(NAME)["lastCycle"]["outcome"] == "SafeMaxima", "the cycle to be told"
    )
    assert datetime.datetime.now(datetime.UTC) > datetime.datetime.fromisoformat(
        world.status(NAME)["plan"]["expiresAt"]
    )


def test_the_planner_comes_back_and_the_plan_is_in_force_again(world):
    world.planner.start()

    world.wait(
        lambda: (
            world.condition(NAME, "PlannerReachable").get("status") == "True" and applied(world)
        ),
        "the plan to be in force again",
    )

    assert world.status(NAME)["chargedWatts"] <= TIGHT_WATTS
    world.delete_cap(NAME)
    assert world.maxima() == world.user_maxima


def test_nothing_was_forbidden_and_nothing_crashed(world):
    for process in (world.operator, world.planner):
        assert "Traceback" not in process.log, process.log[-3000:]
        assert "orbidden" not in process.log, process.log[-3000:]
