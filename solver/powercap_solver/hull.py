"""The relaxation of one cap: its bound and its price, from the upper hull of each group.

With x in [0,1] and one row, the best plan climbs the groups' upper hulls (value over watts) in
the order of their slopes until the watts are spent. Where that ends is the price of a watt; the
value reached is a bound on every plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class OneCapRelaxation:
    """Bound and price interval of one cap."""

    bound: float
    price_low: float
    """Value gained per extra W."""
    price_high: float
    """Value lost per W less."""


def relax_one_cap(
    value: FloatArray, watts: FloatArray, allowed: BoolArray, available: float
) -> OneCapRelaxation:
    """Relax the choice of one option per group under one cap.

    Args:
        value: float64[group, option].
        watts: float64[group, option], W.
        allowed: bool[group, option].
        available: W.
    """
    start = cheapest(watts, -value, allowed)
    rows = np.arange(len(start))
    gains, costs = _hull_steps(value, watts, allowed, start)
    order = np.argsort(-(gains / costs), kind="stable")
    gains, costs = gains[order], costs[order]
    bound = math.fsum(value[rows, start])
    room = available - math.fsum(watts[rows, start])
    tolerance = 1e-12 * max(1.0, abs(available))
    spent = np.cumsum(costs)
    full = int(np.searchsorted(spent, room + tolerance, side="right"))
    bound += math.fsum(gains[:full])
    if full == len(gains):
        last = float(gains[-1] / costs[-1]) if full else 0.0
        is_exact = full > 0 and abs(float(spent[-1]) - room) <= tolerance
        return OneCapRelaxation(bound=bound, price_low=0.0, price_high=last if is_exact else 0.0)
    slope = float(gains[full] / costs[full])
    before = float(spent[full - 1]) if full else 0.0
    rest = max(0.0, room - before)
    is_corner = full > 0 and rest <= tolerance
    high = float(gains[full - 1] / costs[full - 1]) if is_corner else slope
    return OneCapRelaxation(bound=bound + slope * rest, price_low=slope, price_high=high)


def cheapest(cost: FloatArray, tie: FloatArray, allowed: BoolArray) -> IntArray:
    """int64[group]: the allowed option of least cost, then least ``tie``, then the first."""
    masked = np.where(allowed, cost, np.inf)
    is_least = masked == masked.min(axis=1, keepdims=True)
    picked: IntArray = np.argmin(np.where(is_least, tie, np.inf), axis=1).astype(np.int64)
    return picked


def _hull_steps(
    value: FloatArray, watts: FloatArray, allowed: BoolArray, start: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Gains and costs of every hull segment of every group, slopes falling within a group."""
    rows = np.arange(len(start))
    current = start
    gains: list[FloatArray] = []
    costs: list[FloatArray] = []
    for _ in range(value.shape[1]):
        gain = value - value[rows, current][:, None]
        cost = watts - watts[rows, current][:, None]
        is_ahead = allowed & (gain > 0) & (cost > 0)
        slope = np.where(is_ahead, gain / np.where(is_ahead, cost, 1.0), -np.inf)
        steepest = slope.max(axis=1, keepdims=True, initial=-np.inf)
        # Of collinear points the farthest, so that a segment is one step.
        following = np.argmax(np.where(is_ahead & (slope == steepest), cost, -np.inf), axis=1)
        moves = is_ahead.any(axis=1)
        if not moves.any():
            break
        gains.append(gain[rows, following][moves])
        costs.append(cost[rows, following][moves])
        current = np.where(moves, following, current)
    if not gains:
        return np.zeros(0), np.zeros(0)
    return np.concatenate(gains), np.concatenate(costs)
