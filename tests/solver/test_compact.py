"""The choice model's methods: the knapsack against HiGHS and enumeration, blocks, dominance."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, Row, SolveLimits
from powercap_solver.dominance import undominated
from powercap_solver.errors import SolverError
from powercap_solver.fast.price import price_of_row
from powercap_solver.methods import method_solver
from powercap_solver.plan import StoppedBy
from powercap_solver.separate import solve_model
from powercap_solver.settings import Method

EXACT = SolveLimits(relative_gap=1e-9, seconds=None)


def _model(
    seed: int, *, groups: int = 4, options: int = 5, rows: int = 1, tightness: float = 0.5
) -> ChoiceModel:
    generator = np.random.default_rng(seed)
    value = generator.integers(-20, 60, (groups, options)).astype(float)
    allowed = generator.random((groups, options)) < 0.8
    allowed[:, 0] = True
    made = []
    for _ in range(rows):
        weight = generator.integers(0, 40, (groups, options)).astype(float)
        least = np.where(allowed, weight, np.inf).min(axis=1).sum()
        most = np.where(allowed, weight, -np.inf).max(axis=1).sum()
        limit = float(np.floor(least + tightness * (most - least)))
        made.append(Row(groups=np.arange(groups), coefficient=weight, limit=limit, slack=1e-7))
    return ChoiceModel(value=value, allowed=allowed, rows=tuple(made))


def _enumerated(model: ChoiceModel) -> float:
    best = -np.inf
    for picks in itertools.product(*(np.nonzero(allowed)[0] for allowed in model.allowed)):
        choice = np.array(picks)
        if model.holds(choice):
            best = max(best, model.worth(choice))
    return best


def _refuse(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
    raise SolverError("no back end is needed here")


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_knapsack_finds_the_best_without_another_back_end(seed: int, tight: float) -> None:
    model = _model(seed, tightness=tight)

    answer = solve_model(model, EXACT, method_solver(Method.FAST))

    assert answer.choice is not None
    assert model.holds(answer.choice)
    assert model.worth(answer.choice) == _enumerated(model)
    assert answer.bound == pytest.approx(model.worth(answer.choice), rel=1e-8)
    assert answer.method in ("knapsack", "separable")


@given(st.integers(0, 10_000), st.sampled_from([Method.HIGHS, Method.SCIP]))
def test_several_rows_equal_enumeration(seed: int, method: Method) -> None:
    model = _model(seed, rows=2)
    best = _enumerated(model)

    answer = solve_model(model, EXACT, method_solver(method))

    if answer.choice is None:
        assert answer.stopped_by is StoppedBy.PROOF
        assert best == -np.inf
    else:
        assert model.worth(answer.choice) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_large_knapsacks_agree_with_highs(seed: int) -> None:
    model = _model(seed, groups=40, options=12, tightness=0.3)

    ours = solve_model(model, EXACT, method_solver(Method.FAST))
    theirs = solve_model(model, EXACT, method_solver(Method.HIGHS))

    assert ours.choice is not None
    assert theirs.choice is not None
    assert model.worth(ours.choice) == pytest.approx(model.worth(theirs.choice), rel=1e-9)


def test_a_cut_search_states_a_true_bound() -> None:
    # Values in proportion to weights: a subset-sum problem, the worst case of the search.
    generator = np.random.default_rng(7)
    weight = generator.uniform(100, 1000, 150)[:, None] * np.arange(12)
    value = weight * generator.uniform(0.9, 1.1, 150)[:, None]
    row = Row(
        groups=np.arange(150), coefficient=weight, limit=float(weight.max(axis=1).sum()) / 3,
        slack=1e-6,
    )  # fmt: skip
    model = ChoiceModel(value=value, allowed=np.ones(value.shape, dtype=bool), rows=(row,))

    answer = solve_model(model, SolveLimits(relative_gap=0, seconds=None), method_solver(
        Method.FAST
    ))  # fmt: skip

    assert answer.choice is not None
    worth = model.worth(answer.choice)
    relaxed = price_of_row(value, weight, model.allowed, row.limit + row.slack)
    assert relaxed is not None
    assert worth <= answer.bound <= relaxed.bound * (1 + 1e-12)
    assert answer.bound - worth <= 1e-5 * worth
    if answer.stopped_by is StoppedBy.PROOF:
        assert answer.bound == pytest.approx(worth, rel=1e-9)


def test_groups_that_no_row_links_are_solved_apart() -> None:
    # Worth what it weighs: the row binds, and the best option fits only in part.
    parts = [
        replace(part, value=part.rows[0].coefficient)
        for part in (_model(seed, groups=3) for seed in (1, 2))
    ]
    second = parts[1].rows[0]
    rows = (
        parts[0].rows[0],
        Row(
            groups=second.groups + 3,
            coefficient=second.coefficient,
            limit=second.limit,
            slack=second.slack,
        ),
    )
    joint = ChoiceModel(
        value=np.concatenate([part.value for part in parts]),
        allowed=np.concatenate([part.allowed for part in parts]),
        rows=rows,
    )

    answer = solve_model(joint, EXACT, method_solver(Method.FAST))

    assert answer.method == "knapsack"
    best = sum(_enumerated(part) for part in parts)
    assert answer.bound == pytest.approx(best, rel=1e-8)
    assert answer.choice is not None
    assert joint.worth(answer.choice) == best


def test_rows_that_do_not_bind_need_no_back_end() -> None:
    model = _model(3, tightness=1.0)

    assert solve_model(model, EXACT, _refuse).method == "separable"


def test_a_row_that_cannot_hold_is_proven_infeasible() -> None:
    model = _model(3, tightness=-0.5)

    answer = solve_model(model, EXACT, _refuse)

    assert answer.choice is None
    assert answer.stopped_by is StoppedBy.PROOF


@given(st.integers(0, 10_000))
def test_dominance_keeps_an_option_as_good_as_each_it_drops(seed: int) -> None:
    generator = np.random.default_rng(seed)
    allowed = generator.random((3, 6)) < 0.7
    costs = [generator.integers(0, 4, (3, 6)).astype(float) for _ in range(2)]

    keep = undominated(allowed, costs)

    assert not (keep & ~allowed).any()
    for group, option in np.argwhere(allowed):
        no_worse = keep[group] & np.all(
            [cost[group] <= cost[group, option] for cost in costs], axis=0
        )
        assert no_worse.any()


@given(st.integers(0, 10_000), st.floats(0, 1.2))
def test_the_relaxation_of_one_cap_bounds_every_choice(seed: int, tight: float) -> None:
    model = _model(seed, tightness=tight)
    row = model.rows[0]

    relaxed = price_of_row(model.value, row.coefficient, model.allowed, row.limit)

    best = _enumerated(model)
    assert (relaxed is None) == (best == -np.inf)
    if relaxed is not None:
        assert relaxed.bound >= best - 1e-9
        assert relaxed.price >= 0
