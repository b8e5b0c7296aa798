"""Stage 4: the least change from the plan in force that is worth about as much.

Minimise the replicas changed, over plans whose S and S/W stay within ``stability_tolerance`` of
the stages before (a raise worth less than that waits), inside every cap (a lowering for a cap
never waits). A deployment without a plan in force is compared with what stage 3 chose for it.
Among plans with equally many changes the most valuable is taken.
"""

from __future__ import annotations

import math

import numpy as np

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.compact.model import ChoiceModel, Row, best_of_each
from powercap_solver.context import Context, Stage, stage_result
from powercap_solver.floors import Kept
from powercap_solver.fractional import ratio
from powercap_solver.measures import Measures
from powercap_solver.plan import StoppedBy
from powercap_solver.problem import Utility
from powercap_solver.settings import Objective

_TIE_GAP = 0.01
"""Proves the whole number of changes; the tie-break is solved to this share of its spread."""
SEARCHED_GROUPS = 200
"""Most groups of a core whose least change is searched exactly."""
_ROW_SLACK = 1e-10
"""Relative slack of the rows that keep S and S/W."""


def changed_replicas(measures: Measures, wanted: IntArray) -> FloatArray:
    """float64[group, option]: replicas changed, from the plan in force or else from ``wanted``."""
    periods = measures.shape[1]
    in_force = np.repeat(measures.problem.replicas_in_force, periods)
    planned = measures.replicas[np.arange(len(wanted)), wanted]
    reference = np.where(in_force >= 0, in_force, planned)
    changed: FloatArray = np.abs(measures.replicas - reference[:, None]).astype(np.float64)
    return changed


def least_change(context: Context, kept: Kept, best: Stage, served: Stage) -> Stage | None:
    """Minimise the change; None when no plan is in force.

    Args:
        context: The solve.
        kept: Options and rows that hold caps and floors.
        best: The stage before, stage 3 or (objective ``throughput``) stage 2.
        served: Stage 2.

    Raises:
        SolverError: when the back end fails.
    """
    measures, watch, tolerance = (
        context.measures,
        context.stopwatch,
        context.settings.stability_tolerance,
    )
    if (measures.problem.replicas_in_force < 0).all():
        return None
    begun = watch.seconds()
    changed = changed_replicas(measures, best.choice)
    share = measures.problem.served_share.reshape(-1) if best is not served else 1.0
    wanted = (
        share
        * context.settings.held_served_fraction
        * measures.pick(measures.served, served.choice)
    )
    allowed = kept.allowed & (measures.served >= wanted[:, None])
    rate = ratio(measures, best.choice) if best is not served else 0.0
    rows = (*kept.rows, _worth_row(measures, best.choice, tolerance))
    if rate > 0:
        rows = (*rows, _ratio_row(measures, rate * (1 - tolerance)))
    in_force = best_of_each(-changed, allowed)
    if (
        not measures.pick(changed, in_force).any()
        and all(row.holds(in_force) for row in rows)
        and (measures.links is None or measures.links.holds(in_force))
        and _keeps_worth(measures, in_force, best.choice, tolerance, rate)
    ):
        return _unchanged(in_force, tolerance, watch.seconds() - begun)
    worth = measures.value - rate * measures.energy
    low = np.min(np.where(allowed, worth, np.inf), axis=1)
    high = np.max(np.where(allowed, worth, -np.inf), axis=1)
    spread = max(float((high - low).sum()), 1e-300)
    # Changes are whole numbers: a tie-break of at most 0.5 in total never outweighs one.
    tie = 0.5 * (worth - low[:, None]) / spread
    answer = context.maximise(
        ChoiceModel(
            value=tie - changed,
            allowed=allowed,
            rows=rows,
            hint=best.choice,
            links=measures.ramps,
        ),
        absolute_gap=max(_TIE_GAP, context.settings.change_gap * len(changed)),
        relative_gap=0.0,
        core_groups=SEARCHED_GROUPS,
    )
    choice = best.choice if answer.choice is None else answer.choice
    stopped_by = answer.stopped_by
    if measures.links is not None and not _keeps_worth(
        measures, choice, best.choice, tolerance, rate
    ):
        # The rows know nothing of what is lost by changing; the plan itself does.
        choice, stopped_by = best.choice, StoppedBy.HEURISTIC
    objective = math.fsum(measures.pick(changed, choice))
    bound = min(objective, max(0.0, math.ceil(-answer.bound - 1e-6)))
    result = stage_result(
        name="least_change",
        objective=objective,
        bound=bound,
        method=answer.method,
        seconds=watch.seconds() - begun,
        stopped_by=stopped_by,
        kept_within=tolerance,
    )
    return Stage(result=result, choice=choice)


def _unchanged(choice: IntArray, tolerance: float, seconds: float) -> Stage:
    """The plan in force stands as it is: no plan changes less."""
    result = stage_result(
        name="least_change",
        objective=0.0,
        bound=0.0,
        method="separable",
        seconds=seconds,
        stopped_by=StoppedBy.PROOF,
        kept_within=tolerance,
    )
    return Stage(result=result, choice=choice)


def worth_scale(measures: Measures, choice: IntArray) -> float:
    """What a relative loss of stage 2 is a share of: its value, or the weights of a fair utility.

    The logarithms of a fair utility have no zero of their own: a loss of ``share`` in each is the
    same share of what each deployment is served.
    """
    is_net = measures.objective is Objective.NET_VALUE
    if measures.problem.utility is Utility.PROPORTIONAL_FAIR and not is_net:
        return math.fsum(measures.problem.weight) * math.fsum(measures.problem.period_seconds)
    return abs(measures.total_worth(choice))


def _worth_row(measures: Measures, choice: IntArray, tolerance: float) -> Row:
    scale = worth_scale(measures, choice)
    kept = measures.total_worth(choice) + measures.lost(choice) - tolerance * scale
    return Row(
        kind="kept",
        groups=np.arange(len(choice)),
        coefficient=-measures.worth,
        limit=-kept,
        slack=_ROW_SLACK * max(scale, abs(kept)),
    )


def _keeps_worth(
    measures: Measures, choice: IntArray, best: IntArray, tolerance: float, rate: float
) -> bool:
    """Whether ``choice`` keeps the worth of ``best`` and, where it counts, the ratio ``rate``."""
    scale = worth_scale(measures, best)
    least = measures.total_worth(best) - tolerance * scale
    if measures.total_worth(choice) < least - _ROW_SLACK * scale:
        return False
    return rate <= 0 or ratio(measures, choice) >= (1 - tolerance) * rate * (1 - _ROW_SLACK)


def _ratio_row(measures: Measures, rate: float) -> Row:
    """S - rate * W >= 0, as energy * rate - value <= -rate * energy_base."""
    energy = np.abs(measures.energy).max(axis=1).sum() + abs(measures.energy_base)
    return Row(
        kind="kept",
        groups=np.arange(len(measures.value)),
        coefficient=rate * measures.energy - measures.value,
        limit=-rate * measures.energy_base,
        slack=_ROW_SLACK * rate * float(energy),
    )
