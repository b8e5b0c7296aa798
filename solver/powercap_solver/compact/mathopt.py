"""The choice model in OR-Tools MathOpt, with HiGHS or SCIP.

Values and rows are scaled to about 1 before they reach the back end, so that its absolute
tolerances mean the same for watts and megawatts. What comes back is rounded to one option per
group and checked in float64; a row that rounding broke is tightened and solved again.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import sys
import threading
from collections.abc import Iterator

import numpy as np
from ortools.math_opt import model_pb2
from ortools.math_opt.python import mathopt

from powercap_solver.arrays import FloatArray
from powercap_solver.compact.assembled import Assembled, assemble, folded, without_dominated
from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, ChoiceSolver, SolveLimits
from powercap_solver.compact.rounded import checked_solver
from powercap_solver.errors import SolverError
from powercap_solver.plan import StoppedBy
from powercap_solver.settings import Method

FEASIBILITY_TOLERANCE = 1e-9
"""Absolute, on rows scaled to 1: at most a share of 1e-9 of a cap."""
_VALUE_SCALE = 1e3
"""The sum of the groups' best values after scaling: keeps 1e-9 tolerances of reduced costs
well below a relative gap of 1e-9."""
_STDOUT_LOCK = threading.Lock()


def mathopt_solver(backend: Method) -> ChoiceSolver:
    """Return the back end as a function of model and limits."""

    def solve(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
        return _solve_once(model, limits, backend)

    return checked_solver(solve, backend.value)


def _solve_once(model: ChoiceModel, limits: SolveLimits, backend: Method) -> ChoiceAnswer:
    reduced = folded(without_dominated(model))
    program = assemble(reduced, forgive=FEASIBILITY_TOLERANCE)
    spread = float(program.objective[program.objective > 0].sum())
    scale = _VALUE_SCALE / spread if spread > 0 else 1.0
    math_model = mathopt.Model.from_model_proto(_proto(program, scale))
    hints = [] if model.hint is None else [_hint(math_model, program.binaries_of(model.hint))]
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
    return _answer(result, model, program, backend, scale)


def _answer(
    result: mathopt.SolveResult,
    model: ChoiceModel,
    program: Assembled,
    backend: Method,
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
    bound = program.offset + result.termination.objective_bounds.dual_bound / scale
    stopped_by = (
        StoppedBy.PROOF if reason == mathopt.TerminationReason.OPTIMAL else StoppedBy.DEADLINE
    )
    if not result.solutions:
        return ChoiceAnswer(choice=None, bound=bound, method=backend.value, stopped_by=stopped_by)
    values = np.fromiter(result.variable_values().values(), dtype=float)
    choice = program.choice_of(values, (model.allowed.shape[0], model.allowed.shape[1]))
    # A back end's bound may lie below its own solution by its rounding: never claim that.
    bound = max(bound, model.worth(choice))
    return ChoiceAnswer(choice=choice, bound=bound, method=backend.value, stopped_by=stopped_by)


def _proto(program: Assembled, scale: float) -> model_pb2.ModelProto:
    proto = model_pb2.ModelProto()
    count = len(program.objective)
    extra = count - program.binaries
    proto.variables.ids.extend(range(count))
    proto.variables.lower_bounds.extend([0.0] * count)
    proto.variables.upper_bounds.extend([1.0] * program.binaries + [math.inf] * extra)
    proto.variables.integers.extend([True] * program.binaries + [False] * extra)
    proto.objective.maximize = True
    nonzero = np.nonzero(program.objective)[0]
    proto.objective.linear_coefficients.ids.extend(nonzero.tolist())
    proto.objective.linear_coefficients.values.extend((program.objective[nonzero] * scale).tolist())
    constraints = proto.linear_constraints
    constraints.ids.extend(range(len(program.lower)))
    constraints.lower_bounds.extend(program.lower.tolist())
    constraints.upper_bounds.extend(program.upper.tolist())
    matrix = program.matrix
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    proto.linear_constraint_matrix.row_ids.extend(rows.tolist())
    proto.linear_constraint_matrix.column_ids.extend(matrix.indices.tolist())
    proto.linear_constraint_matrix.coefficients.extend(matrix.data.tolist())
    return proto


def _hint(math_model: mathopt.Model, binaries: FloatArray) -> mathopt.SolutionHint:
    variables = list(math_model.variables())[: len(binaries)]
    values = dict(zip(variables, binaries.tolist(), strict=True))
    return mathopt.SolutionHint(variable_values=values)


def _parameters(backend: Method, limits: SolveLimits, scale: float) -> mathopt.SolveParameters:
    parameters = mathopt.SolveParameters(
        relative_gap_tolerance=limits.relative_gap,
        absolute_gap_tolerance=limits.absolute_gap * scale,
        random_seed=0,
    )
    if limits.seconds is not None:
        parameters.time_limit = datetime.timedelta(seconds=max(limits.seconds, 1e-3))
    if backend is Method.HIGHS:
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
    Method.HIGHS: mathopt.SolverType.HIGHS,
    Method.SCIP: mathopt.SolverType.GSCIP,
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
