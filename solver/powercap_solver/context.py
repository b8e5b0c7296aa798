"""What the stages share: the tables, the settings, the time left and the method."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from powercap_solver.arrays import IntArray
from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, ChoiceSolver, SolveLimits
from powercap_solver.errors import SolverError
from powercap_solver.measures import Measures
from powercap_solver.plan import StageResult, StoppedBy
from powercap_solver.separate import best_without_rows, solve_model
from powercap_solver.settings import SolveSettings
from powercap_solver.warm import WarmStart

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
    warm: WarmStart | None = None

    def maximise(
        self,
        model: ChoiceModel,
        *,
        absolute_gap: float = 0.0,
        relative_gap: float | None = None,
        core_groups: int | None = None,
    ) -> ChoiceAnswer:
        """Solve ``model`` in the time left; the hint is the answer when nothing better came.

        Args:
            model: What to solve.
            absolute_gap: In the unit of the value; either gap is enough.
            relative_gap: In place of that of the settings.
            core_groups: Most groups of a core worth an exact search; None for no limit.

        Raises:
            SolverError: when the back end fails.
        """
        limits = SolveLimits(
            relative_gap=self.settings.relative_gap if relative_gap is None else relative_gap,
            seconds=self.stopwatch.left(),
            absolute_gap=absolute_gap,
            core_groups=core_groups,
        )
        if limits.seconds is not None and limits.seconds <= 0:
            return _unsolved(model)
        answer = solve_model(model, limits, self.solver)
        if answer.choice is None and answer.stopped_by is StoppedBy.PROOF:
            return answer
        if model.hint is None:
            return answer
        if answer.choice is None or model.worth(model.hint) > model.worth(answer.choice):
            # A hint may be a choice to repair, one that keeps no row.
            if not model.holds(model.hint):
                return answer
            answer = replace(
                answer,
                choice=model.hint,
                bound=max(answer.bound, model.worth(model.hint)),
            )
        return answer


def _unsolved(model: ChoiceModel) -> ChoiceAnswer:
    """What is known without solving: the hint, and the value with no row at all."""
    hint = model.hint
    return ChoiceAnswer(
        choice=hint if hint is not None and model.holds(hint) else None,
        bound=best_without_rows(model)[1],
        method="none",
        stopped_by=StoppedBy.DEADLINE,
    )


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
