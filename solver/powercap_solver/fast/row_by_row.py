"""One row at a time: its groups chosen anew and exactly, other rows charged by their prices.

In a tree of caps most rows are crossed by few groups (a rack). What such a row leaves unused costs
its price; its groups alone face one knapsack, with the caps above and the GPU pools in their
prices. Where the answer breaks one of those, others are lowered for it and what is left is filled.
It counts only where every row holds and the total is worth more. (A large neighbourhood search
whose neighbourhoods are the rows; the rows that waste most come first.)
"""

from __future__ import annotations

import numpy as np

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.compact.model import ChoiceModel, Row, SolveLimits
from powercap_solver.fast.one_row import solve_one_row
from powercap_solver.fast.repair import fill, lower, rows_with_groups
from powercap_solver.fast.rowtable import RowTable

_ROUNDS = 2
_MOST_GROUPS = 400
"""Rows crossed by more groups than this waste little of what they are worth."""
_LEAST_WASTE = 0.01
"""Of the gap: rows that waste less are left alone."""
_LIMITS = SolveLimits(relative_gap=1e-6, seconds=None)
_TOLERANCE = 1e-13


def row_by_row(
    table: RowTable,
    worth: FloatArray,
    choice: IntArray,
    price: FloatArray,
    *,
    bound: float,
    enough: float,
) -> IntArray:
    """Improve ``choice`` (int64[group]) until no row gains or the gap is ``enough``.

    Args:
        table: the model.
        worth: float64[group, option], value at the prices.
        choice: within every row.
        price: float64[rows], scaled.
        bound: scaled, what no choice exceeds.
        enough: scaled gap at which to stop.
    """
    groups = np.arange(len(choice))
    members = [np.unique(each) for each in rows_with_groups(table)]
    for _ in range(_ROUNDS):
        is_better = False
        waste = price * np.maximum((table.limit - table.used(choice))[:-1], 0.0)
        for row in np.argsort(-waste, kind="stable").tolist():
            gap = bound - float(table.value[groups, choice].sum())
            if gap <= enough:
                return choice
            if waste[row] <= _LEAST_WASTE * gap:
                break
            if len(members[row]) > _MOST_GROUPS:
                continue
            better = _anew(table, worth, choice, price, row, members[row])
            if better is not None:
                choice, is_better = better, True
        if not is_better:
            break
    return choice


def _anew(
    table: RowTable,
    worth: FloatArray,
    choice: IntArray,
    price: FloatArray,
    row: int,
    groups: IntArray,
) -> IntArray | None:
    """``choice`` with the groups of ``row`` chosen anew; None where that is no better."""
    place = np.arange(len(groups))
    slots = table.row[:, groups]
    own_slot = np.argmax(slots == row, axis=0)
    weight = table.coefficient[own_slot, groups]
    left = table.limit - table.used(choice)
    charged = np.zeros(weight.shape)
    for other in np.unique(slots).tolist():
        if other in (row, table.rows):
            continue
        touched = (slots == other).any(axis=0)
        slot = np.argmax(slots == other, axis=0)
        coefficient = np.where(touched[:, None], table.coefficient[slot, groups], 0.0)
        charged += price[other] * coefficient
    now = choice[groups]
    limit = float(left[row] + weight[place, now].sum())
    sub = ChoiceModel(
        value=np.where(table.allowed[groups], table.value[groups] - charged, 0.0),
        allowed=table.allowed[groups],
        rows=(Row(groups=place, coefficient=weight, limit=limit, slack=0.0),),
        hint=now,
    )
    answer = solve_one_row(sub, _LIMITS)
    if answer.choice is None:
        return None
    tried = choice.copy()
    tried[groups] = answer.choice
    better: IntArray | None = tried
    over = table.used(tried) - table.limit
    if (over[:-1] > _TOLERANCE * np.maximum(1.0, np.abs(table.limit[:-1]))).any():
        better = lower(table, worth, tried, table.allowed)
    if better is None or (better == choice).all():
        return None
    better = fill(table, worth, better, table.allowed)
    everyone = np.arange(len(choice))
    gained = table.value[everyone, better].sum() - table.value[everyone, choice].sum()
    return better if gained > 1e-15 else None
