"""The stages in their order, each kept by the next.

1 floors, 2 served, 3 throughput per weighted watt, 4 least change, 5 give back; the mathematics
is in ``docs/mathematics.md`` and at the head of each stage's module.
"""

from __future__ import annotations

from dataclasses import dataclass

from powercap_solver.compact.model import ChoiceModel
from powercap_solver.context import Context, Stage, stage_result
from powercap_solver.dominance import undominated
from powercap_solver.errors import SolverError
from powercap_solver.floors import Kept, solve_floors
from powercap_solver.fractional import maximise_ratio
from powercap_solver.giveback import give_back
from powercap_solver.greedy import greedy_served
from powercap_solver.problem import IntArray
from powercap_solver.settings import Objective
from powercap_solver.stability import least_change


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """All stages that were run, and what they had to keep."""

    stages: tuple[Stage, ...]
    kept: Kept

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
    served = maximise_served(context, kept, floors)
    stages = [floors, served]
    if context.settings.objective is Objective.THROUGHPUT_PER_WATT:
        efficient = maximise_ratio(context, kept, served)
        if efficient is not None:
            stages.append(efficient)
    steady = least_change(context, kept, stages[-1], served)
    if steady is not None:
        stages.append(steady)
    stages.append(give_back(context, stages[-1]))
    return Outcome(stages=tuple(stages), kept=kept)


def maximise_served(context: Context, kept: Kept, floors: Stage) -> Stage:
    """Stage 2: maximise S over what keeps caps and floors.

    Raises:
        SolverError: when the back end fails.
    """
    measures, watch = context.measures, context.stopwatch
    begun = watch.seconds()
    costs = [-measures.value, *measures.upper]
    if kept.floor_rows:
        costs.append(measures.shortfall)
    candidates = undominated(kept.allowed, costs)
    model = ChoiceModel(
        value=measures.value,
        allowed=candidates,
        rows=kept.rows,
        hint=greedy_served(measures, floors.choice),
    )
    answer = context.maximise(model)
    if answer.choice is None:
        raise SolverError("stage served found nothing although stage floors has a plan")
    result = stage_result(
        name="served",
        objective=measures.total_value(answer.choice),
        bound=answer.bound,
        method=answer.method,
        seconds=watch.seconds() - begun,
        stopped_by=answer.stopped_by,
    )
    return Stage(result=result, choice=answer.choice)
