"""The fast path: as good as enumeration and the compact models; true bounds, fair starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powercap_solver.certificate import verify
from powercap_solver.compact.model import ChoiceModel, Row, SolveLimits
from powercap_solver.families import Kind
from powercap_solver.fast.price import price_of_row
from powercap_solver.fast.prices import dual_bound, find_prices
from powercap_solver.fast.repair import lower
from powercap_solver.fast.rowtable import table_of
from powercap_solver.instances import FAMILIES
from powercap_solver.ladder import solve
from powercap_solver.links import Links
from powercap_solver.methods import method_solver
from powercap_solver.plan import Plan, PlanStatus, StoppedBy
from powercap_solver.problem import PlanningProblem
from powercap_solver.separate import solve_model
from powercap_solver.settings import LastStage, Method, Objective, SolveSettings
from powercap_solver.testing import (
    PARTS,
    attainable,
    enumerate_optimum,
    mixed_problems,
    problems_with,
    shortfall_of,
)
from powercap_solver.warm import warm_start_of

EXACT = SolveLimits(relative_gap=0, seconds=None)
FAST = method_solver(Method.FAST)
HIGHS = method_solver(Method.HIGHS)


def _model(seed: int, *, is_linked: bool, whole: bool) -> ChoiceModel:
    generator = np.random.default_rng(seed)
    periods = int(generator.integers(1, 4)) if is_linked else 1
    chains = int(generator.integers(1, 4)) if is_linked else int(generator.integers(1, 6))
    options = int(generator.integers(1, 4))
    groups = chains * periods
    count = np.repeat(generator.integers(1, options + 1, chains), periods)
    allowed = np.arange(options) < count[:, None]
    value = generator.integers(-5, 20, (groups, options)).astype(float)
    if not whole:
        value = generator.normal(size=(groups, options))
    rows = tuple(
        row
        for row in (_row(generator, allowed, whole=whole) for _ in range(generator.integers(1, 4)))
        if len(row.groups)
    )
    links = _links(generator, allowed, value, periods) if is_linked else None
    return ChoiceModel(value=value, allowed=allowed, rows=rows, links=links)


def _row(generator: np.random.Generator, allowed: np.ndarray, *, whole: bool) -> Row:
    touched = np.flatnonzero(generator.random(len(allowed)) < 0.8)
    weight = generator.integers(0, 10, (len(touched), allowed.shape[1])).astype(float)
    if generator.random() < 0.2:
        weight -= generator.integers(0, 6, weight.shape)
    if not whole:
        weight *= generator.random()
    least = np.where(allowed[touched], weight, np.inf).min(axis=1).sum()
    most = np.where(allowed[touched], weight, -np.inf).max(axis=1).sum()
    share = generator.choice([-0.1, 0.0, 0.3, 0.5, 0.8, 1.0])
    limit = float(least + share * (most - least))
    limit = float(math.floor(limit)) if whole else limit
    return Row(groups=touched, coefficient=weight, limit=limit, slack=1e-9 * max(1.0, abs(limit)))


def _links(
    generator: np.random.Generator, allowed: np.ndarray, value: np.ndarray, periods: int
) -> Links:
    chains, options = len(allowed) // periods, allowed.shape[1]
    size = np.sort(generator.integers(0, 5, (chains, options)), axis=1).astype(float)
    starts_late = generator.random() < 0.4
    return Links(
        periods=periods,
        size=np.where(allowed[::periods], size, np.iinfo(np.int32).max),
        max_raise=generator.choice([0, 1, 2, np.inf], chains),
        max_lower=generator.choice([0, 1, 2, np.inf], chains),
        change_cost=generator.choice([0, 0.5, 2.0], chains),
        initial_size=generator.choice([np.nan, 0, 2, 3], chains),
        late=np.maximum(value, 0.0) if starts_late else None,
        initial_late=generator.choice([0, 3.0, np.inf], chains) if starts_late else None,
    )


def _enumerated(model: ChoiceModel) -> float:
    best = -math.inf
    for picks in itertools.product(*(np.flatnonzero(allowed) for allowed in model.allowed)):
        choice = np.array(picks)
        if model.holds(choice):
            best = max(best, model.worth(choice))
    return best


@pytest.mark.parametrize("is_linked", [False, True], ids=["free", "linked"])
@pytest.mark.parametrize("whole", [False, True], ids=["real", "whole"])
@given(seed=st.integers(0, 1_000_000))
def test_the_choice_is_the_best_of_enumeration(is_linked: bool, whole: bool, seed: int) -> None:
    model = _model(seed, is_linked=is_linked, whole=whole)
    best = _enumerated(model)

    answer = solve_model(model, EXACT, FAST)

    if best == -math.inf:
        assert answer.choice is None
        assert answer.stopped_by is StoppedBy.PROOF
        return
    assert answer.choice is not None
    assert model.holds(answer.choice)
    assert model.worth(answer.choice) == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert answer.bound >= best - 1e-9 * max(1.0, abs(best))


@pytest.mark.parametrize("is_linked", [False, True], ids=["free", "linked"])
@given(seed=st.integers(0, 1_000_000))
def test_greedy_keeps_every_row_and_its_bound_is_true(is_linked: bool, seed: int) -> None:
    model = _model(seed, is_linked=is_linked, whole=False)
    best = _enumerated(model)

    answer = solve_model(model, EXACT, method_solver(Method.GREEDY))

    assert answer.bound >= best - 1e-9 * max(1.0, abs(best))
    if answer.choice is not None:
        assert model.holds(answer.choice)


@given(seed=st.integers(0, 1_000_000))
def test_any_prices_prove_a_bound(seed: int) -> None:
    model = _model(seed, is_linked=False, whole=False)
    prices = np.random.default_rng(seed).exponential(size=len(model.rows))
    table = table_of(model)

    bound = dual_bound(table, prices)[0] * table.value_scale

    assert bound >= _enumerated(model) - 1e-9


@given(seed=st.integers(0, 1_000_000))
def test_the_price_of_one_row_minimises_the_dual(seed: int) -> None:
    generator = np.random.default_rng(seed)
    value, weight = generator.uniform(0, 9, (2, 6, 4)).cumsum(axis=2)
    allowed = np.ones(value.shape, dtype=bool)
    room = float(weight[:, 0].sum() + generator.random() * (weight[:, -1] - weight[:, 0]).sum())

    found = price_of_row(value, weight, allowed, room)

    assert found is not None
    slopes = (value[:, :, None] - value[:, None, :]) / np.where(
        weight[:, :, None] == weight[:, None, :], np.inf, weight[:, :, None] - weight[:, None, :]
    )
    corners = np.append(slopes[slopes > 0], 0.0)
    dual = [p * room + (value - p * weight).max(axis=1).sum() for p in corners]
    assert found.bound == pytest.approx(min(dual), rel=1e-12)
    rows = np.arange(6)
    assert weight[rows, found.light].sum() <= room * (1 + 1e-12)


def test_smoothed_prices_reach_the_bound_of_the_linear_program() -> None:
    problem = FAMILIES["racks_and_periods"].make(size=30, seed=1)
    model = _stage_two(problem)
    table = table_of(model)

    found = find_prices(table, gap=1e-7)

    reference = solve_model(model, SolveLimits(relative_gap=1e-7, seconds=60.0), HIGHS)
    assert reference.choice is not None
    # The dual of the relaxation lies above the best choice, by no more than a fractional option
    # per row is worth.
    best = model.worth(reference.choice) / table.value_scale
    assert best <= found.bound * (1 + 1e-9)
    assert found.bound <= best * 1.01


def _stage_two(problem: PlanningProblem) -> ChoiceModel:
    from powercap_solver.measures import measure

    measures = measure(problem, Objective.THROUGHPUT)
    return ChoiceModel(
        value=measures.worth, allowed=measures.allowed, rows=measures.rows, links=measures.links
    )


def test_lowering_breaks_no_other_row() -> None:
    model = _stage_two(FAMILIES["racks_and_periods"].make(size=30, seed=2))
    table = table_of(model)
    best = np.argmax(table.value, axis=1)

    lowered = lower(table, table.value, best, table.allowed)

    assert lowered is not None
    assert model.holds(lowered)


@pytest.mark.parametrize(
    ("name", "size", "gap"),
    [
        ("concave_one_cap", 200, 1e-7),
        ("scarce_one_cap", 200, 1e-7),
        ("not_monotone", 200, 1e-7),
        ("plan_in_force", 200, 1e-7),
        ("racks_and_periods", 10, 1e-6),
    ],
)
@pytest.mark.parametrize("method", [Method.HIGHS, Method.SCIP])
def test_the_fast_path_equals_the_compact_models(
    name: str, size: int, gap: float, method: Method
) -> None:
    model = _stage_two(FAMILIES[name].make(size=size, seed=3))
    limits = SolveLimits(relative_gap=gap, seconds=60.0)

    ours = solve_model(model, limits, FAST)
    theirs = solve_model(model, limits, method_solver(method))

    assert ours.choice is not None
    assert theirs.choice is not None
    assert model.worth(ours.choice) == pytest.approx(model.worth(theirs.choice), rel=2 * gap)
    assert ours.bound >= model.worth(theirs.choice) * (1 - 1e-12)
    assert theirs.bound >= model.worth(ours.choice) * (1 - 1e-9)


def _optimum_agrees(problem: PlanningProblem, plan: Plan, objective: Objective) -> None:
    kappa = plan.kappa if problem.expected is not None else None
    optimum = enumerate_optimum(problem, kappa=kappa, objective=objective.value)
    if optimum is None:
        assert plan.status is PlanStatus.CAP_INFEASIBLE
        planned = attainable(problem, kappa=kappa)
        optimum = enumerate_optimum(planned, kappa=kappa, objective=objective.value)
    if optimum is None:
        assert plan.stages == ()
        return
    assert shortfall_of(problem, plan.stage_choice[0]) == pytest.approx(optimum.shortfall, abs=1e-6)
    served = plan.stages[1]
    size = max(1e-9, abs(optimum.value))
    assert abs(served.objective - optimum.value) <= 2e-6 * size
    assert served.bound >= optimum.value - 1e-9 * size - 1e-12


@pytest.mark.parametrize("part", PARTS)
@given(data=st.data())
@settings(max_examples=20)
def test_each_part_alone_is_planned_as_enumeration_says(part: str, data: st.DataObject) -> None:
    problem = data.draw(problems_with(part))
    objective = Objective.NET_VALUE if part == "grid" else Objective.THROUGHPUT_PER_WATT

    plan = solve(problem, settings=SolveSettings(objective=objective))

    assert verify(problem, plan) == ()
    assert plan.rung in ("fast", "lowest")
    _optimum_agrees(problem, plan, objective)


@given(problem=mixed_problems())
@settings(max_examples=60)
def test_all_parts_together_are_planned_as_enumeration_says(problem: PlanningProblem) -> None:
    plan = solve(problem)

    assert verify(problem, plan) == ()
    _optimum_agrees(problem, plan, Objective.THROUGHPUT_PER_WATT)


@given(problem=mixed_problems(max_periods=1), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_the_order_of_deployments_changes_no_value(problem: PlanningProblem, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(problem.deployments))
    moved = _permuted(problem, order)

    one, two = solve(problem), solve(moved)

    assert one.status is two.status
    for before, after in zip(one.stages[:2], two.stages[:2], strict=True):
        assert after.objective == pytest.approx(before.objective, rel=2e-6, abs=1e-9)


def _permuted(problem: PlanningProblem, order: np.ndarray) -> PlanningProblem:
    by_deployment = (
        "option_count", "replicas", "served_tps", "power_watts", "load_tps", "weight", "priority",
        "min_replicas", "min_served_fraction", "served_share", "is_ceiling", "replicas_in_force",
        "zone_index",
    )  # fmt: skip
    place = np.argsort(order)
    moved = {name: getattr(problem, name)[order].copy() for name in by_deployment}
    pools, dynamics, grid = problem.pools, problem.dynamics, problem.grid
    expected, labels = problem.expected, problem.labels
    if pools is not None:
        pools = replace(pools, gpus=pools.gpus[:, order].copy())
    if dynamics is not None:
        names = ("max_raise", "max_lower", "switching_cost", "starts_late", "initial_replicas")
        dynamics = replace(dynamics, **{name: getattr(dynamics, name)[order] for name in names})
    if grid is not None and grid.token_price_per_million is not None:
        grid = replace(grid, token_price_per_million=grid.token_price_per_million[order])
    if expected is not None:
        expected = replace(expected, residual=expected.residual[:, order].copy())
    if labels is not None:
        labels = replace(
            labels,
            mode_index=labels.mode_index[order],
            variants=tuple(labels.variants[each] for each in order),
            variant_replicas=labels.variant_replicas[order],
        )
    return replace(
        problem,
        **moved,
        deployments=tuple(problem.deployments[each] for each in order),
        draw_deployment=place[problem.draw_deployment],
        pools=pools,
        dynamics=dynamics,
        grid=grid,
        expected=expected,
        labels=labels,
    )


@given(problem=mixed_problems(), factor=st.sampled_from([1e-6, 0.5, 1e6]))
@settings(max_examples=40)
def test_the_unit_of_tokens_changes_nothing_but_units(
    problem: PlanningProblem, factor: float
) -> None:
    scaled = replace(
        problem, served_tps=problem.served_tps * factor, load_tps=problem.load_tps * factor
    )
    if problem.dynamics is not None:
        cost = problem.dynamics.switching_cost * factor
        scaled = replace(scaled, dynamics=replace(problem.dynamics, switching_cost=cost))
    is_linear = problem.utility.value == "linear"

    one, two = solve(problem), solve(scaled)

    assert one.status is two.status
    if is_linear and len(one.stages) > 1:
        assert two.stages[1].objective == pytest.approx(
            one.stages[1].objective * factor, rel=2e-6, abs=1e-9 * factor
        )


def _in_two_ways(problem: PlanningProblem, change: Callable[[PlanningProblem], PlanningProblem]):
    settings = SolveSettings(relative_gap=1e-6)
    first = solve(problem, settings=settings)
    later = change(problem)
    return (
        solve(later, settings=settings),
        solve(later, settings=settings, warm=warm_start_of(first)),
        later,
    )


@pytest.mark.parametrize("name", ["scarce_one_cap", "plan_in_force", "racks_and_periods"])
def test_a_warm_start_proves_the_same(name: str) -> None:
    problem = FAMILIES[name].make(size=10, seed=4)

    cold, warm, later = _in_two_ways(
        problem, lambda each: replace(each, served_tps=each.served_tps * 1.01)
    )

    assert verify(later, warm) == ()
    assert warm.status is cold.status
    assert warm.stages[1].objective == pytest.approx(cold.stages[1].objective, rel=2e-6)


def test_a_warm_start_of_another_shape_is_left_aside() -> None:
    plan = solve(FAMILIES["scarce_one_cap"].make(size=10, seed=0))
    problem = FAMILIES["scarce_one_cap"].make(size=12, seed=0)

    warm = solve(problem, warm=warm_start_of(plan))

    assert verify(problem, warm) == ()
    assert warm.status is PlanStatus.OPTIMAL


def test_a_solve_may_end_after_what_is_served() -> None:
    problem = FAMILIES["scarce_one_cap"].make(size=20, seed=0)

    plan = solve(problem, settings=SolveSettings(last_stage=LastStage.SERVED))

    assert [stage.name for stage in plan.stages] == ["floors", "served"]
    assert verify(problem, plan) == ()


def test_one_watt_and_a_gigawatt_live_in_one_problem() -> None:
    base = FAMILIES["scarce_one_cap"].make(size=20, seed=5)
    # A problem in which one deployment draws a billion times as much as another.
    factor = np.logspace(0, 9, 20)[:, None, None] / 700.0
    upper = base.upper_watts * factor
    cap = np.array([[0.4 * upper.max(axis=2).sum()]])
    problem = replace(
        base,
        upper_watts=upper,
        power_watts=base.power_watts * factor,
        cap_watts=cap,
        overhead_factor=np.ones(1),
        base_watts=np.zeros((1, 1)),
    )

    plan = solve(problem)
    reference = solve(problem, settings=SolveSettings(method=Method.SCIP))

    assert verify(problem, plan) == ()
    assert plan.stages[1].objective >= reference.stages[1].objective * (1 - 1e-6)
    # The small ones are served in full: their watts are lost in the rounding of the cap.
    assert plan.choice[0, 0] == problem.option_count[0] - 1


def _of_kind(*kinds: Kind) -> list[str]:
    return [name for name, family in FAMILIES.items() if family.kind in kinds]


@pytest.mark.parametrize("name", _of_kind(Kind.HARD, Kind.ODD))
def test_hard_and_odd_families_are_solved_as_by_a_compact_model(name: str) -> None:
    family = FAMILIES[name]
    problem = family.make(size=family.sizes[0], seed=6)
    settings = SolveSettings(
        objective=family.objective, last_stage=LastStage.SERVED, deadline_seconds=60.0
    )

    ours = solve(problem, settings=settings)
    theirs = solve(problem, settings=replace(settings, method=Method.CP_SAT))

    assert verify(problem, ours) == ()
    assert ours.rung in ("fast", "lowest")
    assert (ours.stages == ()) == (theirs.stages == ())
    for one, other in zip(ours.stages, theirs.stages, strict=True):
        size = max(abs(other.objective), 1e-9)
        assert abs(one.objective - other.objective) <= 2e-6 * size
        # Floors are minimised, the others maximised: neither bound refutes the other's plan.
        sign = -1.0 if one.name == "floors" else 1.0
        assert sign * (one.bound - other.objective) >= -1e-9 * size
        assert sign * (other.bound - one.objective) >= -1e-9 * size
