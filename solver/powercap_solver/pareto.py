"""Which of many rows no other row matches in every column, and a thinner choice of them."""

from __future__ import annotations

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray

_BLOCK = 512


def first_matched(costs: FloatArray) -> BoolArray:
    """bool[row]: rows that another row is no worse than in every column; of equals the first stays.

    Rows are taken in an order in which whoever removes a row stands before it, and compared with
    those that stayed: the cost is rows times rows that stay.

    Args:
        costs: float64[row, column], smaller is better.
    """
    # No worse in every column is no later in this order; what is equal keeps its place.
    order = np.lexsort(costs.T[::-1])
    ranked = costs[order]
    front = np.zeros((0, costs.shape[1]))
    is_matched = np.zeros(len(costs), dtype=bool)
    earlier = np.arange(_BLOCK)[:, None] < np.arange(_BLOCK)[None, :]
    for start in range(0, len(ranked), _BLOCK):
        block = ranked[start : start + _BLOCK]
        size = len(block)
        matched = _no_worse(front, block).any(axis=0)
        matched |= (_no_worse(block, block) & earlier[:size, :size]).any(axis=0)
        is_matched[order[start : start + size]] = matched
        front = np.concatenate([front, block[~matched]])
    return is_matched


def _no_worse(one: FloatArray, other: FloatArray) -> BoolArray:
    """bool[row of one, row of other]: whether the first is no worse in every column."""
    result = np.ones((len(one), len(other)), dtype=bool)
    for column in range(one.shape[1]):
        result &= one[:, column][:, None] <= other[:, column][None, :]
    return result


def thinned(
    places: IntArray, stays: BoolArray, gain: FloatArray, cost: FloatArray, *, count: int
) -> IntArray:
    """Return ``count`` of ``places``, ascending, evenly over their gain, the cheapest of each part.

    Args:
        places: int64[place], of rows.
        stays: bool[place]: those that are kept in any case, even when there are more.
        gain: float64[row].
        cost: float64[row].
        count: How many.
    """
    # The one of most gain marks the end of the range: it stays as well.
    stays = stays.copy()
    stays[np.lexsort((cost[places], -gain[places]))[0]] = True
    others = places[~stays]
    others = others[np.lexsort((cost[others], gain[others]))]
    parts = np.array_split(others, max(0, count - int(stays.sum())) or 1)
    if int(stays.sum()) >= count:
        parts = []
    chosen = [int(part[np.argmin(cost[part])]) for part in parts if len(part)]
    kept: IntArray = np.sort(np.concatenate([places[stays], np.array(chosen, dtype=np.int64)]))
    return kept
