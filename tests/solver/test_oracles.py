"""The plans against full enumeration, other back ends and laws that must hold."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_solver.certificate import verify
from powercap_solver.files import plan_to_json
from powercap_solver.instances import FAMILIES
from powercap_solver.ladder import solve, solve_greedy
from powercap_solver.plan import Plan, PlanStatus, StageResult
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import Method, Objective, SolveSettings
from powercap_solver.testing import (
    energy_of,
    enumerate_optimum,
    every_choice,
    picked,
    random_problem,
    shortfall_of,
    small_problems,
    value_of,
)


def _stage(plan: Plan, name: str) -> StageResult:
    return next(stage for stage in plan.stages if stage.name == name)


def _choice(plan: Plan, name: str) -> Any:
    names = [stage.name for stage in plan.stages]
    return plan.stage_choice[names.index(name)]


def _changed(problem: PlanningProblem, **changes: Any) -> PlanningProblem:
    values = {field.name: getattr(problem, field.name) for field in fields(problem)}
    return PlanningProblem(**{**values, **changes})


@given(small_problems())
def test_every_plan_passes_the_independent_check(problem: PlanningProblem) -> None:
    assert verify(problem, solve(problem)) == ()
    assert verify(problem, solve_greedy(problem)) == ()


@given(small_problems())
def test_exact_plan_equals_enumeration_at_floors_and_served(problem: PlanningProblem) -> None:
    best = enumerate_optimum(problem)

    plan = solve(problem)

    if best is None:
        assert plan.status is PlanStatus.CAP_INFEASIBLE
        return
    assert plan.status is PlanStatus.OPTIMAL
    assert shortfall_of(problem, plan.choice) == pytest.approx(best.shortfall, abs=1e-6)
    assert _stage(plan, "served").objective == pytest.approx(best.value, rel=1e-6)


@given(small_problems())
def test_exact_ratio_equals_enumeration_within_the_served_shares(
    problem: PlanningProblem,
) -> None:
    plan = solve(problem)

    names = [stage.name for stage in plan.stages]
    if plan.status is PlanStatus.CAP_INFEASIBLE or "throughput_per_watt" not in names:
        return
    served = picked(problem.served_tps, _choice(plan, "served"))
    shortfall = np.array(shortfall_of(problem, _choice(plan, "served")))
    best = 0.0
    for choice in every_choice(problem):
        keeps_share = picked(problem.served_tps, choice) >= problem.served_share * served - 1e-9
        keeps_floors = np.array(shortfall_of(problem, choice)) <= shortfall + 1e-9
        if keeps_share.all() and keeps_floors.all() and value_of(problem, choice) > 0:
            best = max(best, value_of(problem, choice) / energy_of(problem, choice))
    assert _stage(plan, "throughput_per_watt").objective == pytest.approx(best, rel=2e-6)


@given(small_problems(), st.booleans())
def test_no_plan_is_worse_than_greedy_at_floors_then_served(
    problem: PlanningProblem, throughput: bool
) -> None:
    objective = Objective.THROUGHPUT if throughput else Objective.THROUGHPUT_PER_WATT
    settings = SolveSettings(objective=objective)

    exact, greedy = solve(problem, settings=settings), solve_greedy(problem, settings=settings)

    if not greedy.stages:
        return
    missed = [
        tuple(round(each, 7) for each in shortfall_of(problem, _choice(plan, "floors")))
        for plan in (exact, greedy)
    ]
    assert missed[0] <= missed[1]
    if missed[0] == missed[1]:
        best, other = (_stage(plan, "served").objective for plan in (exact, greedy))
        assert best >= other * (1 - 1e-6)


@given(small_problems(max_domains=1), st.floats(1.0, 3.0))
def test_a_larger_cap_never_lowers_floors_and_served(
    problem: PlanningProblem, factor: float
) -> None:
    larger = _changed(problem, cap_watts=problem.cap_watts * factor)

    plan, other = solve(problem), solve(larger)

    if plan.status is PlanStatus.CAP_INFEASIBLE:
        return
    missed = [
        tuple(round(each, 7) for each in shortfall_of(problem, each.choice))
        for each in (plan, other)
    ]
    assert missed[1] <= missed[0]
    if missed[0] == missed[1]:
        before, after = (_stage(each, "served").objective for each in (plan, other))
        assert after >= before * (1 - 1e-6)


@given(small_problems(), st.sampled_from([0.25, 4.0, 1024.0]))
def test_scaling_watts_and_caps_changes_nothing(problem: PlanningProblem, factor: float) -> None:
    watts = [field.name for field in fields(problem) if field.name.endswith("_watts")]
    scaled = _changed(problem, **{name: getattr(problem, name) * factor for name in watts})

    plan, other = solve(problem), solve(scaled)

    assert other.status is plan.status
    for one, two in zip(plan.stages, other.stages, strict=True):
        expected = one.objective
        if one.name == "throughput_per_watt":
            expected /= factor
        # Ties between equally good choices may fall otherwise from stage 3 on.
        if one.name in ("floors", "served", "throughput_per_watt"):
            assert two.objective == pytest.approx(expected, rel=2e-6, abs=1e-9)


@given(small_problems())
def test_equal_input_gives_equal_output(problem: PlanningProblem) -> None:
    first = solve(problem, clock=lambda: 0.0)
    second = solve(problem, clock=lambda: 0.0)

    assert plan_to_json(first) == plan_to_json(second)


@pytest.mark.parametrize("method", [Method.HIGHS, Method.SCIP])
@pytest.mark.parametrize(
    "name", ["scarce_one_cap", "not_monotone", "tight_floors", "racks_and_periods"]
)
def test_back_ends_agree(name: str, method: Method) -> None:
    problem = FAMILIES[name].make(size=8, seed=3)

    reference = solve(problem)
    other = solve(problem, settings=SolveSettings(method=method))

    assert verify(problem, other) == ()
    for stage in ("floors", "served", "throughput_per_watt"):
        one, two = _stage(reference, stage), _stage(other, stage)
        assert two.objective == pytest.approx(one.objective, rel=2e-6)
        assert two.bound == pytest.approx(one.bound, rel=2e-6)


@pytest.mark.parametrize("seed", range(8))
def test_one_cap_is_solved_without_any_gap(seed: int) -> None:
    problem = random_problem(np.random.default_rng(seed), deployments=4, options=6)

    plan = solve(problem, settings=SolveSettings(objective=Objective.THROUGHPUT))

    best = enumerate_optimum(problem)
    if best is not None and sum(best.shortfall) == 0:
        served = _stage(plan, "served")
        assert served.objective == pytest.approx(best.value, rel=1e-12)
        assert served.gap <= 1e-12
        assert math.isfinite(served.bound)
