"""From prices to a plan that keeps every row: lower what breaks rows, then fill what is left.

At good prices the best options of all groups break few rows by little. Lowering takes, row by
row, the changes that lose least at the prices per unit of the row; filling takes, many at once,
the changes that gain most while they fit. All decisions are by sorted arrays, so equal input
gives equal plans.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.fast.prices import Prices
from powercap_solver.fast.rowtable import RowTable

_LOWERINGS = 10
"""Rounds beyond two for every row: rows that pull against each other are left to other ways."""
_STALLED = 12
"""Rounds without progress after which lowering gives up."""
_FILLINGS = 60
_RAISES = 80
_TOLERANCE = 1e-13


def lower(
    table: RowTable, worth: FloatArray, choice: IntArray, allowed: BoolArray
) -> IntArray | None:
    """Change ``choice`` (int64[group]) until no row is over its limit; None when that fails.

    Args:
        table: the model.
        worth: float64[group, option], value at the prices; -inf where not allowed.
        choice: where to start.
        allowed: bool[group, option], options to move to.
    """
    choice = choice.copy()
    used = table.used(choice)
    tolerance = _TOLERANCE * np.maximum(1.0, np.abs(table.limit))
    slots = _slots_of_rows(table)
    least_excess, stalled = np.inf, 0
    for _ in range(_LOWERINGS + 2 * table.rows):
        over = used - table.limit
        excess_now = float(np.maximum(over[:-1], 0.0).sum())
        stalled = 0 if excess_now < least_excess else stalled + 1
        least_excess = min(least_excess, excess_now)
        if stalled > _STALLED:
            return None
        worst = int(np.argmax(over))
        if over[worst] <= tolerance[worst]:
            return choice
        slot, groups = slots[worst]
        shift = table.shifts(choice, groups)
        room = (table.limit - used)[table.row[:, groups]][:, :, None]
        harmless = allowed[groups] & ((shift <= room) | (shift <= 0)).all(axis=0)
        excess = float(over[worst])
        if not (
            _lower_row(table, worth, choice, harmless, slot, groups, excess)
            or _lower_row(table, worth, choice, allowed[groups], slot, groups, excess)
        ):
            return None
        used = table.used(choice)
    return None


def raise_until_kept(
    table: RowTable, prices: Prices, best_at: Callable[[FloatArray], IntArray | None]
) -> IntArray | None:
    """Raise the prices of broken rows until the best choice at them breaks none; else None.

    Args:
        table: the model.
        prices: where to start.
        best_at: int64[group], the choice that is best at prices (float64[rows]); None for none.
    """
    price, choice = prices.price.copy(), prices.choice
    typical = float(np.max(price, initial=0.0)) or 1.0
    factor = np.full(table.rows, 0.002)
    limit = table.limit[:-1]
    for _ in range(_RAISES):
        over = table.used(choice)[:-1] - limit
        broken = over > _TOLERANCE * np.maximum(1.0, np.abs(limit))
        if not broken.any():
            return choice
        price = np.where(broken, np.maximum(price, 1e-3 * typical) * (1.0 + factor), price)
        factor = np.where(broken, np.minimum(factor * 1.5, 1.0), factor)
        taken = best_at(price)
        if taken is None:
            return None
        choice = taken
    return None


def rows_with_groups(table: RowTable) -> list[IntArray]:
    """For every row, the empty one last, the groups that it touches."""
    return [groups for _, groups in _slots_of_rows(table)]


def _slots_of_rows(table: RowTable) -> list[tuple[IntArray, IntArray]]:
    """For every row the slots and groups where it is found."""
    order = np.argsort(table.row.ravel(), kind="stable")
    edges = np.searchsorted(table.row.ravel()[order], np.arange(table.rows + 2))
    groups = table.row.shape[1]
    return [
        (order[begin:end] // groups, order[begin:end] % groups)
        for begin, end in itertools.pairwise(edges)
    ]


def _lower_row(
    table: RowTable,
    worth: FloatArray,
    choice: IntArray,
    allowed: BoolArray,
    slot: IntArray,
    groups: IntArray,
    excess: float,
) -> bool:
    """Take the changes that lose least per unit of one row until ``excess`` is gone.

    ``allowed`` is bool[n, option] for ``groups`` (int64[n]). False when nothing was changed.
    """
    now = choice[groups]
    place = np.arange(len(groups))
    coefficient = table.coefficient[slot, groups]
    saved = coefficient[place, now][:, None] - coefficient
    lost = worth[groups, now][:, None] - worth[groups]
    can = allowed & (saved > 0)
    rate = np.where(can, np.maximum(lost, 0.0) / np.where(can, saved, 1.0), np.inf)
    # Of options that lose alike, the one that saves least: no more is given up than needed.
    option = np.argmin(rate, axis=1)
    best = rate[place, option]
    movers = np.flatnonzero(np.isfinite(best))
    if not len(movers):
        return False
    movers = movers[np.argsort(best[movers], kind="stable")]
    freed = np.cumsum(saved[movers, option[movers]])
    needed = int(np.searchsorted(freed, excess)) + 1
    moved = movers[:needed]
    choice[groups[moved]] = option[moved]
    return True


def fill(
    table: RowTable,
    worth: FloatArray,
    choice: IntArray,
    allowed: BoolArray,
) -> IntArray:
    """Take changes that gain value and fit, the most worth at the prices first.

    Args:
        table: the model.
        worth: float64[group, option], value at the prices.
        choice: int64[group], within every row.
        allowed: bool[group, option], options to move to.
    """
    choice = choice.copy()
    groups = np.arange(len(choice))
    open_groups = groups
    for _ in range(_FILLINGS):
        left = np.append((table.limit - table.used(choice))[:-1], np.inf)
        shift = table.shifts(choice, open_groups)
        room = left[table.row[:, open_groups]][:, :, None]
        fits = ((shift <= room) | (shift <= 0)).all(axis=0)
        now = table.value[open_groups, choice[open_groups]]
        gain = np.where(allowed[open_groups], table.value[open_groups] - now[:, None], -np.inf)
        ranked = np.where(fits & (gain > 0), worth[open_groups], -np.inf)
        option = np.argmax(ranked, axis=1)
        place = np.arange(len(open_groups))
        found = np.isfinite(ranked[place, option])
        if not found.any():
            return choice
        place = place[found]
        option, movers = option[found], open_groups[found]
        lost = worth[movers, choice[movers]] - ranked[place, option]
        order = np.argsort(lost / np.maximum(gain[place, option], 1e-300), kind="stable")
        place, option, movers = place[order], option[order], movers[order]
        taken = _fitting_together(table, shift[:, place, option], movers, left)
        choice[movers[taken]] = option[taken]
        # Who cannot move now cannot move later either, unless others make room.
        open_groups = np.sort(movers)
    return choice


def _fitting_together(
    table: RowTable, shift: FloatArray, movers: IntArray, left: FloatArray
) -> BoolArray:
    """bool[n]: movers, in order, that fit with all before them in every row they touch."""
    taken = np.ones(len(movers), dtype=bool)
    for slot in range(len(table.row)):
        row = table.row[slot, movers]
        order = np.argsort(row, kind="stable")
        ordered = np.maximum(shift[slot, order], 0.0)
        running = np.cumsum(ordered)
        starts = np.searchsorted(row[order], row[order], side="left")
        before = np.where(starts > 0, running[np.maximum(starts - 1, 0)], 0.0)
        ok = running - before <= left[row[order]] * (1 + 1e-15)
        part = np.empty(len(movers), dtype=bool)
        part[order] = ok | (ordered <= 0)
        taken &= part
    # A row can be in several slots of different movers: check the whole, keep a prefix if not.
    used = np.bincount(
        table.row[:, movers[taken]].ravel(),
        weights=np.maximum(shift[:, taken], 0.0).ravel(),
        minlength=table.rows + 1,
    )
    if (used > left + _TOLERANCE * np.maximum(1.0, np.abs(left))).any():
        first = int(np.argmax(taken))
        taken[:] = False
        taken[first] = True
    return taken
