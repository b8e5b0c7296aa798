"""Shadow prices: what one more watt of a cap would be worth to stage 2, at the meter.

The dual of the relaxation of stage 2 over x in [0,1]. Where one cap stands alone in a period the
relaxation is a knapsack and its price is known exactly, as an interval when it is degenerate (the
room ends just where a step does). Else it is the price that stage 2's method found, whose bound
is that of the relaxation up to the gap the method was given.
"""

from __future__ import annotations

import math

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.compact.model import ChoiceModel, Row, SolveLimits
from powercap_solver.fast.many_rows import price_rows
from powercap_solver.fast.price import price_of_row
from powercap_solver.floors import Kept
from powercap_solver.measures import Measures

_PRICE_GAP = 1e-7
_DEGENERATE = 1e-12
"""Relative: the room counts as ending where a step does."""


def shadow_prices(
    measures: Measures, kept: Kept, row_prices: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Lower and upper ends, float64[domain, period]: value per W at the meter and s.

    Args:
        measures: the tables.
        kept: options and rows that hold caps and floors.
        row_prices: float64[row] of the hard rows, as stage 2 found them; empty when not known.
    """
    problem = measures.problem
    shape = problem.cap_watts.shape
    caps = math.prod(shape)
    if not caps:
        return np.zeros(shape), np.zeros(shape)
    if len(problem.domains) == 1 and len(kept.rows) == caps and measures.links is None:
        known = row_prices if len(row_prices) == caps else np.full(caps, np.nan)
        ends = [
            _one_cap(measures, kept.allowed, row, price)
            for row, price in zip(kept.rows, known.tolist(), strict=True)
        ]
        low = np.array([end[0] for end in ends]).reshape(shape)
        high = np.array([end[1] for end in ends]).reshape(shape)
    else:
        if len(row_prices) < caps:
            row_prices = _priced(measures, kept)
        low = row_prices[:caps].reshape(shape)
        high = low.copy()
    per_meter_watt = problem.period_seconds[None, :] * problem.overhead_factor[:, None]
    return low / per_meter_watt, high / per_meter_watt


def _priced(measures: Measures, kept: Kept) -> FloatArray:
    """float64[row]: prices of the rows when the method of stage 2 has left none."""
    model = ChoiceModel(
        value=measures.worth, allowed=kept.allowed, rows=kept.rows, links=measures.links
    )
    prices = price_rows(model, SolveLimits(relative_gap=_PRICE_GAP, seconds=None))
    return np.full(len(kept.rows), np.nan) if prices is None else prices


def _one_cap(measures: Measures, allowed: BoolArray, row: Row, price: float) -> tuple[float, float]:
    """The ends of the price; ``price`` is that of stage 2, near this one, NaN when not known.

    Stage 2 leaves out options too large to fit; the relaxation wants them in part.
    """
    value, weight = measures.worth[row.groups], row.coefficient
    near = None if math.isnan(price) else price
    priced = price_of_row(value, weight, allowed[row.groups], row.limit, near=near)
    if priced is None:
        return math.nan, math.nan
    spent = math.fsum(weight[np.arange(len(weight)), priced.light])
    if row.limit - spent > _DEGENERATE * max(1.0, abs(row.limit)):
        return priced.price, priced.price
    return price_interval(value, weight, allowed[row.groups], priced.light)


def price_interval(
    value: FloatArray, weight: FloatArray, allowed: BoolArray, choice: IntArray
) -> tuple[float, float]:
    """The prices at which ``choice`` (int64[group]) is best: gained per unit more, lost per less.

    Args:
        value: float64[group, option].
        weight: float64[group, option].
        allowed: bool[group, option].
        choice: int64[group].
    """
    rows = np.arange(len(choice))
    gain = value - value[rows, choice][:, None]
    more = weight - weight[rows, choice][:, None]
    heavier, lighter = allowed & (more > 0), allowed & (more < 0)
    up = np.where(heavier, gain / np.where(heavier, more, 1.0), -np.inf)
    down = np.where(lighter, gain / np.where(lighter, more, 1.0), np.inf)
    low = max(0.0, float(up.max(initial=0.0)))
    high = float(down.min(initial=np.inf))
    return (low, max(low, high)) if math.isfinite(high) else (low, low)
