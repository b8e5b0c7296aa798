"""The greedy choice: floors by priority, then always the step with most value per watt.

No back end, no proof; its bounds come from relaxing all but one cap. It is the fallback of the
ladder, the first incumbent of stage 2 and the reference every better method must reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powercap_solver.floors import lowest_choice
from powercap_solver.lagrangian import relax_one_cap
from powercap_solver.measures import CAP_TOLERANCE, Measures
from powercap_solver.problem import BoolArray, FloatArray, IntArray


@dataclass(slots=True, kw_only=True)
class _Room:
    """Watts left under every cap as the choice grows."""

    measures: Measures
    choice: IntArray
    left: FloatArray
    """float64[domain, period]."""

    def fits(self, group: int, options: BoolArray) -> BoolArray:
        """bool[option]: which of ``options`` the group can move to."""
        upper = self.measures.upper[:, group, :]
        extra = upper - upper[:, [self.choice[group]]]
        left = self.left[:, self.measures.period[group]][:, None]
        # A step that adds no watts to a domain always fits there.
        ok: BoolArray = options & ((extra <= left) | (extra <= 0)).all(axis=0)
        return ok

    def move(self, group: int, option: int) -> None:
        """Take the option."""
        upper = self.measures.upper[:, group, :]
        self.left[:, self.measures.period[group]] -= upper[:, option] - upper[:, self.choice[group]]
        self.choice[group] = option


def room_under(measures: Measures, choice: IntArray) -> _Room:
    """Start from ``choice`` (int64[group])."""
    left = measures.available + CAP_TOLERANCE / 2 * measures.problem.cap_watts
    left = left.copy()
    for domain, period in np.ndindex(*left.shape):
        groups = np.nonzero(measures.period == period)[0]
        left[domain, period] -= math.fsum(measures.upper[domain, groups, choice[groups]])
    return _Room(measures=measures, choice=choice.copy(), left=left)


def greedy_floors(measures: Measures) -> IntArray:
    """int64[group]: lowest draw, then floors met from the highest priority down where they fit."""
    room = room_under(measures, lowest_choice(measures))
    cost = _cost(measures)
    for group in np.argsort(-measures.priority, kind="stable").tolist():
        fits = room.fits(group, measures.allowed[group])
        if not fits.any():
            continue
        shortfall = np.where(fits, measures.shortfall[group], np.inf)
        if shortfall.min() >= measures.shortfall[group, room.choice[group]]:
            continue
        is_least = shortfall <= shortfall.min()
        room.move(group, int(np.argmin(np.where(is_least, cost[group], np.inf))))
    return room.choice


def greedy_served(measures: Measures, start: IntArray) -> IntArray:
    """int64[group]: climb from ``start`` by value per watt; floors stay as they are."""
    current_shortfall = measures.pick(measures.shortfall, start)
    allowed = measures.allowed & (measures.shortfall <= current_shortfall[:, None])
    return climb(measures, start, value=measures.value, allowed=allowed)


def climb(
    measures: Measures, start: IntArray, *, value: FloatArray, allowed: BoolArray
) -> IntArray:
    """int64[group]: take the step with most ``value`` per watt until none fits.

    Watts are summed over the domains, each as a share of its available watts.
    """
    room = room_under(measures, start)
    cost = _cost(measures)
    groups = len(start)
    rate, target = np.full(groups, -np.inf), np.zeros(groups, dtype=np.int64)

    def look(group: int) -> None:
        gain = value[group] - value[group, room.choice[group]]
        better = room.fits(group, allowed[group] & (gain > 0))
        extra = np.maximum(cost[group] - cost[group, room.choice[group]], 1e-12)
        rates = np.where(better, gain / extra, -np.inf)
        target[group] = int(np.argmax(rates))
        rate[group] = rates[target[group]]

    for group in range(groups):
        look(group)
    while groups:
        group = int(np.argmax(rate))
        if rate[group] == -np.inf:
            break
        still_fits = room.fits(group, np.arange(value.shape[1]) == target[group])
        if still_fits.any():
            room.move(group, int(target[group]))
        look(group)
    return room.choice


def served_bound(measures: Measures) -> float:
    """A bound on S from the best single cap of each period, the others relaxed."""
    total = []
    for period in range(measures.shape[1]):
        groups = measures.period == period
        value, allowed = measures.value[groups], measures.allowed[groups]
        bounds = [math.fsum(np.where(allowed, value, -np.inf).max(axis=1))]
        bounds += [
            relax_one_cap(
                value,
                measures.upper[domain, groups],
                allowed,
                float(measures.available[domain, period])
                + CAP_TOLERANCE * float(measures.problem.cap_watts[domain, period]),
            ).bound
            for domain in range(len(measures.problem.domains))
        ]
        total.append(min(bounds))
    return math.fsum(total)


def _cost(measures: Measures) -> FloatArray:
    scale = np.maximum(measures.available, 1.0)[:, measures.period]
    cost: FloatArray = (measures.upper / scale[:, :, None]).sum(axis=0)
    return cost
