"""The choice model in PuLP, with CBC or any other solver that PuLP finds.

The program is the one of ``assembled``, scaled as in ``mathopt`` and turned round to

    minimise  -scale * (sum gain x - sum losses)

because CBC's command line takes one sense without doubt. PuLP hands back no dual bound. With o
the value found (scaled), what is proven is the least of these:

- ``sum of the groups' best gains``: always true.
- Ended as optimal: a branch is dropped when it can add no more than the gaps given. CBC stops at
  ``b - o <= max(allowableGap, ratioGap * max(|o|, |b|))`` and drops nodes within ``increment`` of
  the best value, so for the bound b, whichever of the two is larger,
  ``b <= o + ratioGap |o| / (1 - ratioGap) + allowableGap + increment``; it also covers solvers
  that divide by |o| alone or by the lesser of both. CBC's own increment of 1e-4 is set lower.
- The ``Lower bound`` at the end of CBC's log, widened by half a unit of its last printed digit.

All within the tolerances of the solver's linear programs, as for every back end in floating point.
"""

from __future__ import annotations

import enum
import inspect
import logging
import math
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cbcbox
import numpy as np
import pulp

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.compact.assembled import Assembled, assemble, folded, without_dominated
from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, ChoiceSolver, SolveLimits
from powercap_solver.compact.rounded import checked_solver
from powercap_solver.errors import SolverError
from powercap_solver.plan import StoppedBy

_LOGGER = logging.getLogger(__name__)

_VALUE_SCALE = 1e3
"""The sum of the groups' best gains after scaling, as for MathOpt."""
_CBC_TOLERANCE = 1e-9
"""Absolute, on rows scaled to 1 and on reduced costs; CBC's own are 1e-6."""
_CBC_INCREMENT = 1e-9
"""CBC looks for values better by at least this, scaled; its own is 1e-4."""
_FORGIVEN_BY_OTHERS = 1e-6
"""Usual tolerance of rows, kept back where a solver takes none from PuLP."""
_ABSOLUTE_GAP_OF_OTHERS = 1e-6
"""Usual absolute gap of solvers that are not given one, scaled."""
_LEAST_SECONDS = 0.01
_NEARLY = 0.8
"""From this share of its time on, a solver may have stopped because of it."""
_DEPRECATED = "PULP_CBC_CMD"
"""The CBC inside PuLP 3, gone in PuLP 4; ``COIN_CMD`` runs that of cbcbox."""


def cbc_solver() -> ChoiceSolver:
    """Return CBC, the one that ``pulp[cbc]`` installs, as a function of model and limits."""
    return pulp_solver(pulp.COIN_CMD.name)


def pulp_solver(name: str) -> ChoiceSolver:
    """Return the solver that PuLP calls ``name`` as a function of model and limits.

    A solver that takes no relative gap from PuLP is trusted with its values only: its bound is
    that of the groups' best options.

    Raises:
        SolverError: PuLP does not find it; the message names those it finds.
    """
    if name == pulp.COIN_CMD.name:
        return checked_solver(_cbc_twice, "cbc")
    found = [each for each in pulp.listSolvers(onlyAvailable=True) if each != _DEPRECATED]
    if name not in found:
        available = ", ".join(sorted({pulp.COIN_CMD.name, *found}))
        raise SolverError(f"PuLP finds no solver {name!r}; available: {available}")
    other = _once(lambda task: _run_other(name, task), forgive=_FORGIVEN_BY_OTHERS)
    return checked_solver(other, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One program for a solver to minimise."""

    problem: pulp.LpProblem
    relative_gap: float
    absolute_gap: float
    """Scaled."""
    seconds: float | None
    has_start: bool
    folder: Path
    """Empty, for the solver's files; deleted afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """How a solver ended."""

    method: str
    lost_at_most: Callable[[float], float] | None
    """From the value found to what proven optimality leaves open; None: nothing is proven."""
    log_bound: float = -math.inf
    """Lower bound of the minimum, scaled; -inf when the log has none."""
    is_searched: bool = True
    """Whether an optimal end is that of the search, as far as the solver tells."""


def _cbc_twice(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
    """Ask CBC, and once more without its preprocessing if the choice breaks a row.

    Its preprocessing can take an infeasible model for a feasible one: CBC then logs "Postprocessed
    model is infeasible" and calls what it has optimal.
    """
    start = time.perf_counter()
    answer = _once(_run_cbc, forgive=_CBC_TOLERANCE)(model, limits)
    is_final = answer.stopped_by is not StoppedBy.PROOF
    if is_final or answer.choice is None or model.holds(answer.choice):
        return answer
    _LOGGER.debug("cbc: the choice breaks a row; solving again without preprocessing")
    if limits.seconds is not None:
        left = max(0.0, limits.seconds - (time.perf_counter() - start))
        limits = replace(limits, seconds=left)
    return _once(_run_cbc_unprocessed, forgive=_CBC_TOLERANCE)(model, limits)


def _once(run: Callable[[_Task], _Run], *, forgive: float) -> ChoiceSolver:
    def solve(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
        start = time.perf_counter()
        reduced = folded(without_dominated(model))
        program = assemble(reduced, forgive=forgive)
        best = _best_gains(program)
        scale = _VALUE_SCALE / best if best > 0 else 1.0
        problem, variables = _problem(program, scale)
        # Given a start that breaks a row of an infeasible model, CBC calls it optimal.
        hint = model.hint if model.hint is not None and model.holds(model.hint) else None
        if hint is not None:
            for variable, taken in zip(variables, _start(program, hint), strict=True):
                variable.setInitialValue(taken)
        left = None
        if limits.seconds is not None:
            left = max(_LEAST_SECONDS, limits.seconds - (time.perf_counter() - start))
        with tempfile.TemporaryDirectory(prefix="powercap-") as folder:
            task = _Task(
                problem=problem,
                relative_gap=limits.relative_gap,
                absolute_gap=limits.absolute_gap * scale,
                seconds=left,
                has_start=hint is not None,
                folder=Path(folder),
            )
            begin = time.perf_counter()
            try:
                result = run(task)
            except (pulp.PulpSolverError, OSError, ValueError) as error:
                raise SolverError(f"PuLP failed: {error}") from error
            is_cut = left is not None and time.perf_counter() - begin >= _NEARLY * left
        values = np.array([variable.value() for variable in variables], dtype=float)
        end = _end(problem, values, result, is_cut=is_cut)
        return _answer(end, result, values, model, program, scale)

    return solve


class _End(enum.Enum):
    OPTIMAL = enum.auto()
    FEASIBLE = enum.auto()
    INFEASIBLE = enum.auto()
    UNKNOWN = enum.auto()


def _end(problem: pulp.LpProblem, values: FloatArray, run: _Run, *, is_cut: bool) -> _End:
    """Tell how a solver ended; ``is_cut`` says that its time was up by then."""
    status = problem.sol_status
    if status == pulp.LpSolutionUnbounded:
        raise SolverError(f"{run.method} calls a bounded program unbounded")
    # CBC's "Integer infeasible" reaches the first status only.
    if pulp.LpStatusInfeasible in (problem.status, status):
        # Out of time, CBC may also say so of a linear program it has not finished.
        return _End.UNKNOWN if is_cut else _End.INFEASIBLE
    if status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        return _End.UNKNOWN
    if np.isnan(values).any():
        return _End.UNKNOWN
    # Out of time after the first linear program, CBC calls that one's fractions "Optimal".
    is_searched = run.is_searched or not is_cut
    return _End.OPTIMAL if status == pulp.LpSolutionOptimal and is_searched else _End.FEASIBLE


def _answer(
    end: _End,
    run: _Run,
    values: FloatArray,
    model: ChoiceModel,
    program: Assembled,
    scale: float,
) -> ChoiceAnswer:
    if end is _End.INFEASIBLE:
        return ChoiceAnswer(
            choice=None, bound=-math.inf, method=run.method, stopped_by=StoppedBy.PROOF
        )
    gain = min(_best_gains(program), -run.log_bound / scale)
    if end is _End.UNKNOWN:
        return ChoiceAnswer(
            choice=None,
            bound=program.offset + gain,
            method=run.method,
            stopped_by=StoppedBy.DEADLINE,
        )
    found = float(program.objective @ values)
    if end is _End.OPTIMAL and run.lost_at_most is not None:
        gain = min(gain, found + run.lost_at_most(abs(found) * scale) / scale)
    choice = program.choice_of(values, (model.allowed.shape[0], model.allowed.shape[1]))
    return ChoiceAnswer(
        choice=choice,
        bound=max(program.offset + gain, model.worth(choice)),
        method=run.method,
        stopped_by=StoppedBy.PROOF if end is _End.OPTIMAL else StoppedBy.DEADLINE,
    )


def _best_gains(program: Assembled) -> float:
    """Sum of the groups' best gains: no choice gains more."""
    best = np.zeros(int(program.groups.max(initial=-1)) + 1)
    np.maximum.at(best, program.groups, program.objective[: program.binaries])
    return math.fsum(best)


def _start(program: Assembled, hint: IntArray) -> FloatArray:
    """float64[column]: ``hint``, with the continuous columns as high as it needs them."""
    start = np.zeros(len(program.objective))
    start[: program.binaries] = program.binaries_of(hint)
    # A row ties one continuous column, by -1 at most or by +1 at least.
    needed = program.matrix @ start
    rows, columns = program.matrix.nonzero()
    is_own = columns >= program.binaries
    excess = np.maximum(needed - program.upper, program.lower - needed)
    np.maximum.at(start, columns[is_own], excess[rows[is_own]])
    return start


def _problem(program: Assembled, scale: float) -> tuple[pulp.LpProblem, list[pulp.LpVariable]]:
    """Write the program down in PuLP, which has no array interface."""
    problem = pulp.LpProblem("choice", pulp.LpMinimize)
    binary, columns = program.binaries, len(program.objective)
    # Names sort like columns, so that files do not depend on their number.
    variables = [
        problem.add_variable(f"x{column:08d}", 0, 1, pulp.LpBinary) for column in range(binary)
    ] + [problem.add_variable(f"x{column:08d}", 0) for column in range(binary, columns)]
    costs = -scale * program.objective
    problem.setObjective(
        pulp.LpAffineExpression(
            [(variables[column], float(costs[column])) for column in np.flatnonzero(costs)]
        )
    )
    matrix = program.matrix
    for row, (lower, upper) in enumerate(
        zip(program.lower.tolist(), program.upper.tolist(), strict=True)
    ):
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        terms = [
            (variables[column], coefficient)
            for column, coefficient in zip(
                matrix.indices[part].tolist(), matrix.data[part].tolist(), strict=True
            )
        ]
        if lower == upper:
            problem.addConstraint(pulp.LpAffineExpression(terms) == upper)
            continue
        # PuLP has no rows with two limits.
        if math.isfinite(upper):
            problem.addConstraint(pulp.LpAffineExpression(terms) <= upper)
        if math.isfinite(lower):
            problem.addConstraint(pulp.LpAffineExpression(terms) >= lower)
    return problem, variables


def _run_cbc(task: _Task) -> _Run:
    return _run_cbc_with(task, [])


def _run_cbc_unprocessed(task: _Task) -> _Run:
    return _run_cbc_with(task, ["preprocess off"])


def _run_cbc_with(task: _Task, options: list[str]) -> _Run:
    log = task.folder / "cbc.log"
    solver = pulp.COIN_CMD(
        path=cbcbox.cbc_bin_path(),
        msg=False,
        gapRel=task.relative_gap,
        gapAbs=task.absolute_gap,
        timeLimit=task.seconds,
        threads=1,
        warmStart=task.has_start,
        logPath=str(log),
        options=[
            *options,
            f"primalTolerance {_CBC_TOLERANCE}",
            f"dualTolerance {_CBC_TOLERANCE}",
            f"integerTolerance {_CBC_TOLERANCE}",
            f"increment {_CBC_INCREMENT}",
        ],
    )
    solver.tmpDir = str(task.folder)
    task.problem.solve(solver)
    logged = log.read_text(encoding="utf-8", errors="replace")
    return _Run(
        method="cbc",
        lost_at_most=_within(
            task.relative_gap, task.absolute_gap + _CBC_INCREMENT + _CBC_TOLERANCE
        ),
        log_bound=_logged_bound(logged),
        is_searched="\nResult - Optimal" in logged,
    )


def _run_other(name: str, task: _Task) -> _Run:
    accepted = inspect.signature(type(pulp.getSolver(name, msg=False)).__init__).parameters
    asked: Mapping[str, Any] = {
        "gapRel": task.relative_gap,
        "gapAbs": task.absolute_gap,
        "timeLimit": task.seconds,
        "threads": 1,
        "warmStart": task.has_start,
    }
    given = {key: value for key, value in asked.items() if key in accepted}
    _LOGGER.debug("%s takes %s from PuLP", name, sorted(given))
    solver = pulp.getSolver(name, msg=False, **given)
    if isinstance(solver, pulp.LpSolver_CMD):
        solver.tmpDir = str(task.folder)
    task.problem.solve(solver)
    absolute = task.absolute_gap + _ABSOLUTE_GAP_OF_OTHERS
    return _Run(
        method=name.lower(),
        lost_at_most=_within(task.relative_gap, absolute) if "gapRel" in given else None,
    )


def _within(relative: float, absolute: float) -> Callable[[float], float]:
    """From |o| to the most by which the bound may exceed o; see the module's docstring."""
    return lambda found: relative * found / (1 - relative) + absolute


_LOGGED_BOUND = re.compile(r"^Lower bound:\s+(-?\d+(?:\.(\d*))?(?:e([+-]\d+))?)\s*$", re.MULTILINE)


def _logged_bound(log: str) -> float:
    """Bound that CBC prints at its end, less half a unit of the last printed digit."""
    found = _LOGGED_BOUND.search(log)
    if found is None:
        return -math.inf
    value, decimals, exponent = found.groups()
    unit = 10.0 ** (int(exponent or 0) - len(decimals or ""))
    return float(value) - 0.5 * unit
