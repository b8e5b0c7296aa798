"""Stage 3: throughput per weighted watt by Dinkelbach's method, with a certificate.

Maximise S(x) / W(x), S the sum of ``value``, W = energy_base + the sum of ``energy`` > 0. For a
ratio lambda that some plan has, let U(lambda) bound max S(x) - lambda W(x) from above. Then

    max S/W <= lambda + U(lambda) / W_min

with W_min the least W of any plan with S > 0: S(x)/W(x) - lambda = (S - lambda W)/W. Each round
solves the linear problem at the ratio of the last choice; the ratio rises until U is 0.
"""

from __future__ import annotations

import math

import numpy as np

from powercap_solver.arrays import BoolArray, IntArray
from powercap_solver.compact.model import ChoiceModel
from powercap_solver.context import Context, Stage, stage_result
from powercap_solver.floors import Kept
from powercap_solver.measures import Measures
from powercap_solver.plan import StoppedBy

_ROUNDS = 40
_GAP_SHARE = 0.4
"""Of the gap asked of the ratio, what each linear problem may leave open."""
SHARE_TOLERANCE = 1e-12
"""Relative: an option that serves the share up to rounding is kept."""


def share_filter(measures: Measures, best: IntArray) -> BoolArray:
    """bool[group, option]: options that serve their share of what ``best`` (stage 2) serves."""
    share = measures.problem.served_share.reshape(-1)
    wanted = share * measures.pick(measures.served, best)
    keeps: BoolArray = measures.served >= (wanted * (1 - SHARE_TOLERANCE))[:, None]
    return keeps


def least_energy(measures: Measures, allowed: BoolArray) -> float:
    """Least W over ``allowed`` choices that serve anything; inf when none serves."""
    energy = np.where(allowed, measures.energy, np.inf)
    each = energy.min(axis=1)
    total = math.fsum([measures.energy_base, *each])
    serves = allowed & (measures.value > 0)
    extra = np.min(np.where(serves, measures.energy - each[:, None], np.inf), initial=np.inf)
    return total + float(extra)


def ratio(measures: Measures, choice: IntArray) -> float:
    """S / W of ``choice``; 0 when it serves nothing."""
    value = measures.total_value(choice)
    return value / measures.total_energy(choice) if value > 0 else 0.0


def maximise_ratio(context: Context, kept: Kept, served: Stage) -> Stage | None:
    """Maximise S/W over what keeps floors and shares; None when W can be 0 while serving.

    Raises:
        SolverError: when the back end fails.
    """
    measures, watch = context.measures, context.stopwatch
    begun = watch.seconds()
    allowed = kept.allowed & share_filter(measures, served.choice)
    least = least_energy(measures, allowed)
    if least <= 0:
        return None
    gap = context.settings.relative_gap
    choice, rate = served.choice, ratio(measures, served.choice)
    prices = None
    bound, method, stopped_by = math.inf, "separable", StoppedBy.ITERATIONS
    for _ in range(_ROUNDS):
        # With nothing to serve every ratio is 0 and the least watts are best.
        value = measures.value - rate * measures.energy if rate > 0 else -measures.energy
        answer = context.maximise(
            ChoiceModel(
                value=value,
                allowed=allowed,
                rows=kept.rows,
                hint=choice,
                links=measures.links if rate > 0 else measures.ramps,
                prices=prices,
            ),
            # S - lambda W is about 0 where it matters: the gap of the ratio is what counts.
            relative_gap=0.0 if rate > 0 else None,
            absolute_gap=_GAP_SHARE * gap * rate * least,
        )
        if answer.choice is None:
            stopped_by = answer.stopped_by
            break
        prices = answer.prices
        if answer.method != "separable":
            method = answer.method
        if rate <= 0:
            choice, bound, stopped_by = answer.choice, 0.0, answer.stopped_by
            break
        excess = max(0.0, answer.bound - rate * measures.energy_base)
        bound = min(bound, rate + excess / least)
        found = ratio(measures, answer.choice)
        if found > rate:
            choice = answer.choice
        is_done = found <= rate * (1 + 1e-14)
        rate = max(rate, found)
        is_done = is_done or bound <= rate * (1 + gap)
        if answer.stopped_by is not StoppedBy.PROOF:
            stopped_by = answer.stopped_by
            break
        if is_done:
            # Of plans with an equal ratio the back end's is free of needless watts.
            choice = answer.choice if found >= rate else choice
            stopped_by = StoppedBy.PROOF
            break
    if math.isinf(bound):
        bound = _bound_without_rows(measures, allowed, rate, least)
    result = stage_result(
        name="throughput_per_watt",
        objective=ratio(measures, choice),
        bound=max(bound, ratio(measures, choice)),
        method=f"dinkelbach({method})",
        seconds=watch.seconds() - begun,
        stopped_by=stopped_by,
    )
    return Stage(result=result, choice=choice)


def _bound_without_rows(measures: Measures, allowed: BoolArray, rate: float, least: float) -> float:
    value = np.where(allowed, measures.value - rate * measures.energy, -np.inf).max(axis=1)
    excess = math.fsum([-rate * measures.energy_base, *value])
    return rate + max(0.0, excess) / least
