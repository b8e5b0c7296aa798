"""Prices and repair where links couple the periods: the chains' dynamic program does the pricing.

The dual is that of ``prices`` with best paths in the place of best options. Of many chains it is
nearly smooth, so a projected quasi-Newton method (L-BFGS-B; Lewis and Overton, *Nonsmooth
optimization via quasi-Newton methods*, 2013) started at the prices of the problem without links
needs few looks at the chains; whatever it stops at, the best bound seen is proven.

Repair raises the prices of rows that the best paths break until none does, then fills by moving
one period at a time: between the options of its neighbours, every option of a group has a worth
of its own with all links counted, so that the filling without links does the work, for the even
and the odd periods in turn.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.chains import Chains
from powercap_solver.fast.prices import Prices
from powercap_solver.fast.repair import fill, lower, raise_until_kept
from powercap_solver.fast.rowtable import RowTable
from powercap_solver.links import Links

_LOOKS = 150
_SWEEPS = 12
_LEAST_CURVATURE = 1e-6
_MOST_PRICE = 1e9
"""Scaled: a price at which one unit of a row is worth a billion times the whole value."""


def linked_bound(
    table: RowTable, chains: Chains, price: FloatArray
) -> tuple[float, IntArray | None]:
    """The bound that ``price`` (float64[rows]) proves, scaled, and the best paths at it."""
    paths = chains.best(table.value - table.penalty(price), table.allowed)
    used = price[price > 0] * table.limit[:-1][price > 0]
    bound = paths.bound + math.fsum(used) + 1e-15 * float(np.abs(used).sum())
    return bound, paths.choice


def find_linked_prices(
    table: RowTable, chains: Chains, *, start: Prices, gap: float, curvature: FloatArray
) -> Prices | None:
    """Minimise the dual from ``start``; None when some chain has no path at all.

    Args:
        table: the model.
        chains: its links.
        start: prices of the problem without links, or of the last plan.
        gap: change of the bound, scaled, at which to stop.
        curvature: float64[rows], about the second derivatives, to scale the prices.
    """
    first, choice = linked_bound(table, chains, start.price)
    if choice is None:
        return None
    best = [Prices(price=start.price, bound=first, choice=choice)]
    scale = 1.0 / np.sqrt(np.maximum(curvature, _LEAST_CURVATURE * max(curvature.max(), 1.0)))

    def look(scaled: FloatArray) -> tuple[float, FloatArray]:
        price = np.clip(scaled * scale, 0.0, _MOST_PRICE)
        bound, taken = linked_bound(table, chains, price)
        if taken is None:
            # Prices so high that worth overflowed: nothing is learned there.
            return first, np.zeros(table.rows)
        if bound < best[0].bound:
            best[0] = Prices(price=price, bound=bound, choice=taken)
        return bound, (table.limit - table.used(taken))[:-1] * scale

    minimize(
        look,
        start.price / scale,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * table.rows,
        options={
            "maxfun": _LOOKS,
            "maxiter": _LOOKS,
            "ftol": 0.1 * gap / max(abs(first), 1e-300),
            "gtol": 1e-12,
            "maxcor": 30,
        },
    )
    return best[0]


def feasible_paths(table: RowTable, chains: Chains, prices: Prices) -> IntArray | None:
    """Paths that keep every row: prices of broken rows are raised until none is; else None."""
    return raise_until_kept(table, prices, lambda price: linked_bound(table, chains, price)[1])


def between(links: Links, choice: IntArray) -> FloatArray:
    """float64[group, option]: lost on the way into and out of each option; inf if not allowed."""
    periods = links.periods
    path = choice.reshape(-1, periods)
    chains, options = links.size.shape
    rows = np.arange(chains)[:, None]
    size = links.size[rows, path]
    late = None if links.late is None else links.late.reshape(chains, periods, options)
    lost = np.zeros((chains, periods, options))
    lost[:, 0] = np.where(links.first_allowed(), links.first_losses(), np.inf)
    cost = links.change_cost[:, None]
    for period in range(1, periods):
        step = links.size - size[:, period - 1][:, None]
        way_in = cost * np.abs(step)
        if late is not None:
            before = late[np.arange(chains), period, path[:, period - 1]]
            way_in = way_in + np.maximum(0.0, late[:, period] - before[:, None])
        broken = (step > links.max_raise[:, None]) | (-step > links.max_lower[:, None])
        lost[:, period] += np.where(broken, np.inf, way_in)
    for period in range(periods - 1):
        step = size[:, period + 1][:, None] - links.size
        way_out = cost * np.abs(step)
        if late is not None:
            after = late[np.arange(chains), period + 1, path[:, period + 1]]
            way_out = way_out + np.maximum(0.0, after[:, None] - late[:, period + 1])
        broken = (step > links.max_raise[:, None]) | (-step > links.max_lower[:, None])
        lost[:, period] += np.where(broken, np.inf, way_out)
    return lost.reshape(-1, options)


def lower_linked(
    table: RowTable, links: Links, penalty: FloatArray, choice: IntArray
) -> IntArray | None:
    """Lower between neighbours until no row is over its limit; None when that fails.

    Rows that touch periods of both parities (budgets, watts per step) are only checked at the end.
    """
    parity = np.tile(np.arange(links.periods) % 2, len(links.size))
    if not links.holds(choice):
        return None
    for turn in (0, 1):
        lost = between(links, choice)
        value = np.where(np.isinf(lost), -np.inf, table.value - lost)
        of_turn = parity == turn
        allowed: BoolArray = np.isfinite(value) & of_turn[:, None]
        others = np.zeros(table.rows + 1, dtype=bool)
        others[table.row[:, ~of_turn]] = True
        limit = np.where(others, np.inf, table.limit)
        part = replace(table, value=value, limit=limit)
        lowered = lower(part, value - penalty, choice, allowed)
        if lowered is None:
            return None
        choice = lowered
    return choice


def fill_linked(table: RowTable, links: Links, penalty: FloatArray, choice: IntArray) -> IntArray:
    """Fill between neighbours, even and odd periods in turn, until nothing gains.

    Args:
        table: the model.
        links: its links, losses scaled like the values.
        penalty: float64[group, option], what prices charge.
        choice: int64[group], within every row and ramp.
    """
    parity = np.tile(np.arange(links.periods) % 2, len(links.size))
    quiet = 0
    for sweep in range(_SWEEPS):
        lost = between(links, choice)
        value = np.where(np.isinf(lost), -np.inf, table.value - lost)
        allowed: BoolArray = np.isfinite(value) & (parity == sweep % 2)[:, None]
        filled = fill(replace(table, value=value), value - penalty, choice, allowed)
        quiet = quiet + 1 if (filled == choice).all() else 0
        choice = filled
        if quiet == 2:
            break
    return choice
