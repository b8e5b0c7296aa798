"""The check refuses what is wrong with a plan, one seeded change at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from powercap_solver.certificate import verify
from powercap_solver.instances import FAMILIES
from powercap_solver.ladder import solve
from powercap_solver.plan import Plan, PlanStatus, StoppedBy, YieldedFloor
from powercap_solver.problem import PlanningProblem

Change = Callable[[PlanningProblem, Plan], Plan]


def _with(array: Any, index: tuple[int, ...], value: float) -> Any:
    changed = array.copy()
    changed[index] = value
    return changed


def _stage(plan: Plan, name: str, **changes: Any) -> Plan:
    stages = tuple(
        replace(stage, **changes) if stage.name == name else stage for stage in plan.stages
    )
    return replace(plan, stages=stages)


def _other_option(problem: PlanningProblem, plan: Plan) -> Plan:
    option = 1 if plan.choice[0, 0] == 0 else plan.choice[0, 0] - 1
    return replace(plan, choice=_with(plan.choice, (0, 0), option))


def _other_option_in_every_stage(problem: PlanningProblem, plan: Plan) -> Plan:
    changed = _other_option(problem, plan)
    stages = plan.stage_choice.copy()
    stages[:, 0, 0] = changed.choice[0, 0]
    return replace(changed, stage_choice=stages)


def _one_watt_over(problem: PlanningProblem, plan: Plan) -> Plan:
    return replace(plan, upper_watts=plan.upper_watts + 1.0)


def _all_largest(problem: PlanningProblem, plan: Plan) -> Plan:
    choice = np.repeat(problem.option_count[:, None] - 1, plan.choice.shape[1], axis=1)
    return replace(plan, choice=choice, stage_choice=np.stack([choice] * len(plan.stages)))


def _floor_invented(problem: PlanningProblem, plan: Plan) -> Plan:
    floor = YieldedFloor(
        deployment=problem.deployments[0],
        period=0,
        kind="min_served_fraction",
        required=0.5,
        planned=0.4,
    )
    return replace(plan, yielded_floors=(*plan.yielded_floors, floor))


def _forged_bound(problem: PlanningProblem, plan: Plan) -> Plan:
    served = next(stage for stage in plan.stages if stage.name == "served")
    bound = served.objective * 0.99
    return _stage(plan, "served", bound=bound, gap=0.01)


def _ratio_below_its_share(problem: PlanningProblem, plan: Plan) -> Plan:
    index = [stage.name for stage in plan.stages].index("throughput_per_watt")
    return replace(plan, stage_choice=_with(plan.stage_choice, (index, 5, 0), 0))


MUTATIONS: dict[str, tuple[Change, str]] = {
    "one watt over": (_one_watt_over, "upper_watts"),
    "other option": (_other_option, "last stage"),
    "other option in every stage": (_other_option_in_every_stage, "objective"),
    "every cap broken": (_all_largest, "W more than"),
    "no such option": (
        lambda _, plan: replace(plan, choice=_with(plan.choice, (0, 0), 99)),
        "options",
    ),
    "negative option": (
        lambda _, plan: replace(plan, choice=_with(plan.choice, (0, 0), -1)),
        "options",
    ),
    "floor broken and not stated": (
        lambda _, plan: replace(plan, yielded_floors=plan.yielded_floors[1:]),
        "not stated",
    ),
    "floor stated and kept": (_floor_invented, "the options keep it"),
    "floor misstated": (
        lambda _, plan: replace(
            plan,
            yielded_floors=(
                replace(plan.yielded_floors[0], planned=0.25),
                *plan.yielded_floors[1:],
            ),
        ),
        "yielded floor",
    ),
    "bound on the wrong side": (_forged_bound, "wrong side"),
    "gap forged": (lambda _, plan: _stage(plan, "served", gap=0.5), "gap is 0.5"),
    "objective forged": (
        lambda _, plan: _stage(plan, "served", objective=1.0, bound=1.0, gap=0.0),
        "its choices give",
    ),
    "objective not a number": (
        lambda _, plan: _stage(plan, "served", objective=math.nan),
        "not finite",
    ),
    "headroom wrong": (
        lambda _, plan: replace(plan, headroom_watts=plan.headroom_watts + 0.5),
        "headroom_watts",
    ),
    "headroom not a number": (
        lambda _, plan: replace(plan, headroom_watts=plan.headroom_watts * math.nan),
        "headroom_watts",
    ),
    "share not kept": (_ratio_below_its_share, "its share"),
    "stage missing": (
        lambda _, plan: replace(
            plan, stages=plan.stages[1:], stage_choice=plan.stage_choice[1:].copy()
        ),
        "stages are",
    ),
    "negative price": (
        lambda _, plan: replace(plan, shadow_price_low=plan.shadow_price_low - 1e3),
        "shadow price",
    ),
    "infeasible although it fits": (
        lambda _, plan: replace(plan, status=PlanStatus.CAP_INFEASIBLE, rung="lowest"),
        "although the options keep every cap",
    ),
    "optimal without proof": (
        lambda _, plan: _stage(plan, "served", stopped_by=StoppedBy.DEADLINE),
        "before their proof",
    ),
    "unknown rung": (lambda _, plan: replace(plan, rung="guess"), "rung is"),
    "least cap below the cap": (
        lambda _, plan: replace(plan, least_cap_watts=plan.least_cap_watts * 1e-3),
        "least_cap_watts",
    ),
    "wrong shape": (
        lambda _, plan: replace(plan, headroom_watts=np.zeros((3, 3))),
        "shape",
    ),
}


@pytest.fixture(scope="module")
def solved() -> tuple[PlanningProblem, Plan]:
    problem = FAMILIES["tight_floors"].make(size=6, seed=1)
    plan = solve(problem)
    assert verify(problem, plan) == ()
    assert plan.yielded_floors
    return problem, plan


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_changed_plan_is_refused(name: str, solved: tuple[PlanningProblem, Plan]) -> None:
    problem, plan = solved
    change, said = MUTATIONS[name]

    wrong = verify(problem, change(problem, plan))

    assert any(said in sentence for sentence in wrong), wrong


def test_a_give_back_against_the_rules_is_refused(one_cap: Callable[..., Any]) -> None:
    problem = one_cap(
        served=[[0, 10, 10], [0, 10, 10]],
        watts_per_replica=[100, 100],
        cap=1000,
        served_share=[0.9, 1.0],
        is_ceiling=[True, False],
    )
    plan = solve(problem)
    raised = _with(_with(plan.stage_choice, (-1, 0, 0), 2), (-1, 1, 0), 2)

    wrong = verify(problem, replace(plan, stage_choice=raised, choice=raised[-1]))

    assert any("shed under stress" in sentence for sentence in wrong)
    assert any("no ceiling" in sentence for sentence in wrong)


def test_a_plan_above_the_lowest_draw_is_refused_when_caps_cannot_hold(
    one_cap: Callable[..., Any],
) -> None:
    problem = one_cap(served=[[0, 10, 20]], watts_per_replica=[100], cap=0.0, base_watts=[50.0])
    plan = solve(problem)
    higher = _with(plan.choice, (0, 0), 1)

    wrong = verify(
        problem, replace(plan, choice=higher, stage_choice=np.stack([higher] * len(plan.stages)))
    )

    assert plan.status is PlanStatus.CAP_INFEASIBLE
    assert verify(problem, plan) == ()
    assert any("the least is" in sentence for sentence in wrong)
