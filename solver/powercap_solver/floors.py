"""Stage 1: floors hold, or yield to the caps by priority, least important first.

For each priority class from the highest down, the sum of its shortfalls is minimised with the
classes above kept at their minimum. What no option of a deployment can meet is no choice: only
the shortfall above that counts as yielding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.chains import best_paths
from powercap_solver.compact.model import ChoiceModel, Row, cheapest
from powercap_solver.context import Context, Stage, stage_result
from powercap_solver.errors import SolverError
from powercap_solver.measures import FLOOR_TOLERANCE, Measures
from powercap_solver.plan import StoppedBy, YieldedFloor

_NO_SHORTFALL = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kept:
    """What later stages must keep: options and rows, caps and floors included."""

    allowed: BoolArray
    rows: tuple[Row, ...]
    floor_rows: int
    """How many of the last rows are about floors."""


def solve_floors(context: Context) -> tuple[Stage, Kept] | None:
    """Minimise shortfalls by class; None when the caps cannot hold together.

    Raises:
        SolverError: when the back end fails, or time is out before any plan was found.
    """
    measures, watch = context.measures, context.stopwatch
    begun = watch.seconds()
    kept = Kept(allowed=measures.allowed, rows=measures.rows, floor_rows=0)
    meets_all = measures.allowed
    if measures.has_floors:
        meets_all = meets_all & (measures.shortfall <= 0)
    if meets_all.any(axis=1).all():
        easy = _easy(context, meets_all)
        if easy is not None and measures.hold(easy):
            return _floors_stage(context, easy, 0.0, "separable", begun), replace(
                kept, allowed=meets_all
            )
    choice = lowest_choice(measures)
    choice_holds = measures.hold(choice)
    bound, methods, stopped_by = 0.0, set[str](), StoppedBy.PROOF
    for level in sorted(set(measures.priority.tolist()), reverse=True):
        in_class = (measures.priority == level)[:, None]
        shortfall = np.where(in_class, measures.shortfall, 0.0)
        least = np.min(np.where(kept.allowed, shortfall, np.inf), axis=1)
        excess = shortfall - least[:, None]
        model = ChoiceModel(
            value=-excess,
            allowed=kept.allowed,
            rows=kept.rows,
            hint=choice if choice_holds else None,
            links=measures.ramps,
        )
        answer = context.maximise(model)
        if answer.choice is None:
            if answer.stopped_by is StoppedBy.PROOF:
                return None
            raise SolverError(f"no plan within {context.settings.deadline_seconds} s")
        choice, choice_holds = answer.choice, True
        methods.add(answer.method)
        if answer.stopped_by is not StoppedBy.PROOF:
            stopped_by = answer.stopped_by
        bound += math.fsum(least) + max(0.0, -answer.bound)
        kept = _keep(kept, excess, in_class, -model.worth(choice), context.settings.stage_tolerance)
    method = "+".join(sorted(methods - {"separable"})) or "separable"
    return _floors_stage(context, choice, bound, method, begun, stopped_by), kept


def _easy(context: Context, meets_all: BoolArray) -> IntArray | None:
    """A choice that keeps all floors and, likely, all rows: the last plan's, or the least draw."""
    measures = context.measures
    if context.warm is not None:
        last = context.warm.served_choice.ravel()
        if measures.pick(meets_all, last).all() and measures.hold(last):
            return last
    if measures.ramps is None:
        return cheapest(measures.charge, -measures.value, meets_all)
    return best_paths(-measures.charge, meets_all, measures.ramps).choice


def _keep(
    kept: Kept, excess: FloatArray, in_class: BoolArray, reached: float, tolerance: float
) -> Kept:
    if reached <= _NO_SHORTFALL:
        return replace(kept, allowed=kept.allowed & (excess <= _NO_SHORTFALL))
    groups = np.nonzero(in_class[:, 0])[0]
    row = Row(
        groups=groups,
        kind="floor",
        coefficient=np.maximum(excess[groups], 0.0),
        limit=reached,
        slack=max(reached, 1.0) * tolerance,
    )
    return replace(kept, rows=(*kept.rows, row), floor_rows=kept.floor_rows + 1)


def _floors_stage(
    context: Context,
    choice: IntArray,
    bound: float,
    method: str,
    begun: float,
    stopped_by: StoppedBy = StoppedBy.PROOF,
) -> Stage:
    objective = math.fsum(context.measures.pick(context.measures.shortfall, choice))
    result = stage_result(
        name="floors",
        objective=objective,
        # The bound is summed class by class: do not let rounding put it above the objective.
        bound=min(bound, objective),
        method=method,
        seconds=context.stopwatch.seconds() - begun,
        stopped_by=stopped_by,
    )
    return Stage(result=result, choice=choice)


def lowest_choice(measures: Measures) -> IntArray:
    """int64[group]: the lowest upper draw of each group, summed over its domains."""
    return cheapest(measures.charge, -measures.value, measures.allowed)


def yielded_floors(measures: Measures, choice: IntArray) -> tuple[YieldedFloor, ...]:
    """Name every floor that ``choice`` (int64[group]) misses."""
    problem = measures.problem
    periods = measures.shape[1]
    missing = np.nonzero(measures.pick(measures.shortfall, choice) > 0)[0]
    found = []
    for group in missing.tolist():
        deployment, period = divmod(group, periods)
        name = problem.deployments[deployment]
        replicas = int(measures.replicas[group, choice[group]])
        served = float(measures.served[group, choice[group]])
        wanted = int(problem.min_replicas[deployment])
        floor = float(
            problem.min_served_fraction[deployment] * problem.load_tps[deployment, period]
        )
        if replicas < wanted:
            found.append(
                YieldedFloor(
                    deployment=name,
                    period=period,
                    kind="min_replicas",
                    required=float(wanted),
                    planned=float(replicas),
                )
            )
        if floor - served > FLOOR_TOLERANCE * floor:
            found.append(
                YieldedFloor(
                    deployment=name,
                    period=period,
                    kind="min_served_fraction",
                    required=float(problem.min_served_fraction[deployment]),
                    planned=served / float(problem.load_tps[deployment, period]),
                )
            )
    return tuple(found)
