"""The greedy rung: every stage without a back end, with bounds that need none.

Its plan keeps all caps like any other. Its bounds relax all caps but one, so its gaps are honest
and seldom zero.
"""

from __future__ import annotations

import math

import numpy as np

from powercap_solver.compact.model import best_of_each
from powercap_solver.context import Context, Stage, stage_result
from powercap_solver.floors import Kept
from powercap_solver.fractional import least_energy, ratio, share_filter
from powercap_solver.giveback import given_back, raisable, total_given
from powercap_solver.greedy import climb, greedy_floors, greedy_served, served_bound
from powercap_solver.lexicographic import Outcome
from powercap_solver.measures import Measures
from powercap_solver.plan import StoppedBy
from powercap_solver.problem import BoolArray
from powercap_solver.settings import Objective
from powercap_solver.stability import changed_replicas

_ROUNDS = 40


def solve_greedily(context: Context) -> Outcome | None:
    """Run every stage without a back end; None when no choice was found that keeps the caps."""
    measures = context.measures
    floors = _floors(context)
    if not all(row.holds(floors.choice) for row in measures.cap_rows()):
        return None
    reached = measures.pick(measures.shortfall, floors.choice)
    allowed = measures.allowed & (measures.shortfall <= reached[:, None])
    kept = Kept(allowed=allowed, rows=measures.cap_rows(), floor_rows=0)
    served = _served(context, floors)
    stages = [floors, served]
    if context.settings.objective is Objective.THROUGHPUT_PER_WATT:
        efficient = _ratio(context, allowed, served)
        if efficient is not None:
            stages.append(efficient)
    steady = _least_change(context, kept, stages[-1], served)
    if steady is not None:
        stages.append(steady)
    stages.append(_give_back(context, stages[-1]))
    return Outcome(stages=tuple(stages), kept=kept)


def _floors(context: Context) -> Stage:
    measures, begun = context.measures, context.stopwatch.seconds()
    choice = greedy_floors(measures)
    objective = math.fsum(measures.pick(measures.shortfall, choice))
    least = np.min(np.where(measures.allowed, measures.shortfall, np.inf), axis=1)
    result = stage_result(
        name="floors",
        objective=objective,
        bound=min(objective, math.fsum(least)),
        method="greedy",
        seconds=context.stopwatch.seconds() - begun,
        stopped_by=StoppedBy.HEURISTIC,
    )
    return Stage(result=result, choice=choice)


def _served(context: Context, floors: Stage) -> Stage:
    measures, begun = context.measures, context.stopwatch.seconds()
    choice = greedy_served(measures, floors.choice)
    objective = measures.total_value(choice)
    result = stage_result(
        name="served",
        objective=objective,
        bound=max(objective, served_bound(measures)),
        method="greedy",
        seconds=context.stopwatch.seconds() - begun,
        stopped_by=StoppedBy.HEURISTIC,
    )
    return Stage(result=result, choice=choice)


def _ratio(context: Context, allowed: BoolArray, served: Stage) -> Stage | None:
    """Dinkelbach's method over options that need no more watts than stage 2's: caps hold."""
    measures, begun = context.measures, context.stopwatch.seconds()
    filtered = measures.allowed & share_filter(measures, served.choice)
    least = least_energy(measures, filtered)
    if least <= 0:
        return None
    rows = np.arange(len(served.choice))
    spent = measures.upper[:, rows, served.choice][:, :, None]
    candidates = filtered & allowed & (measures.upper <= spent).all(axis=0)
    choice, rate = served.choice, ratio(measures, served.choice)
    for _ in range(_ROUNDS):
        value = measures.value - rate * measures.energy if rate > 0 else -measures.energy
        following = best_of_each(value, candidates)
        found = ratio(measures, following)
        if found < rate:
            break
        choice = following
        if found <= rate:
            break
        rate = found
    objective = ratio(measures, choice)
    result = stage_result(
        name="throughput_per_watt",
        objective=objective,
        bound=max(objective, _ratio_bound(measures, filtered, objective, least)),
        method="greedy",
        seconds=context.stopwatch.seconds() - begun,
        stopped_by=StoppedBy.HEURISTIC,
    )
    return Stage(result=result, choice=choice)


def _ratio_bound(measures: Measures, filtered: BoolArray, rate: float, least: float) -> float:
    worth = np.where(filtered, measures.value - rate * measures.energy, -np.inf).max(axis=1)
    excess = math.fsum([-rate * measures.energy_base, *worth])
    return rate + max(0.0, excess) / least


def _least_change(context: Context, kept: Kept, best: Stage, served: Stage) -> Stage | None:
    """Keep the plan in force whole where it is worth about as much; else change as planned."""
    measures, begun = context.measures, context.stopwatch.seconds()
    tolerance = context.settings.stability_tolerance
    if (measures.problem.replicas_in_force < 0).all():
        return None
    changed = changed_replicas(measures, best.choice)
    fraction = context.settings.held_served_fraction
    if best is served:
        share = np.ones(len(best.choice))
    else:
        share = measures.problem.served_share.reshape(-1)
    wanted = fraction * share * measures.pick(measures.served, served.choice)
    allowed = kept.allowed & (measures.served >= wanted[:, None])
    in_force = best_of_each(-changed, allowed)
    least = math.fsum(measures.pick(changed, best_of_each(-changed, measures.allowed)))
    least_value = (1 - tolerance) * measures.total_value(best.choice)
    least_rate = (1 - tolerance) * ratio(measures, best.choice) if best is not served else 0.0
    is_worth_as_much = (
        measures.total_value(in_force) >= least_value and ratio(measures, in_force) >= least_rate
    )
    holds = is_worth_as_much and all(row.holds(in_force) for row in kept.rows)
    choice = in_force if holds else best.choice
    objective = math.fsum(measures.pick(changed, choice))
    result = stage_result(
        name="least_change",
        objective=objective,
        bound=min(objective, least),
        method="greedy",
        seconds=context.stopwatch.seconds() - begun,
        stopped_by=StoppedBy.HEURISTIC,
        kept_within=tolerance,
    )
    return Stage(result=result, choice=choice)


def _give_back(context: Context, before: Stage) -> Stage:
    measures, begun = context.measures, context.stopwatch.seconds()
    allowed = raisable(measures, before.choice, context.settings.objective)
    gain = given_back(measures, before.choice)
    choice = climb(measures, before.choice, value=gain, allowed=allowed)
    objective = total_given(measures, before.choice, choice)
    most = math.fsum(measures.pick(gain, best_of_each(gain, allowed)))
    result = stage_result(
        name="give_back",
        objective=objective,
        bound=max(objective, most),
        method="greedy",
        seconds=context.stopwatch.seconds() - begun,
        stopped_by=StoppedBy.HEURISTIC,
    )
    return Stage(result=result, choice=choice)
