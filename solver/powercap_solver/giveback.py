"""Stage 5: headroom left is spent on ceilings, towards each deployment's largest option.

A ceiling costs nothing until load comes, and a cap that does not bind must leave the cluster as
its user set it. Only ceilings are raised, never below what they serve already, and not where
the served share says that load is being shed under stress.
"""

from __future__ import annotations

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.compact.model import ChoiceModel, best_of_each
from powercap_solver.context import Context, Stage, stage_result
from powercap_solver.measures import Measures
from powercap_solver.settings import Objective

SEARCHED_GROUPS = 200
"""Most groups of a core whose give-back is searched exactly."""
SERVED_TOLERANCE = 0.002
"""A served share below 1 less this is shedding under stress."""


def given_back(measures: Measures, start: IntArray) -> FloatArray:
    """float64[group, option]: weighted replicas above ``start`` (int64[group])."""
    periods = measures.shape[1]
    weight = np.repeat(measures.problem.weight, periods)[:, None]
    before = measures.replicas[np.arange(len(start)), start]
    gain: FloatArray = weight * (measures.replicas - before[:, None])
    return gain


def raisable(measures: Measures, start: IntArray, objective: Objective) -> BoolArray:
    """bool[group, option]: where stage 5 may go from ``start`` (int64[group])."""
    periods = measures.shape[1]
    rows = np.arange(len(start))
    may_rise = np.repeat(measures.problem.is_ceiling, periods)
    if objective is Objective.THROUGHPUT_PER_WATT:
        share = measures.problem.served_share.reshape(-1)
        may_rise = may_rise & (share >= 1 - SERVED_TOLERANCE - 1e-12)
    options: BoolArray = (
        measures.allowed
        & may_rise[:, None]
        & (measures.replicas >= measures.replicas[rows, start][:, None])
        & (measures.served >= measures.served[rows, start][:, None])
    )
    if measures.objective is Objective.NET_VALUE:
        # A ceiling whose load costs more than it earns is not the user's to want back.
        options &= measures.worth >= measures.worth[rows, start][:, None]
    options[rows, start] = True
    return options


def give_back(context: Context, before: Stage) -> Stage:
    """Spend the headroom; the plan in force is kept where it gives back about as much.

    Raises:
        SolverError: when the back end fails.
    """
    measures, watch = context.measures, context.stopwatch
    begun = watch.seconds()
    allowed = raisable(measures, before.choice, context.settings.objective)
    gain = given_back(measures, before.choice)
    model = ChoiceModel(
        value=gain, allowed=allowed, rows=measures.rows, hint=before.choice, links=measures.ramps
    )
    answer = context.maximise(model, core_groups=SEARCHED_GROUPS)
    choice = before.choice if answer.choice is None else answer.choice
    is_all_given = model.worth(choice) >= model.worth(best_of_each(gain, allowed))
    held = _held(measures, before.choice, allowed)
    enough = (1 - context.settings.stability_tolerance) * model.worth(choice)
    kept_within = 0.0
    # Without this, a small change of the forecast could move spare ceilings about every cycle.
    if not is_all_given and model.holds(held) and model.worth(held) >= enough:
        choice, kept_within = held, context.settings.stability_tolerance
    objective = model.worth(choice)
    result = stage_result(
        name="give_back",
        objective=objective,
        bound=max(objective, answer.bound),
        method=answer.method,
        seconds=watch.seconds() - begun,
        stopped_by=answer.stopped_by,
        kept_within=kept_within,
    )
    return Stage(result=result, choice=choice)


def _held(measures: Measures, start: IntArray, allowed: BoolArray) -> IntArray:
    """int64[group]: the replicas in force where those may be reached from ``start``."""
    periods = measures.shape[1]
    in_force = np.repeat(measures.problem.replicas_in_force, periods)[:, None]
    matches = allowed & (measures.replicas == in_force)
    return np.where(matches.any(axis=1), np.argmax(matches, axis=1), start).astype(np.int64)
