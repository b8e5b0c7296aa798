"""The stages in their order, each kept by the next.

1 floors, 2 served, 3 throughput per weighted watt, 4 least change, 5 give back; the mathematics
is in ``docs/mathematics.md`` and at the head of each stage's module.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.compact.model import ChoiceModel
from powercap_solver.context import Context, Stage, stage_result
from powercap_solver.errors import SolverError
from powercap_solver.floors import Kept, solve_floors
from powercap_solver.fractional import maximise_ratio
from powercap_solver.giveback import give_back
from powercap_solver.plan import StoppedBy
from powercap_solver.settings import LastStage, Objective
from powercap_solver.stability import least_change


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """All stages that were run, and what they had to keep."""

    stages: tuple[Stage, ...]
    kept: Kept
    row_prices: FloatArray
    """float64[row]: stage-2 prices of the hard rows; empty when not known."""

    @property
    def choice(self) -> IntArray:
        """int64[group]: the last stage's choice."""
        return self.stages[-1].choice


def solve_stages(context: Context) -> Outcome | None:
    """Run every stage; None when the caps cannot hold together.

    Raises:
        SolverError: when the back end fails, or time is out before any plan was found.
    """
    first = solve_floors(context)
    if first is None:
        return None
    floors, kept = first
    served, prices = maximise_served(context, kept, floors)
    stages = [floors, served]
    if context.settings.last_stage is LastStage.SERVED:
        return Outcome(stages=tuple(stages), kept=kept, row_prices=prices)
    if context.settings.objective is Objective.THROUGHPUT_PER_WATT:
        efficient = maximise_ratio(context, kept, served)
        if efficient is not None:
            stages.append(efficient)
    steady = least_change(context, kept, stages[-1], served)
    if steady is not None:
        stages.append(steady)
    stages.append(give_back(context, stages[-1]))
    return Outcome(stages=tuple(stages), kept=kept, row_prices=prices)


def maximise_served(context: Context, kept: Kept, floors: Stage) -> tuple[Stage, FloatArray]:
    """Stage 2: maximise what is served, or is worth most, over what keeps caps and floors.

    Returns:
        The stage, and the prices of the hard rows (float64[row], empty when not known).

    Raises:
        SolverError: when the back end fails.
    """
    measures, watch = context.measures, context.stopwatch
    begun = watch.seconds()
    model = ChoiceModel(
        value=measures.worth,
        allowed=kept.allowed,
        rows=kept.rows,
        links=measures.links,
        hint=_start(context, kept, floors),
        prices=_start_prices(context, kept),
    )
    answer = context.maximise(model)
    if answer.choice is None and answer.stopped_by is StoppedBy.PROOF:
        raise SolverError("stage served found nothing although stage floors has a plan")
    choice = floors.choice if answer.choice is None else answer.choice
    result = stage_result(
        name="served",
        objective=measures.total_worth(choice),
        bound=max(answer.bound, measures.total_worth(choice)),
        method=answer.method,
        seconds=watch.seconds() - begun,
        stopped_by=answer.stopped_by,
    )
    prices = np.zeros(0) if answer.prices is None else answer.prices[: len(measures.rows)]
    return Stage(result=result, choice=choice), prices


def _start(context: Context, kept: Kept, floors: Stage) -> IntArray:
    """int64[group]: the choice of the last plan, to be repaired; else that of the floors."""
    if context.warm is not None:
        choice = context.warm.served_choice.ravel()
        if kept.allowed[np.arange(len(choice)), choice].all():
            return choice
    return floors.choice


def _start_prices(context: Context, kept: Kept) -> FloatArray | None:
    if context.warm is None or context.warm.row_prices is None or kept.floor_rows:
        return None
    return context.warm.row_prices
