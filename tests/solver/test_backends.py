"""The reference back ends against full enumeration: HiGHS, SCIP, CBC, CP-SAT, and PuLP's others."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace
from pathlib import Path

import cbcbox
import numpy as np
import pulp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powercap_solver.compact.cbc import cbc_solver, pulp_solver
from powercap_solver.compact.cp_sat import cp_sat_solver
from powercap_solver.compact.mathopt import mathopt_solver
from powercap_solver.compact.model import (
    ChoiceAnswer,
    ChoiceModel,
    ChoiceSolver,
    Row,
    SolveLimits,
)
from powercap_solver.compact.rounded import checked_solver
from powercap_solver.errors import SolverError
from powercap_solver.links import Links
from powercap_solver.plan import StoppedBy
from powercap_solver.settings import Method

EXACT = SolveLimits(relative_gap=0, seconds=None)
PADDING = float(np.iinfo(np.int32).max)
SOLVERS = {
    "highs": mathopt_solver(Method.HIGHS),
    "scip": mathopt_solver(Method.SCIP),
    "cbc": cbc_solver(),
    "cp_sat": cp_sat_solver(),
}
FLOATING = [pytest.param(SOLVERS[name], id=name) for name in ("highs", "scip", "cbc")]
EVERY = [pytest.param(solver, id=name) for name, solver in SOLVERS.items()]


def _numbers(
    generator: np.random.Generator, low: float, high: float, shape: tuple[int, ...], *, whole: bool
) -> np.ndarray:
    if whole:
        return generator.integers(int(low), int(high), shape).astype(float)
    return generator.uniform(low, high, shape)


def _rows(
    generator: np.random.Generator, allowed: np.ndarray, *, whole: bool, count: int
) -> tuple[Row, ...]:
    groups, options = allowed.shape
    rows = []
    for _ in range(count):
        touched = np.flatnonzero(generator.random(groups) < 0.8)
        # Some rows ask for more rather than allow less.
        low, high = ((0, 40), (-30, 40), (-40, 0))[generator.integers(3)]
        weight = _numbers(generator, low, high, (len(touched), options), whole=whole)
        least = np.where(allowed[touched], weight, np.inf).min(axis=1).sum()
        most = np.where(allowed[touched], weight, -np.inf).max(axis=1).sum()
        limit = float(least + generator.uniform(-0.05, 0.9) * (most - least))
        limit = math.floor(limit) if whole else limit
        scale = max(1.0, abs(limit), np.abs(weight).max(initial=0))
        rows.append(Row(groups=touched, coefficient=weight, limit=limit, slack=1e-9 * scale))
    return tuple(rows)


def _links(
    generator: np.random.Generator, chains: int, periods: int, options: int, *, whole: bool
) -> Links:
    size = np.sort(generator.integers(0, 6, (chains, options)), axis=1).astype(float)
    late = _numbers(generator, 0, 20, (chains * periods, options), whole=whole)
    initial_late = _numbers(generator, 0, 20, (chains,), whole=whole)
    starts_late = generator.random() < 0.6
    return Links(
        periods=periods,
        size=size,
        max_raise=generator.choice([1.0, 2.0, np.inf], chains),
        max_lower=generator.choice([1.0, 2.0, np.inf], chains),
        change_cost=generator.choice([0, 1], chains)
        * _numbers(generator, 1, 10, (chains,), whole=whole),
        initial_size=np.where(
            generator.random(chains) < 0.5, np.nan, generator.integers(0, 6, chains)
        ),
        late=late if starts_late else None,
        initial_late=np.where(generator.random(chains) < 0.5, np.inf, initial_late)
        if starts_late
        else None,
    )


def _model(seed: int, *, whole: bool, is_linked: bool) -> ChoiceModel:
    generator = np.random.default_rng(seed)
    chains, periods, options = (2, 3, 3) if is_linked else (5, 1, 4)
    groups = chains * periods
    allowed = generator.random((groups, options)) < 0.8
    allowed[np.arange(groups), generator.integers(options, size=groups)] = True
    value = _numbers(generator, -20, 60, (groups, options), whole=whole)
    links = _links(generator, chains, periods, options, whole=whole) if is_linked else None
    if links is not None and generator.random() < 0.5:
        # Padding as the problem has it: no option at all.
        allowed[np.arange(groups), :2] |= ~allowed[:, :2].any(axis=1)[:, None]
        allowed[:, -1] = False
        links.size[:, -1] = PADDING
    rows = _rows(generator, allowed, whole=whole, count=int(generator.integers(1, 4)))
    return ChoiceModel(value=value, allowed=allowed, rows=rows, links=links)


def _enumerated(model: ChoiceModel) -> float:
    best = -math.inf
    for picks in itertools.product(*(np.nonzero(allowed)[0] for allowed in model.allowed)):
        choice = np.array(picks)
        if model.holds(choice):
            best = max(best, model.worth(choice))
    return best


def _large(seed: int, *, groups: int = 60, options: int = 8, rows: int = 5) -> ChoiceModel:
    generator = np.random.default_rng(seed)
    value = generator.uniform(0, 60, (groups, options)).cumsum(axis=1)
    made = []
    for _ in range(rows):
        weight = generator.uniform(0, 40, (groups, options)).cumsum(axis=1)
        limit = float(weight[:, -1].sum() / 2)
        made.append(
            Row(groups=np.arange(groups), coefficient=weight, limit=limit, slack=1e-9 * limit)
        )
    return ChoiceModel(value=value, allowed=np.ones(value.shape, dtype=bool), rows=tuple(made))


def _check(model: ChoiceModel, answer: ChoiceAnswer, best: float) -> None:
    assert answer.stopped_by is StoppedBy.PROOF
    if best == -math.inf:
        assert answer.choice is None
        assert answer.bound == -math.inf
        return
    assert answer.choice is not None
    assert model.holds(answer.choice)
    assert model.worth(answer.choice) == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert answer.bound >= best - 1e-9 * max(1, abs(best))
    assert answer.bound == pytest.approx(best, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("solver", EVERY)
@pytest.mark.parametrize("is_linked", [False, True], ids=["free", "linked"])
@pytest.mark.parametrize("whole", [False, True], ids=["real", "whole"])
@given(seed=st.integers(0, 100_000))
@settings(max_examples=25)
def test_the_best_choice_is_that_of_enumeration(
    solver: ChoiceSolver, is_linked: bool, whole: bool, seed: int
) -> None:
    model = _model(seed, whole=whole, is_linked=is_linked)
    best = _enumerated(model)

    answer = solver(model, EXACT)

    _check(model, answer, best)


@pytest.mark.parametrize("is_linked", [False, True], ids=["free", "linked"])
@given(seed=st.integers(0, 100_000))
@settings(max_examples=40)
def test_cp_sat_is_exact_on_whole_data(is_linked: bool, seed: int) -> None:
    model = _model(seed, whole=True, is_linked=is_linked)
    best = _enumerated(model)

    answer = SOLVERS["cp_sat"](model, EXACT)

    assert answer.bound == best
    assert answer.choice is None or model.worth(answer.choice) == best


@pytest.mark.parametrize("is_linked", [False, True], ids=["free", "linked"])
@given(seed=st.integers(0, 100_000), exponent=st.integers(-12, 12))
@settings(max_examples=40)
def test_cp_sat_keeps_rows_and_bounds_the_best_on_real_data(
    is_linked: bool, seed: int, exponent: int
) -> None:
    # No slack, and limits that a choice meets to the last digit: rounding has nowhere to hide.
    model = _model(seed, whole=False, is_linked=is_linked)
    first = np.argmax(model.allowed, axis=1)
    factor = 10.0**exponent
    rows = []
    for row in model.rows:
        scaled = replace(row, coefficient=row.coefficient * factor, slack=0.0)
        rows.append(replace(scaled, limit=scaled.used(first)))
    model = replace(model, rows=tuple(rows))
    best = _enumerated(model)

    answer = SOLVERS["cp_sat"](model, EXACT)

    assert answer.bound >= best
    if answer.choice is not None:
        assert model.holds(answer.choice)
        assert model.worth(answer.choice) == pytest.approx(best, rel=1e-9, abs=1e-6)
    else:
        assert best == -math.inf


@pytest.mark.parametrize("solver", EVERY)
@given(seed=st.integers(0, 100_000), gap=st.sampled_from([1e-4, 1e-2, 0.1, 0.5]))
@settings(max_examples=20)
def test_a_wide_gap_still_states_a_true_bound(solver: ChoiceSolver, seed: int, gap: float) -> None:
    model = _model(seed, whole=False, is_linked=True)
    best = _enumerated(model)

    answer = solver(model, SolveLimits(relative_gap=gap, seconds=None))

    if best == -math.inf:
        assert answer.choice is None
    else:
        assert answer.choice is not None
        assert model.holds(answer.choice)
        assert answer.bound >= best - 1e-9 * max(1, abs(best))


@pytest.mark.parametrize("solver", EVERY)
def test_a_model_without_a_choice_is_proven_infeasible(solver: ChoiceSolver) -> None:
    model = _large(0, groups=4)
    row = replace(model.rows[0], limit=-1.0)

    answer = solver(replace(model, rows=(row,)), EXACT)

    assert answer.choice is None
    assert answer.stopped_by is StoppedBy.PROOF
    assert answer.bound == -math.inf


@pytest.mark.parametrize("solver", EVERY)
def test_a_group_without_an_option_is_proven_infeasible(solver: ChoiceSolver) -> None:
    model = _large(0, groups=4)
    model.allowed[2] = False

    answer = solver(model, EXACT)

    assert answer.choice is None
    assert answer.stopped_by is StoppedBy.PROOF


@pytest.mark.parametrize("solver", EVERY)
def test_a_ramp_from_the_initial_size_can_prove_infeasibility(solver: ChoiceSolver) -> None:
    links = Links(
        periods=2,
        size=np.array([[0.0, 5.0]]),
        max_raise=np.array([1.0]),
        max_lower=np.array([1.0]),
        change_cost=np.zeros(1),
        initial_size=np.array([3.0]),
    )
    model = ChoiceModel(
        value=np.ones((2, 2)), allowed=np.ones((2, 2), dtype=bool), rows=(), links=links
    )

    answer = solver(model, EXACT)

    assert answer.choice is None
    assert answer.stopped_by is StoppedBy.PROOF


@pytest.mark.parametrize("seconds", [0.0, 1e-3, 0.05])
@pytest.mark.parametrize("solver", EVERY)
def test_a_deadline_ends_the_search_with_a_true_bound(solver: ChoiceSolver, seconds: float) -> None:
    model = _large(1, groups=120, options=10, rows=12)
    start = time.monotonic()

    answer = solver(model, SolveLimits(relative_gap=0, seconds=seconds))

    assert time.monotonic() - start < 10
    assert answer.stopped_by is StoppedBy.DEADLINE
    assert answer.bound >= _greedy_worth(model)
    if answer.choice is not None:
        assert model.holds(answer.choice)
        assert model.worth(answer.choice) <= answer.bound


def _greedy_worth(model: ChoiceModel) -> float:
    """Worth of some choice that keeps the rows."""
    choice = np.zeros(len(model.value), dtype=np.int64)
    for group in range(len(choice)):
        for option in range(1, model.value.shape[1]):
            raised = choice.copy()
            raised[group] = option
            if model.holds(raised):
                choice = raised
    return model.worth(choice)


@pytest.mark.parametrize("solver", EVERY)
def test_nothing_is_printed_and_no_file_is_left(
    solver: ChoiceSolver,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    model = replace(_large(2, groups=10), hint=np.zeros(10, dtype=np.int64))

    solver(model, EXACT)

    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("solver", EVERY)
def test_two_solves_of_a_model_are_alike(solver: ChoiceSolver) -> None:
    model = _large(3, groups=12)

    first, second = (solver(model, EXACT) for _ in range(2))

    assert first.choice is not None
    assert second.choice is not None
    assert first.choice.tolist() == second.choice.tolist()
    assert first.bound == second.bound


@pytest.mark.parametrize("solver", EVERY)
@given(seed=st.integers(0, 100_000))
@settings(max_examples=10)
def test_a_hint_good_or_bad_changes_no_result(solver: ChoiceSolver, seed: int) -> None:
    model = _model(seed, whole=False, is_linked=True)
    generator = np.random.default_rng(seed)
    hint = generator.integers(0, model.value.shape[1], len(model.value))
    best = _enumerated(model)

    answer = solver(replace(model, hint=hint), EXACT)

    _check(model, answer, best)


@pytest.mark.parametrize("seconds", [0.02 + 0.002 * step for step in range(12)])
def test_cbc_out_of_time_after_its_first_linear_program_proves_nothing(seconds: float) -> None:
    # Around here the time is up between the linear program and the search.
    model = _large(1, groups=120, options=10, rows=12)

    answer = SOLVERS["cbc"](model, SolveLimits(relative_gap=0, seconds=seconds))

    assert answer.stopped_by is StoppedBy.DEADLINE
    assert answer.choice is None or model.holds(answer.choice)


def test_cbc_starts_from_the_hint() -> None:
    # Far too little time to find anything itself.
    model = _large(1, groups=120, options=10, rows=12)
    hint = np.zeros(120, dtype=np.int64)
    hint[:60] = 3

    answer = SOLVERS["cbc"](replace(model, hint=hint), SolveLimits(relative_gap=0.9, seconds=60))

    assert answer.choice is not None
    assert model.worth(answer.choice) >= model.worth(hint)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
@pytest.mark.parametrize("solver", EVERY)
def test_units_change_nothing(solver: ChoiceSolver, factor: float) -> None:
    model = _model(11, whole=False, is_linked=True)
    assert model.links is not None
    rows = tuple(
        replace(
            row,
            coefficient=row.coefficient * factor,
            limit=row.limit * factor,
            slack=row.slack * factor,
        )
        for row in model.rows
    )
    scaled = replace(model, value=model.value / factor, rows=rows, links=model.links.scaled(factor))
    best = _enumerated(model)
    assert math.isfinite(best)

    answer = solver(scaled, EXACT)

    assert answer.choice is not None
    assert model.holds(answer.choice)
    assert scaled.worth(answer.choice) * factor == pytest.approx(best, rel=1e-6)
    assert answer.bound * factor == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("seed", [14, 98, 108, 228, 309])
def test_cp_sat_is_not_misled_by_its_presolve_of_large_numbers(seed: int) -> None:
    # Each of these lost its best choice to google/or-tools issue 5293.
    model = _model(seed, whole=False, is_linked=True)

    answer = SOLVERS["cp_sat"](model, EXACT)

    _check(model, answer, _enumerated(model))


@pytest.mark.parametrize("seed", [29, 143])
def test_cbc_is_not_misled_by_its_preprocessing_of_infeasible_models(seed: int) -> None:
    model = _model(seed, whole=False, is_linked=True)
    assert _enumerated(model) == -math.inf

    answer = SOLVERS["cbc"](model, EXACT)

    assert answer.choice is None
    assert answer.stopped_by is StoppedBy.PROOF


def test_cp_sat_takes_data_far_above_its_integers() -> None:
    model = _model(11, whole=True, is_linked=False)
    row = replace(model.rows[0], coefficient=model.rows[0].coefficient * 2.0**60, limit=2.0**63)
    model = replace(model, value=model.value * 2.0**70, rows=(row,))

    answer = SOLVERS["cp_sat"](model, EXACT)

    assert answer.choice is not None
    assert model.worth(answer.choice) == _enumerated(model)


def test_cp_sat_refuses_parts_of_replicas() -> None:
    model = _model(5, whole=True, is_linked=True)
    assert model.links is not None
    model = replace(model, links=replace(model.links, size=model.links.size + 0.5))

    with pytest.raises(SolverError, match="whole replicas"):
        SOLVERS["cp_sat"](model, EXACT)


def test_a_solver_that_pulp_does_not_find_is_named_with_those_it_finds() -> None:
    with pytest.raises(SolverError, match=r"NO_SUCH_SOLVER.*available: .*COIN_CMD"):
        pulp_solver("NO_SUCH_SOLVER")


class _TakesNone(pulp.COIN_CMD):  # type: ignore[misc]  # PuLP is not typed
    """CBC by another name that takes no gap."""

    def __init__(self, *, msg: bool) -> None:
        super().__init__(path=cbcbox.cbc_bin_path(), msg=msg)


@given(seed=st.integers(0, 100_000))
@settings(max_examples=10)
def test_any_solver_of_pulp_equals_enumeration(seed: int) -> None:
    model = _model(seed, whole=False, is_linked=True)
    best = _enumerated(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pulp, "listSolvers", lambda **_: ["OTHER"])
        patch.setattr(
            pulp,
            "getSolver",
            lambda _, **arguments: pulp.COIN_CMD(path=cbcbox.cbc_bin_path(), **arguments),
        )
        answer = pulp_solver("OTHER")(model, EXACT)

    _check(model, answer, best)


def test_a_solver_without_a_gap_proves_no_more_than_the_best_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulp, "listSolvers", lambda **_: ["OTHER"])
    monkeypatch.setattr(pulp, "getSolver", lambda _, **arguments: _TakesNone(**arguments))
    model = _model(11, whole=False, is_linked=False)
    most = float(np.where(model.allowed, model.value, -np.inf).max(axis=1).sum())

    answer = pulp_solver("OTHER")(model, EXACT)

    assert answer.choice is not None
    assert model.worth(answer.choice) == pytest.approx(_enumerated(model), rel=1e-6)
    assert answer.bound == pytest.approx(most)


def _answering(*choices: list[int] | None) -> ChoiceSolver:
    """A back end that answers with one of ``choices`` after the other."""
    left = iter(choices)

    def solve(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
        choice = next(left)
        return ChoiceAnswer(
            choice=None if choice is None else np.array(choice),
            bound=-math.inf if choice is None else 10.0 - choice[0],
            method="toy",
            stopped_by=StoppedBy.PROOF,
        )

    return solve


def _two_options(limit: float) -> ChoiceModel:
    row = Row(groups=np.arange(1), coefficient=np.array([[2.0, 1.0, 0.0]]), limit=limit, slack=1e-9)
    return ChoiceModel(
        value=np.array([[3.0, 2.0, 1.0]]), allowed=np.ones((1, 3), dtype=bool), rows=(row,)
    )


def test_the_bound_of_the_model_asked_for_survives_tighter_rows() -> None:
    answer = checked_solver(_answering([0], [1]), "toy")(_two_options(1.0), EXACT)

    assert answer.choice is not None
    assert answer.choice.tolist() == [1]
    assert answer.bound == 10.0


def test_tighter_rows_without_a_choice_are_no_proof_of_infeasibility() -> None:
    with pytest.raises(SolverError, match="toy finds only choices that break a row"):
        checked_solver(_answering([0], None), "toy")(_two_options(1.0), EXACT)


def test_a_choice_that_keeps_breaking_rows_is_an_error() -> None:
    with pytest.raises(SolverError, match="toy keeps breaking a row"):
        checked_solver(_answering([0], [0], [0]), "toy")(_two_options(1.0), EXACT)
