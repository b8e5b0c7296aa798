"""Filling the rest of one row: the best change, and the best two changes together.

Losses are at the row's price: how far an option's v - p w stays below its group's best. A choice
that leaves the room r is worth the bound less its losses less p r, so a change can gain at most
p r, and only options whose loss is below that can take part. That leaves few; the best pair
among them is found by sorting (for each change the best partner among all that fit beside it).
"""

from __future__ import annotations

import math

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray

_ROUNDS = 30
_MOST_CHANGES = 60_000


def fill_row(
    worth: FloatArray,
    weight: FloatArray,
    allowed: BoolArray,
    choice: IntArray,
    *,
    price: float,
    room: float,
    enough: float = 0.0,
) -> IntArray:
    """Improve ``choice`` by one or two changes at a time until nothing gains.

    Args:
        worth: float64[group, option], v - p w.
        weight: float64[group, option].
        allowed: bool[group, option].
        choice: int64[group], within the room.
        price: p.
        room: right-hand side.
        enough: stop when p times the room left, with the losses, is at most this.

    Returns:
        int64[group].
    """
    choice = choice.copy()
    rows = np.arange(len(choice))
    best = np.where(allowed, worth, -np.inf).max(axis=1)
    for _ in range(_ROUNDS):
        left = room - math.fsum(weight[rows, choice])
        behind = math.fsum(best - worth[rows, choice])
        if price * left + behind <= enough:
            break
        change = _best_changes(worth, weight, allowed, choice, price, left)
        if change is None:
            break
        for group, option in change:
            choice[group] = option
    return choice


def _best_changes(
    worth: FloatArray,
    weight: FloatArray,
    allowed: BoolArray,
    choice: IntArray,
    price: float,
    left: float,
) -> list[tuple[int, int]] | None:
    rows = np.arange(len(choice))
    gained = worth - worth[rows, choice][:, None]
    shift = weight - weight[rows, choice][:, None]
    most_up = max(0.0, float(np.where(allowed, gained, -np.inf).max()))
    # Beside a partner that gains at most `most_up` at the price, a change must not lose more.
    limit = price * left + most_up
    is_open = allowed & (gained > -limit)
    is_open[rows, choice] = False
    group, option = np.nonzero(is_open)
    if not len(group):
        return None
    gained, shift = gained[group, option], shift[group, option]
    if len(group) > _MOST_CHANGES:
        keep = np.argpartition(-gained, _MOST_CHANGES)[:_MOST_CHANGES]
        group, option, gained, shift = group[keep], option[keep], gained[keep], shift[keep]
    order = np.argsort(shift, kind="stable")
    group, option, gained, shift = group[order], option[order], gained[order], shift[order]
    gain = gained + price * shift
    alone = np.where(shift <= left, gain, -np.inf)
    single = int(np.argmax(alone))
    best_gain, change = float(alone[single]), [(int(group[single]), int(option[single]))]
    first, second, pair_gain = _best_pair(group, gain, shift, left)
    if pair_gain > max(best_gain, 0.0) * (1 + 1e-9):
        best_gain = pair_gain
        change = [(int(group[i]), int(option[i])) for i in (first, second)]
    return change if best_gain > 1e-15 * max(1.0, abs(price * left)) else None


def _best_pair(
    group: IntArray, gain: FloatArray, shift: FloatArray, left: float
) -> tuple[int, int, float]:
    """Places and gain of the best two changes of different groups that fit; changes by shift."""
    count = len(gain)
    top = np.maximum.accumulate(gain)
    place = np.arange(count)
    is_record = np.concatenate([[True], gain[1:] > top[:-1]])
    at_top = np.maximum.accumulate(np.where(is_record, place, 0))
    partners = np.searchsorted(shift, left - shift, side="right") - 1
    has_partner = partners >= 0
    partner = at_top[np.maximum(partners, 0)]
    total = np.where(has_partner, gain + gain[partner], -np.inf)
    total[group == group[partner]] = -np.inf
    first = int(np.argmax(total))
    return first, int(partner[first]), float(total[first])
