"""What the stages share: the tables, the settings, the time left and the back end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from powercap_solver.compact.model import (
    ChoiceAnswer,
    ChoiceModel,
    ChoiceSolver,
    SolveLimits,
    solve_model,
)
from powercap_solver.errors import SolverError
from powercap_solver.measures import Measures
from powercap_solver.plan import StageResult, StoppedBy
from powercap_solver.problem import IntArray
from powercap_solver.settings import SolveSettings

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Stopwatch:
    """Elapsed and remaining time by a monotonic clock."""

    clock: Callable[[], float]
    deadline_seconds: float | None
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def seconds(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    def left(self) -> float | None:
        """Seconds to the deadline, at least 0; None without one."""
        if self.deadline_seconds is None:
            return None
        return max(0.0, self.deadline_seconds - self.seconds())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Context:
    """One solve."""

    measures: Measures
    settings: SolveSettings
    stopwatch: Stopwatch
    solver: ChoiceSolver

    def maximise(
        self,
        model: ChoiceModel,
        *,
        absolute_gap: float = 0.0,
        relative_gap: float | None = None,
    ) -> ChoiceAnswer:
        """Solve ``model`` in the time left; the hint is the answer when nothing better came.

        Args:
            model: What to solve.
            absolute_gap: In the unit of the value; either gap is enough.
            relative_gap: In place of that of the settings.

        Raises:
            SolverError: when the back end fails.
        """
        limits = SolveLimits(
            relative_gap=self.settings.relative_gap if relative_gap is None else relative_gap,
            seconds=self.stopwatch.left(),
            absolute_gap=absolute_gap,
        )
        if limits.seconds is not None and limits.seconds <= 0:
            return _unsolved(model)
        answer = solve_model(model, limits, self.solver)
        if answer.choice is None and answer.stopped_by is StoppedBy.PROOF:
            return answer
        if model.hint is None:
            return answer
        if answer.choice is None or model.worth(model.hint) > model.worth(answer.choice):
            # A hint keeps the rows; it may be an option that dominance has removed.
            if not all(row.holds(model.hint) for row in model.rows):
                return answer
            answer = ChoiceAnswer(
                choice=model.hint,
                bound=max(answer.bound, model.worth(model.hint)),
                method=answer.method,
                stopped_by=answer.stopped_by,
            )
        return answer


def _unsolved(model: ChoiceModel) -> ChoiceAnswer:
    """What is known without solving: the hint, and the value with no row at all."""
    free = ChoiceModel(value=model.value, allowed=model.allowed, rows=())
    limits = SolveLimits(relative_gap=0.0, seconds=None)
    bound = solve_model(free, limits, _refuse).bound
    return ChoiceAnswer(
        choice=model.hint, bound=bound, method="none", stopped_by=StoppedBy.DEADLINE
    )


def _refuse(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
    raise SolverError("a model without rows needs no back end")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """The result of a stage with the choice that has it."""

    result: StageResult
    choice: IntArray
    """int64[group]."""


def relative_gap(objective: float, bound: float) -> float:
    """``|bound - objective| / max(|objective|, 1e-9)``, as every stage states it."""
    return abs(bound - objective) / max(abs(objective), 1e-9)


def stage_result(
    *,
    name: str,
    objective: float,
    bound: float,
    method: str,
    seconds: float,
    stopped_by: StoppedBy,
    kept_within: float = 0.0,
) -> StageResult:
    """Make a stage's result, with its gap.

    Raises:
        SolverError: when a number is not finite.
    """
    if not (math.isfinite(objective) and math.isfinite(bound)):
        raise SolverError(f"stage {name} has objective {objective} and bound {bound}")
    gap = relative_gap(objective, bound)
    _LOGGER.debug("stage %s: objective %r, bound %r, by %s", name, objective, bound, method)
    return StageResult(
        name=name,
        objective=objective,
        bound=bound,
        gap=gap,
        method=method,
        seconds=seconds,
        stopped_by=stopped_by,
        kept_within=kept_within,
    )
