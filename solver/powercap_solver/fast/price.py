"""The price of one row: the exact minimum of its Lagrangian dual, without sorting.

Data (g group, k option): v[g,k] value, w[g,k] weight, R room. The dual

    L(p) = p R + sum over g of max over k of (v[g,k] - p w[g,k])

is convex and piecewise linear in the price p >= 0, and the option a group takes grows lighter as
p rises. Tangents at a price too low and one too high meet at the next price to try; the minimum
is found when L is not above that meeting point. Groups that take the same option at both ends
are decided, so each round looks at fewer of them (Kellerer, Pferschy, Pisinger, *Knapsack
Problems*, 2004, chapter 11; the linear relaxation of the multiple-choice knapsack).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray

_ROUNDS = 200
_MEETING = 1e-14
"""Relative: L counts as at the meeting point of the tangents."""
_NEAR = 1e-3
"""How far around a known price is looked first, relative."""
_BISECT_AFTER = 40
"""Rounds after which the middle is tried in turn: tangents alone may creep."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Price:
    """The minimum of the dual."""

    price: float
    bound: float
    """No choice within the room is worth more."""
    light: IntArray
    """int64[group]: best at the price, within the room."""
    heavy: IntArray
    """int64[group]: best at the price, at or over the room; equals ``light`` where decided."""


def price_of_row(
    value: FloatArray,
    weight: FloatArray,
    allowed: BoolArray,
    room: float,
    *,
    near: float | None = None,
) -> Price | None:
    """Return the price at which the row's room is spent; None when even the lightest is too heavy.

    Args:
        value: float64[group, option].
        weight: float64[group, option].
        allowed: bool[group, option], some option in each group.
        room: right-hand side.
        near: a price to look around first, if one is known.
    """
    masked = np.where(allowed, value, -np.inf)
    lightest = _tie_broken(np.where(allowed, -weight, -np.inf), masked)
    best = _tie_broken(masked, -weight)
    rows = np.arange(len(value))
    best_value, best_weight = value[rows, best], weight[rows, best]
    if math.fsum(best_weight) <= room:
        return Price(price=0.0, bound=math.fsum(best_value), light=best, heavy=best)
    if math.fsum(weight[rows, lightest]) > room:
        return None
    low, high = best, lightest
    if near is not None and near > 0:
        low, high = _around(masked, weight, room, near, low=low, high=high)
    found = _descend(masked, weight, room, low=low, high=high)
    price = found[0]
    worth = np.max(masked - price * weight, axis=1)
    bound = math.fsum([price * room, *worth])
    bound += 4e-16 * (abs(price * room) + float(np.abs(worth).sum()))
    return Price(price=price, bound=bound, light=found[2], heavy=found[1])


def _around(
    masked: FloatArray,
    weight: FloatArray,
    room: float,
    near: float,
    *,
    low: IntArray,
    high: IntArray,
) -> tuple[IntArray, IntArray]:
    """Choices nearer to the price than ``low`` and ``high``, where ``near`` is near it."""
    rows = np.arange(len(low))
    for factor in (1.0 - _NEAR, 1.0 + _NEAR):
        taken = np.argmax(masked - factor * near * weight, axis=1)
        if math.fsum(weight[rows, taken]) > room:
            low = taken
        else:
            high = taken
    return low, high


def _tie_broken(first: FloatArray, then: FloatArray) -> IntArray:
    """int64[group]: the most of ``first``, of equals the most of ``then``."""
    most = first.max(axis=1, keepdims=True)
    picked: IntArray = np.argmax(np.where(first == most, then, -np.inf), axis=1)
    return picked


def _descend(
    masked: FloatArray, weight: FloatArray, room: float, *, low: IntArray, high: IntArray
) -> tuple[float, IntArray, IntArray]:
    """Narrow the prices between ``low`` (too heavy a choice) and ``high`` (within the room)."""
    low, high = low.copy(), high.copy()
    rows = np.arange(len(low))
    v_low, w_low = masked[rows, low].sum(), weight[rows, low].sum()
    v_high, w_high = masked[rows, high].sum(), weight[rows, high].sum()
    open_groups = np.flatnonzero(low != high)
    values, weights = masked[open_groups], weight[open_groups]
    price, price_low, price_high = 0.0, 0.0, math.inf
    for turn in range(_ROUNDS):
        if w_low <= w_high or not len(open_groups):
            break
        price = max(0.0, (v_low - v_high) / (w_low - w_high))
        if turn > _BISECT_AFTER and turn % 2 and math.isfinite(price_high):
            price = 0.5 * (price_low + price_high)
        worth = values - price * weights
        taken = np.argmax(worth, axis=1)
        places = np.arange(len(open_groups))
        v_low_open = values[places, low[open_groups]].sum()
        w_low_open = weights[places, low[open_groups]].sum()
        v_open, w_open = values[places, taken].sum(), weights[places, taken].sum()
        v_now, w_now = v_low - v_low_open + v_open, w_low - w_low_open + w_open
        meeting = v_low - price * w_low
        gain = (v_now - price * w_now) - max(meeting, v_high - price * w_high)
        if gain <= _MEETING * max(abs(v_now), abs(price * w_now), 1e-300):
            break
        if w_now > room:
            low[open_groups], v_low, w_low, price_low = taken, v_now, w_now, price
        else:
            high[open_groups], v_high, w_high, price_high = taken, v_now, w_now, price
        is_open = low[open_groups] != high[open_groups]
        if not is_open.all():
            open_groups = open_groups[is_open]
            values, weights = values[is_open], weights[is_open]
    return price, low, high
