"""The choice model in OR-Tools MathOpt, with HiGHS or SCIP.

Values and rows are scaled to about 1 before they reach the back end, so that its absolute
tolerances mean the same for watts and megawatts. What comes back is rounded to one option per
group and checked in float64; a row that rounding broke is tightened and solved again.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from ortools.math_opt import model_pb2
from ortools.math_opt.python import mathopt

from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, ChoiceSolver, SolveLimits
from powercap_solver.errors import SolverError
from powercap_solver.plan import StoppedBy
from powercap_solver.problem import IntArray
from powercap_solver.settings import Backend

_LOGGER = logging.getLogger(__name__)

FEASIBILITY_TOLERANCE = 1e-9
"""Absolute, on rows scaled to 1: at most a share of 1e-9 of a cap."""
_VALUE_SCALE = 1e3
"""The sum of the groups' best values after scaling: keeps 1e-9 tolerances of reduced costs
well below a relative gap of 1e-9."""
_TIGHTENINGS = 3
_STDOUT_LOCK = threading.Lock()


def mathopt_solver(backend: Backend) -> ChoiceSolver:
    """Return the back end as a function of model and limits."""

    def solve(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
        tightened = model
        for _ in range(_TIGHTENINGS):
            answer = _solve_once(tightened, limits, backend)
            if answer.choice is None or model.holds(answer.choice):
                return answer
            tightened = _tighten(tightened, answer.choice)
        raise SolverError(f"{backend} keeps breaking a row by more than its tolerance")

    return solve


def _tighten(model: ChoiceModel, choice: IntArray) -> ChoiceModel:
    rows = tuple(
        row if row.holds(choice) else replace(row, limit=row.limit - 2 * row.slack)
        for row in model.rows
    )
    _LOGGER.debug("a rounded choice broke a row; solving again with tighter rows")
    return replace(model, rows=rows)


def _solve_once(model: ChoiceModel, limits: SolveLimits, backend: Backend) -> ChoiceAnswer:
    groups, options = np.nonzero(model.allowed)
    variable = np.full(model.allowed.shape, -1, dtype=np.int64)
    variable[groups, options] = np.arange(len(groups))
    low = np.min(np.where(model.allowed, model.value, np.inf), axis=1)
    high = np.max(np.where(model.allowed, model.value, -np.inf), axis=1)
    # Values enter as gains over each group's least: a common offset would hide small gaps.
    spread = float((high - low).sum())
    scale = _VALUE_SCALE / spread if spread > 0 else 1.0
    gain = (model.value - low[:, None])[groups, options] * scale
    proto = _proto(model, groups, gain, variable)
    math_model = mathopt.Model.from_model_proto(proto)
    hints = _hints(math_model, model, variable)
    with _c_stdout_dropped():
        try:
            result = mathopt.solve(
                math_model,
                _SOLVER_TYPE[backend],
                params=_parameters(backend, limits, scale),
                model_params=mathopt.ModelSolveParameters(solution_hints=hints),
            )
        # A refused parameter surfaces as an AttributeError in OR-Tools 9.15.
        except (RuntimeError, ValueError, AttributeError) as error:
            raise SolverError(f"{backend} failed: {error}") from error
    return _answer(result, model, groups, options, backend, math.fsum(low), scale)


def _answer(
    result: mathopt.SolveResult,
    model: ChoiceModel,
    groups: IntArray,
    options: IntArray,
    backend: Backend,
    offset: float,
    scale: float,
) -> ChoiceAnswer:
    reason = result.termination.reason
    if reason in (
        mathopt.TerminationReason.INFEASIBLE,
        mathopt.TerminationReason.INFEASIBLE_OR_UNBOUNDED,
    ):
        return ChoiceAnswer(
            choice=None, bound=-math.inf, method=backend.value, stopped_by=StoppedBy.PROOF
        )
    if reason not in (
        mathopt.TerminationReason.OPTIMAL,
        mathopt.TerminationReason.FEASIBLE,
        mathopt.TerminationReason.NO_SOLUTION_FOUND,
    ):
        raise SolverError(f"{backend} ended with {reason}: {result.termination.detail}")
    bound = offset + result.termination.objective_bounds.dual_bound / scale
    stopped_by = (
        StoppedBy.PROOF if reason == mathopt.TerminationReason.OPTIMAL else StoppedBy.DEADLINE
    )
    if not result.solutions:
        return ChoiceAnswer(choice=None, bound=bound, method=backend.value, stopped_by=stopped_by)
    values = np.fromiter(result.variable_values().values(), dtype=float)
    weight = np.zeros(model.allowed.shape)
    weight[groups, options] = values
    choice = np.argmax(weight, axis=1).astype(np.int64)
    # A back end's bound may lie below its own solution by its rounding: never claim that.
    bound = max(bound, model.worth(choice))
    return ChoiceAnswer(choice=choice, bound=bound, method=backend.value, stopped_by=stopped_by)


def _proto(
    model: ChoiceModel, groups: IntArray, gain: np.ndarray, variable: IntArray
) -> model_pb2.ModelProto:
    proto = model_pb2.ModelProto()
    count, group_count = len(groups), model.allowed.shape[0]
    proto.variables.ids.extend(range(count))
    proto.variables.lower_bounds.extend([0.0] * count)
    proto.variables.upper_bounds.extend([1.0] * count)
    proto.variables.integers.extend([True] * count)
    proto.objective.maximize = True
    nonzero = np.nonzero(gain)[0]
    proto.objective.linear_coefficients.ids.extend(nonzero.tolist())
    proto.objective.linear_coefficients.values.extend(gain[nonzero].tolist())

    constraints = proto.linear_constraints
    constraints.ids.extend(range(group_count + len(model.rows)))
    constraints.lower_bounds.extend([1.0] * group_count + [-math.inf] * len(model.rows))
    constraints.upper_bounds.extend([1.0] * group_count)
    matrix = proto.linear_constraint_matrix
    matrix.row_ids.extend(groups.tolist())
    matrix.column_ids.extend(range(count))
    matrix.coefficients.extend([1.0] * count)
    for index, row in enumerate(model.rows):
        columns = variable[row.groups]
        used = (columns >= 0) & (row.coefficient != 0)
        coefficient = row.coefficient[used]
        scale = max(abs(row.limit), float(np.abs(coefficient).max(initial=0.0))) or 1.0
        # The slack is what `holds` forgives; the back end may use up its own tolerance of it.
        limit = (row.limit + max(0.0, row.slack - FEASIBILITY_TOLERANCE * scale)) / scale
        constraints.upper_bounds.append(limit)
        chosen = columns[used]
        order = np.argsort(chosen)
        matrix.row_ids.extend([group_count + index] * len(chosen))
        matrix.column_ids.extend(chosen[order].tolist())
        matrix.coefficients.extend((coefficient[order] / scale).tolist())
    return proto


def _hints(
    math_model: mathopt.Model, model: ChoiceModel, variable: IntArray
) -> list[mathopt.SolutionHint]:
    if model.hint is None:
        return []
    chosen = variable[np.arange(len(model.hint)), model.hint]
    picked = set(chosen[chosen >= 0].tolist())
    values = {item: float(item.id in picked) for item in math_model.variables()}
    return [mathopt.SolutionHint(variable_values=values)]


def _parameters(backend: Backend, limits: SolveLimits, scale: float) -> mathopt.SolveParameters:
    parameters = mathopt.SolveParameters(
        relative_gap_tolerance=limits.relative_gap,
        absolute_gap_tolerance=limits.absolute_gap * scale,
        random_seed=0,
    )
    if limits.seconds is not None:
        parameters.time_limit = datetime.timedelta(seconds=max(limits.seconds, 1e-3))
    if backend is Backend.HIGHS:
        for name in (
            "mip_feasibility_tolerance",
            "primal_feasibility_tolerance",
            "dual_feasibility_tolerance",
        ):
            parameters.highs.double_options[name] = FEASIBILITY_TOLERANCE
        # HiGHS ignores SolveParameters.threads.
        parameters.highs.int_options["threads"] = 1
    else:
        parameters.threads = 1
        parameters.gscip.real_params["numerics/feastol"] = FEASIBILITY_TOLERANCE
    return parameters


_SOLVER_TYPE = {
    Backend.HIGHS: mathopt.SolverType.HIGHS,
    Backend.SCIP: mathopt.SolverType.GSCIP,
}


@contextlib.contextmanager
def _c_stdout_dropped() -> Iterator[None]:
    """Drop what C code writes to stdout: HiGHS does so even when told to be quiet."""
    with _STDOUT_LOCK:
        sys.stdout.flush()
        try:
            kept = os.dup(1)
        except OSError:
            # No standard output at all: nothing to protect.
            yield
            return
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)
