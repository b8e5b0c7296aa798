"""Exchanges under many rows: two changes together that keep every row and gain.

When repair is done no single change gains and fits. Two may: a raise that breaks a row beside a
lowering that makes room for it. What a row leaves unused costs its price, so rows are taken in the
order of what they waste; within a row only the changes that lose least at the prices can gain
together, and all pairs of those are tried at once.
"""

from __future__ import annotations

import numpy as np

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.fast.repair import rows_with_groups
from powercap_solver.fast.rowtable import RowTable

_ROUNDS = 3
"""Times that all rows are gone through."""
_CHANGES = 360
"""Most changes of a row that are paired."""
_PAIRS_PER_ROW = 12
_LEAST_WASTE = 1e-3
"""Of the gap: rows that waste less are left alone."""


def exchange(
    table: RowTable,
    worth: FloatArray,
    choice: IntArray,
    price: FloatArray,
    *,
    bound: float,
    enough: float,
) -> IntArray:
    """Improve ``choice`` (int64[group]) by pairs until none gains or the gap is ``enough``.

    Args:
        table: the model.
        worth: float64[group, option], value at the prices.
        choice: within every row.
        price: float64[rows], scaled.
        bound: scaled, what no choice exceeds.
        enough: scaled gap at which to stop.
    """
    choice = choice.copy()
    groups = np.arange(len(choice))
    members = rows_with_groups(table)
    for _ in range(_ROUNDS):
        before = float(table.value[groups, choice].sum())
        left = (table.limit - table.used(choice))[:-1]
        waste = price * np.maximum(left, 0.0)
        for row in np.argsort(-waste, kind="stable").tolist():
            gap = bound - float(table.value[groups, choice].sum())
            if gap <= enough:
                return choice
            if waste[row] <= _LEAST_WASTE * gap:
                break
            of_row = np.unique(members[row])
            for _ in range(_PAIRS_PER_ROW):
                if not _exchange_once(table, worth, choice, of_row):
                    break
        if float(table.value[groups, choice].sum()) <= before * (1 + 1e-12):
            break
    return choice


def _exchange_once(table: RowTable, worth: FloatArray, choice: IntArray, groups: IntArray) -> bool:
    """Make the best pair of changes among ``groups`` (int64[n]); False when none gains."""
    now = choice[groups]
    lost = worth[groups, now][:, None] - worth[groups]
    lost[np.arange(len(groups)), now] = np.inf
    flat = np.flatnonzero(np.isfinite(lost))
    if len(flat) > _CHANGES:
        keep = np.argpartition(lost.ravel()[flat], _CHANGES)[:_CHANGES]
        flat = np.sort(flat[keep])
    place, option = flat // lost.shape[1], flat % lost.shape[1]
    changed = groups[place]
    gain = table.value[changed, option] - table.value[changed, choice[changed]]
    shift, touched = _dense(table, choice, changed, option)
    left = (table.limit - table.used(choice))[touched]
    total = gain[:, None] + gain[None, :]
    total[place[:, None] == place[None, :]] = -np.inf
    fits = total > 1e-15
    for column in range(len(touched)):
        # A pair that uses no more of a row than before fits there whatever is left.
        fits &= shift[:, column][:, None] + shift[:, column][None, :] <= max(left[column], 0.0)
    if not fits.any():
        return False
    best = int(np.argmax(np.where(fits, total, -np.inf)))
    one, two = divmod(best, len(gain))
    choice[changed[one]], choice[changed[two]] = option[one], option[two]
    return True


def _dense(
    table: RowTable, choice: IntArray, groups: IntArray, options: IntArray
) -> tuple[FloatArray, IntArray]:
    """float64[change, row] that each change adds to the rows touched, and those (int64[row])."""
    rows = table.row[:, groups]
    touched = np.unique(rows)
    touched = touched[touched < table.rows]
    column = np.full(table.rows + 1, len(touched), dtype=np.int64)
    column[touched] = np.arange(len(touched))
    dense = np.zeros((len(groups), len(touched) + 1))
    place = np.arange(len(groups))
    for slot in range(len(table.row)):
        shift = (
            table.coefficient[slot, groups, options]
            - table.coefficient[slot, groups, choice[groups]]
        )
        # A row stands in one slot of a group: no place repeats within one addition.
        dense[place, column[rows[slot]]] += shift
    return dense[:, :-1], touched
