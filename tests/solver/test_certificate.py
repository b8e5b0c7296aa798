"""The check accepts exactly what keeps the rules, and names what is wrong with anything else."""

from __future__ import annotations

import configparser
import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import powercap_solver
from powercap_solver.certificate import verify
from powercap_solver.ladder import solve
from powercap_solver.parts import Dynamics, Expected, Grid, Pools
from powercap_solver.plan import BindingRow, Plan, PlanStatus, StageResult, StoppedBy, YieldedFloor
from powercap_solver.problem import PlanningProblem, Utility
from powercap_solver.settings import LastStage, Objective, SolveSettings
from powercap_solver.testing import (
    PARTS,
    keeps_limits,
    mixed_problems,
    problems_with,
    random_problem,
    shortfall_of,
    worth_of,
)

OneCap = Callable[..., PlanningProblem]
Change = Callable[[PlanningProblem, Plan], Plan]


def _with(array: Any, index: Any, value: Any) -> Any:
    changed = array.copy()
    changed[index] = value
    return changed


def _stage(plan: Plan, name: str, **changes: Any) -> Plan:
    stages = tuple(
        replace(stage, **changes) if stage.name == name else stage for stage in plan.stages
    )
    return replace(plan, stages=stages)


def _everywhere(plan: Plan, choice: Any) -> Plan:
    """The plan with ``choice`` in every stage and nothing else changed."""
    choice = np.asarray(choice, dtype=np.int64).reshape(plan.choice.shape)
    return replace(plan, choice=choice, stage_choice=np.stack([choice] * len(plan.stages)))


def _said(problem: PlanningProblem, plan: Plan, words: str) -> bool:
    return any(words in sentence for sentence in verify(problem, plan))


def _other_option(problem: PlanningProblem, plan: Plan) -> Plan:
    # Of the deployment whose options differ most in what they serve.
    served = problem.served_tps[:, 0]
    who = int((served.max(axis=1) - served.min(axis=1)).argmax())
    now = served[who, plan.choice[who, 0]]
    count = problem.option_count[who]
    option = int(np.abs(served[who, :count] - now).argmax())
    return replace(plan, choice=_with(plan.choice, (who, 0), option))


def _other_option_in_every_stage(problem: PlanningProblem, plan: Plan) -> Plan:
    return _everywhere(plan, _other_option(problem, plan).choice)


def _all_largest(problem: PlanningProblem, plan: Plan) -> Plan:
    return _everywhere(plan, np.repeat(problem.option_count[:, None] - 1, 2, axis=1))


def _floor_invented(problem: PlanningProblem, plan: Plan) -> Plan:
    stated = {(floor.deployment, floor.period, floor.kind) for floor in plan.yielded_floors}
    name = next(each for each in problem.deployments if (each, 0, "min_replicas") not in stated)
    floor = YieldedFloor(deployment=name, period=0, kind="min_replicas", required=5.0, planned=4.0)
    return replace(plan, yielded_floors=(*plan.yielded_floors, floor))


def _forged_bound(problem: PlanningProblem, plan: Plan) -> Plan:
    served = next(stage for stage in plan.stages if stage.name == "served")
    return _stage(plan, "served", bound=served.objective * 0.99, gap=0.01)


def _forged_floors_bound(problem: PlanningProblem, plan: Plan) -> Plan:
    floors = plan.stages[0]
    return _stage(plan, "floors", bound=floors.objective * 1.5, gap=0.5)


def _binding_with(**changes: Any) -> Change:
    def change(problem: PlanningProblem, plan: Plan) -> Plan:
        return replace(plan, binding=(replace(plan.binding[0], **changes), *plan.binding[1:]))

    return change


MUTATIONS: dict[str, tuple[Change, str]] = {
    "one watt over what is stated": (
        lambda _, plan: replace(plan, upper_watts=plan.upper_watts + 1.0),
        "upper_watts is",
    ),
    "other option": (_other_option, "choice is not that of the last stage"),
    "other option in every stage": (_other_option_in_every_stage, "its choices give"),
    "every cap broken": (_all_largest, "cap of domain0"),
    "no such option": (
        lambda _, plan: replace(plan, choice=_with(plan.choice, (0, 0), 99)),
        "choice[0, 0] is 99; test/d0 has",
    ),
    "negative option": (
        lambda _, plan: replace(plan, choice=_with(plan.choice, (0, 0), -1)),
        "choice[0, 0] is -1; test/d0 has",
    ),
    "no such option in a stage": (
        lambda _, plan: replace(plan, stage_choice=_with(plan.stage_choice, (1, 0, 0), 99)),
        "stage_choice[1, 0, 0] is 99",
    ),
    "floor broken and not stated": (
        lambda _, plan: replace(plan, yielded_floors=plan.yielded_floors[1:]),
        "is missed and not stated",
    ),
    "floor invented": (_floor_invented, "is stated, the options keep it"),
    "floor of nobody": (
        lambda _, plan: replace(
            plan,
            yielded_floors=(
                replace(plan.yielded_floors[0], deployment="test/nobody"),
                *plan.yielded_floors,
            ),
        ),
        "of no deployment, period and kind",
    ),
    "floor stated twice": (
        lambda _, plan: replace(
            plan, yielded_floors=(plan.yielded_floors[0], *plan.yielded_floors)
        ),
        "is stated twice",
    ),
    "floor misstated": (
        lambda _, plan: replace(
            plan,
            yielded_floors=(
                replace(plan.yielded_floors[0], planned=0.123),
                *plan.yielded_floors[1:],
            ),
        ),
        "states 0.123 of",
    ),
    "bound on the wrong side": (_forged_bound, "wrong side of the objective"),
    "bound of the floors on the wrong side": (_forged_floors_bound, "stage floors: bound"),
    "gap forged": (lambda _, plan: _stage(plan, "served", gap=0.5), "gap is 0.5"),
    "objective forged": (
        lambda _, plan: _stage(plan, "served", objective=1.0, bound=1.0, gap=0.0),
        "stage served: objective is 1.0, its choices give",
    ),
    "ratio forged": (
        lambda _, plan: _stage(plan, "throughput_per_watt", objective=1e9, bound=1e9, gap=0.0),
        "stage throughput_per_watt: objective is 1000000000.0",
    ),
    "objective not a number": (
        lambda _, plan: _stage(plan, "served", objective=math.nan),
        "not finite",
    ),
    "another objective": (lambda _, plan: replace(plan, objective="throughput"), "stages are"),
    "unknown objective": (lambda _, plan: replace(plan, objective="happiness"), "objective is"),
    "money without prices": (
        lambda _, plan: replace(plan, objective="net_value"),
        "grid.token_price_per_million",
    ),
    "headroom wrong": (
        lambda _, plan: replace(plan, headroom_watts=plan.headroom_watts + 0.5),
        "headroom_watts is",
    ),
    "headroom not a number": (
        lambda _, plan: replace(plan, headroom_watts=plan.headroom_watts * math.nan),
        "headroom_watts is nan",
    ),
    "stage missing": (
        lambda _, plan: replace(
            plan, stages=plan.stages[1:], stage_choice=plan.stage_choice[1:].copy()
        ),
        "stages are",
    ),
    "stages out of order": (
        lambda _, plan: replace(
            plan,
            stages=(plan.stages[1], plan.stages[0], *plan.stages[2:]),
            stage_choice=plan.stage_choice[[1, 0, *range(2, len(plan.stages))]],
        ),
        "stages are",
    ),
    "negative price": (
        lambda _, plan: replace(plan, shadow_price_low=plan.shadow_price_low - 1e3),
        "shadow price",
    ),
    "price ends out of order": (
        lambda _, plan: replace(plan, shadow_price_low=plan.shadow_price_high + 1.0),
        "ends in order",
    ),
    "negative row price": (
        lambda _, plan: replace(plan, row_prices=np.array([-1.0])),
        "row_prices[0] is -1.0",
    ),
    "infeasible although it fits": (
        lambda _, plan: replace(plan, status=PlanStatus.CAP_INFEASIBLE, rung="lowest"),
        "although the options keep every cap",
    ),
    "optimal without proof": (
        lambda _, plan: _stage(
            replace(plan, status=PlanStatus.OPTIMAL), "served", stopped_by=StoppedBy.DEADLINE
        ),
        "stopped before their proof",
    ),
    "optimal without stages": (
        lambda _, plan: replace(
            plan, stages=(), stage_choice=plan.stage_choice[:0], rung="in_force"
        ),
        "status is optimal, the plan has no stages",
    ),
    "unknown rung": (lambda _, plan: replace(plan, rung="guess"), "rung is 'guess'"),
    "lowest rung although it fits": (lambda _, plan: replace(plan, rung="lowest"), "rung is"),
    "least cap below the cap": (
        lambda _, plan: replace(plan, least_cap_watts=plan.least_cap_watts * 1e-3),
        "least_cap_watts",
    ),
    "least common factor below 1": (
        lambda _, plan: replace(plan, least_common_factor=0.5),
        "least_common_factor is 0.5",
    ),
    "binding row misstated": (_binding_with(used=1.5), "states 1.5 of"),
    "binding row of nobody": (_binding_with(name="domain9"), "none of the problem's limits"),
    "binding row of no period": (_binding_with(period=7), "none of the problem's limits"),
    "binding row of negative price": (_binding_with(price=-1.0), "has the price -1.0"),
    "kappa with assurance Guaranteed": (
        lambda problem, plan: replace(plan, kappa=np.ones(problem.cap_watts.shape)),
        "kappa has shape",
    ),
    "wrong shape": (
        lambda _, plan: replace(plan, headroom_watts=np.zeros((3, 3))),
        "headroom_watts has shape (3, 3)",
    ),
    "options that are no whole numbers": (
        lambda _, plan: replace(plan, choice=plan.choice.astype(float)),
        "accepted: whole numbers",
    ),
}


@pytest.fixture(scope="module")
def solved() -> tuple[PlanningProblem, Plan]:
    """Two caps, two periods, all five stages, floors that yielded and rows that bind."""
    for seed in range(500):
        problem = random_problem(
            np.random.default_rng(seed), deployments=4, periods=2, domains=2, is_feasible=False
        )
        plan = solve(problem)
        is_rich = len(plan.stages) == 5 and plan.yielded_floors and plan.binding
        is_priced = (plan.shadow_price_high > 0).any()
        if is_rich and is_priced and plan.status is PlanStatus.OPTIMAL:
            is_known = np.isfinite(plan.least_cap_watts).any()
            if is_known and math.isfinite(plan.least_common_factor) and problem.option_count[0] > 1:
                assert verify(problem, plan) == ()
                return problem, plan
    raise AssertionError("no such problem among 500")


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_changed_plan_is_refused(name: str, solved: tuple[PlanningProblem, Plan]) -> None:
    problem, plan = solved
    change, words = MUTATIONS[name]

    wrong = verify(problem, change(problem, plan))

    assert any(words in sentence for sentence in wrong), wrong


@pytest.mark.parametrize("part", PARTS)
@given(data=st.data())
def test_a_choice_is_accepted_exactly_if_it_keeps_every_limit(part: str, data: Any) -> None:
    problem = data.draw(problems_with(part, max_periods=3))
    options = [st.integers(0, count - 1) for count in problem.option_count.tolist()]
    periods = len(problem.period_seconds)
    rows = [data.draw(st.lists(each, min_size=periods, max_size=periods)) for each in options]
    choice = np.array(rows, dtype=np.int64)
    plan = _stated(problem, choice)

    wrong = verify(problem, plan)

    kappa = None if problem.expected is None else plan.kappa
    is_kept = keeps_limits(problem, choice) and keeps_limits(problem, choice, kappa=kappa)
    assert (wrong == ()) == is_kept, wrong


@given(data=st.data(), problem=mixed_problems(max_periods=3))
def test_all_parts_together_are_checked_as_the_enumeration_does(
    data: Any, problem: PlanningProblem
) -> None:
    shape = problem.load_tps.shape
    draws = data.draw(st.integers(0, 2**32 - 1))
    choice = np.random.default_rng(draws).integers(0, problem.option_count[:, None], shape)
    plan = _stated(problem, choice)

    wrong = verify(problem, plan)

    kappa = None if problem.expected is None else plan.kappa
    is_kept = keeps_limits(problem, choice) and keeps_limits(problem, choice, kappa=kappa)
    assert (wrong == ()) == is_kept, wrong


def _stated(problem: PlanningProblem, choice: Any) -> Plan:
    """A plan of ``choice`` that ends after stage served and states everything truly."""
    most = 0.0 if problem.expected is None else max(0.0, float(problem.expected.residual.max()))
    drawn = np.zeros(problem.cap_watts.shape)
    for draw, deployment in enumerate(problem.draw_deployment.tolist()):
        for period, option in enumerate(choice[deployment].tolist()):
            watts = problem.upper_watts[draw, period, option]
            if problem.expected is not None:
                mean = problem.expected.mean_watts[draw, period, option]
                watts = mean + most * (watts - mean)
            if problem.dynamics is not None:
                watts = max(watts, problem.dynamics.present_upper_watts[draw, period])
            drawn[problem.draw_domain[draw], period] += watts
    missed, worth = sum(shortfall_of(problem, choice)), worth_of(problem, choice)
    not_known = np.full(drawn.shape, np.nan)
    return Plan(
        status=PlanStatus.FEASIBLE,
        rung="greedy",
        choice=choice,
        stages=(_result("floors", missed), _result("served", worth)),
        upper_watts=drawn + problem.base_watts,
        headroom_watts=problem.available_watts - drawn,
        shadow_price_low=not_known,
        shadow_price_high=not_known.copy(),
        yielded_floors=_missed_floors(problem, choice),
        least_cap_watts=not_known.copy(),
        stage_choice=np.stack([choice, choice]),
        kappa=np.zeros((0, 0)) if problem.expected is None else np.full(drawn.shape, most),
    )


def _result(name: str, objective: float) -> StageResult:
    return StageResult(
        name=name,
        objective=objective,
        bound=objective,
        gap=0.0,
        method="by hand",
        seconds=0.0,
        stopped_by=StoppedBy.HEURISTIC,
    )


def _missed_floors(problem: PlanningProblem, choice: Any) -> tuple[YieldedFloor, ...]:
    found = []
    for deployment, period in np.ndindex(*choice.shape):
        replicas = float(problem.replicas[deployment, choice[deployment, period]])
        served = float(problem.served_tps[deployment, period, choice[deployment, period]])
        load = float(problem.load_tps[deployment, period])
        name = problem.deployments[deployment]
        least, share = problem.min_replicas[deployment], problem.min_served_fraction[deployment]
        if replicas < least:
            found.append(
                YieldedFloor(
                    deployment=name,
                    period=period,
                    kind="min_replicas",
                    required=float(least),
                    planned=replicas,
                )
            )
        if served < share * load * (1 - 1e-9):
            found.append(
                YieldedFloor(
                    deployment=name,
                    period=period,
                    kind="min_served_fraction",
                    required=float(share),
                    planned=served / load,
                )
            )
    return tuple(found)


def _limited(one_cap: OneCap, **parts: Any) -> PlanningProblem:
    """Two deployments of three replicas each, 100 W a replica, that every limit holds at three."""
    dynamics = Dynamics(
        max_raise=np.array([2, -1]),
        max_lower=np.array([-1, -1]),
        switching_cost=np.array([10.0, 0.0]),
        starts_late=np.array([False, True]),
        initial_replicas=np.array([0, 1]),
        present_upper_watts=np.zeros((2, 1)),
        max_rise_watts=np.array([200.0]),
        max_fall_watts=np.array([np.inf]),
        initial_upper_watts=np.array([100.0]),
    )
    grid = Grid(
        price_per_mwh=np.array([[50.0]]),
        carbon_g_per_kwh=np.array([[300.0]]),
        overhead_factor=np.array([1.2]),
        token_price_per_million=np.array([2.0, 2.0]),
        energy_budget_joules=1.2 * 300.0 * (100.0 + 3 * 80.0),
    )
    values: dict[str, Any] = {
        "pools": Pools(
            names=("h100",),
            gpu_count=np.array([[3]]),
            gpus=np.tile(np.arange(4), (1, 2, 1)),
        ),
        "dynamics": dynamics,
        "grid": grid,
        **parts,
    }
    return one_cap(
        served=[[0, 10, 20, 30], [0, 10, 20, 30]],
        watts_per_replica=[100, 100],
        cap=300.0,
        **values,
    )


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        pytest.param([3, 0], "ramp of test/a, period 0: +3 replicas", id="ramp"),
        pytest.param([2, 2], "pool of h100, period 0: the options use 4.0 GPUs", id="pool"),
        pytest.param([2, 2], "cap of cluster, period 0: the options use 400.0 W", id="cap"),
        pytest.param([2, 2], "rise of cluster, period 0: the options use 400.0 W", id="rise"),
        pytest.param([2, 2], "budget of energy_budget_joules, period 0", id="budget"),
    ],
)
def test_a_broken_limit_is_named(one_cap: OneCap, choice: list[int], words: str) -> None:
    problem = _limited(one_cap)
    plan = solve(problem)

    wrong = verify(problem, _everywhere(plan, choice))

    assert verify(problem, plan) == ()
    assert any(words in sentence for sentence in wrong), wrong


def test_one_watt_over_the_cap_is_one_watt_too_many(one_cap: OneCap) -> None:
    problem = one_cap(served=[[0, 10, 20]], watts_per_replica=[100], cap=200.0)
    smaller = one_cap(served=[[0, 10, 20]], watts_per_replica=[100], cap=199.0)
    plan = solve(problem)

    wrong = verify(smaller, plan)

    assert plan.choice.tolist() == [[2]]
    assert any("1.0 more than the 199.0 there are" in sentence for sentence in wrong), wrong


def test_what_the_links_lose_is_not_served(one_cap: OneCap) -> None:
    problem = _limited(one_cap)
    plan = solve(problem, settings=SolveSettings(objective=Objective.THROUGHPUT))
    kept = next(stage for stage in plan.stages if stage.name == "served")
    gross = 300.0 * float(problem.served_tps[[0, 1], 0, plan.stage_choice[1, :, 0]].sum())

    forged = _stage(plan, "served", objective=gross, bound=gross, gap=0.0)

    assert verify(problem, plan) == ()
    assert kept.objective < gross
    assert _said(problem, forged, "its choices give")


def test_money_is_recomputed_from_the_prices(one_cap: OneCap) -> None:
    problem = _limited(one_cap)
    plan = solve(problem, settings=SolveSettings(objective=Objective.NET_VALUE))

    assert verify(problem, plan) == ()
    assert plan.objective == "net_value"
    assert _said(problem, replace(plan, objective="throughput"), "stage served: objective is")


@given(mixed_problems())
def test_a_plan_may_end_after_stage_served(problem: PlanningProblem) -> None:
    plan = solve(problem, settings=SolveSettings(last_stage=LastStage.SERVED))

    assert verify(problem, plan) == ()
    assert [stage.name for stage in plan.stages] in ([], ["floors", "served"])


def _uncertain(one_cap: OneCap) -> PlanningProblem:
    """Means of 50 W a replica and one sample in three at the upper 100 W of all."""
    upper = np.tile(np.arange(4) * 100.0, (2, 1))[:, None, :]
    expected = Expected(
        mean_watts=upper / 2, residual=np.array([[0.0, 0], [0, 0], [1, 1]]), coverage=0.9
    )
    return one_cap(
        served=[[0, 10, 20, 30], [0, 10, 20, 30]],
        watts_per_replica=[100, 100],
        cap=300.0,
        expected=expected,
    )


def test_a_lowered_kappa_is_refused(one_cap: OneCap) -> None:
    problem = _uncertain(one_cap)
    plan = solve(problem)

    assert verify(problem, plan) == ()
    assert _said(problem, replace(plan, kappa=plan.kappa * 0.5), "upper_watts is")
    assert _said(problem, replace(plan, kappa=plan.kappa - 9), "kappa of domain cluster")
    assert _said(problem, replace(plan, kappa=plan.kappa + 9), "to the largest residual")


def test_the_aggregate_bound_holds_whatever_kappa_says(one_cap: OneCap) -> None:
    problem = _uncertain(one_cap)
    plan = solve(problem)
    more = _everywhere(plan, [2, 2])
    forged = replace(
        more,
        kappa=np.zeros((1, 1)),
        upper_watts=np.array([[200.0]]),
        headroom_watts=np.array([[100.0]]),
        binding=(),
    )

    wrong = verify(problem, forged)

    assert any("the aggregate bound is 400.0 W" in sentence for sentence in wrong), wrong
    assert not any("cap of cluster" in sentence for sentence in wrong), wrong


def test_a_binding_row_must_leave_too_little_or_have_a_price(one_cap: OneCap) -> None:
    problem = one_cap(served=[[0, 10, 20]], watts_per_replica=[100], cap=1000.0)
    plan = solve(problem)
    row = BindingRow(kind="cap", name="cluster", period=0, used=200.0, limit=1000.0, price=0.0)
    slack = one_cap(served=[[0, 10, 20]], watts_per_replica=[100], cap=150.0)

    assert _said(problem, replace(plan, binding=(row,)), "has no price and leaves 800.0")
    assert not _said(problem, replace(plan, binding=(replace(row, price=0.1),)), "binding")
    assert solve(slack).binding
    assert verify(slack, solve(slack)) == ()


def test_a_share_that_is_not_kept_is_refused(one_cap: OneCap) -> None:
    problem = one_cap(served=[[0, 10, 20]], watts_per_replica=[100], cap=1000.0)
    plan = solve(problem)
    index = [stage.name for stage in plan.stages].index("throughput_per_watt")
    lower = replace(plan, stage_choice=_with(plan.stage_choice, (index, 0, 0), 1))

    assert _said(problem, lower, "its share of stage served is")


def test_floors_of_a_later_stage_may_not_fall_behind(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 10, 20], [0, 90, 90]],
        watts_per_replica=[100, 100],
        cap=200.0,
        min_replicas=[2, 0],
    )
    plan = solve(problem, settings=SolveSettings(objective=Objective.THROUGHPUT))
    other = replace(plan, stage_choice=_with(plan.stage_choice, (1, slice(None), 0), [1, 1]))

    assert verify(problem, plan) == ()
    assert _said(problem, other, "stage served misses floors of priority 0")


@pytest.mark.parametrize("utility", Utility)
def test_least_change_may_not_cost_more_than_it_states(one_cap: OneCap, utility: Utility) -> None:
    problem = one_cap(
        served=[[0, 10, 20], [0, 10, 20]],
        watts_per_replica=[100, 100],
        cap=400.0,
        replicas_in_force=[2, 2],
        utility=utility,
    )
    plan = solve(problem, settings=SolveSettings(objective=Objective.THROUGHPUT))
    index = [stage.name for stage in plan.stages].index("least_change")
    lower = replace(plan, stage_choice=_with(plan.stage_choice, (index, 0, 0), 0))

    assert verify(problem, plan) == ()
    assert _said(problem, lower, "stage least_change keeps the worth")


def test_a_give_back_against_the_rules_is_refused(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 10, 10], [0, 10, 10]],
        watts_per_replica=[100, 100],
        cap=1000,
        served_share=[0.9, 1.0],
        is_ceiling=[True, False],
    )
    plan = solve(problem)
    raised = _with(plan.stage_choice, (-1, slice(None), 0), [2, 2])

    wrong = verify(problem, replace(plan, stage_choice=raised, choice=raised[-1]))

    assert any("shed under stress" in sentence for sentence in wrong)
    assert any("no ceiling" in sentence for sentence in wrong)


def test_a_plan_above_the_lowest_draw_is_refused_when_caps_cannot_hold(one_cap: OneCap) -> None:
    problem = one_cap(served=[[0, 10, 20]], watts_per_replica=[100], cap=0.0, base_watts=[50.0])
    plan = solve(problem)

    wrong = verify(problem, _everywhere(plan, [1]))

    assert plan.status is PlanStatus.CAP_INFEASIBLE
    assert verify(problem, plan) == ()
    assert any("100.0 more than the 0.0 there are" in sentence for sentence in wrong), wrong


def test_the_lowest_draw_without_stages_is_the_lowest(one_cap: OneCap) -> None:
    ramps = Dynamics(
        max_raise=np.array([-1]),
        max_lower=np.array([0]),
        switching_cost=np.zeros(1),
        starts_late=np.zeros(1, dtype=bool),
        initial_replicas=np.array([2]),
        present_upper_watts=np.zeros((1, 1)),
        max_rise_watts=np.array([np.inf]),
        max_fall_watts=np.array([np.inf]),
        initial_upper_watts=np.array([np.nan]),
    )
    problem = one_cap(served=[[0, 10, 20]], watts_per_replica=[100], cap=150.0, dynamics=ramps)
    plan = solve(problem)
    higher = replace(plan, choice=np.array([[1]]))

    assert (plan.status, plan.stages) == (PlanStatus.CAP_INFEASIBLE, ())
    assert verify(problem, plan) == ()
    assert _said(problem, higher, "over its domains, the least is 0.0 W")


def test_the_plan_in_force_is_accepted_where_it_keeps_every_limit(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 10, 20]], watts_per_replica=[100], cap=150.0, replicas_in_force=[1]
    )
    bare = {"stages": (), "stage_choice": np.zeros((0, 1, 1), dtype=np.int64)}
    plan = replace(
        solve(problem),
        **bare,
        status=PlanStatus.FEASIBLE,
        rung="in_force",
        binding=(),
    )

    assert plan.choice.tolist() == [[1]]
    assert verify(problem, plan) == ()
    assert _said(problem, replace(plan, choice=np.array([[0]])), "not the plan in force")
    assert _said(problem, replace(plan, choice=np.array([[2]])), "cap of cluster")


def test_a_plan_wrong_everywhere_is_told_in_few_sentences() -> None:
    problem = random_problem(np.random.default_rng(0), deployments=400, periods=3)
    plan = _stated(problem, np.zeros((400, 3), dtype=np.int64))

    wrong = verify(problem, replace(plan, choice=plan.choice - 1))

    assert len(wrong) < 50
    assert any("1180 more like the last" in sentence for sentence in wrong)


def test_the_import_contract_names_every_other_module() -> None:
    folder = Path(powercap_solver.__file__).parent
    config = configparser.ConfigParser()
    config.read(Path(__file__).resolve().parents[2] / "setup.cfg")
    contract = config["importlinter:contract:certificate"]
    shared = {"problem", "plan", "parts", "arrays", "checks", "errors"}

    named = set(contract["forbidden_modules"].split()) | set(contract["source_modules"].split())
    found = {
        path.stem
        for path in folder.iterdir()
        if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }

    assert {f"powercap_solver.{name}" for name in found - shared} <= named


def test_every_field_of_a_plan_is_looked_at(solved: tuple[PlanningProblem, Plan]) -> None:
    problem, plan = solved

    for field in fields(Plan):
        value = getattr(plan, field.name)
        if isinstance(value, np.ndarray) and value.size and field.name != "row_prices":
            shifted = replace(plan, **{field.name: np.zeros((7, 7, 7))})
            assert verify(problem, shifted), field.name
