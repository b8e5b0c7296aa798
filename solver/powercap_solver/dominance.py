"""Options that another option of the same group makes needless."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from powercap_solver.problem import BoolArray, FloatArray

_CHUNK_CELLS = 4_000_000
"""Pairs of options compared at once; bounds the memory of the comparison."""


def undominated(allowed: BoolArray, costs: Sequence[FloatArray]) -> BoolArray:
    """Keep of ``allowed`` what no other allowed option of the group matches in every cost.

    Option j removes option k when j is no worse in every cost (float64[group, option], smaller
    is better) and better in one, or equal in all and earlier: of equals the first stays, which
    makes flat tables (a ceiling above the need) cost nothing and keeps results deterministic.
    """
    groups, options = allowed.shape
    keep = allowed.copy()
    earlier = np.arange(options)[:, None] < np.arange(options)[None, :]
    chunk = max(1, _CHUNK_CELLS // max(1, options * options))
    for start in range(0, groups, chunk):
        part = slice(start, start + chunk)
        no_worse = allowed[part, :, None] & allowed[part, None, :]
        better = np.zeros_like(no_worse)
        for cost in costs:
            one, other = cost[part, :, None], cost[part, None, :]
            no_worse &= one <= other
            better |= one < other
        keep[part] &= ~(no_worse & (better | earlier)).any(axis=1)
    return keep


def undominated_in_one(allowed: BoolArray, value: FloatArray, weight: FloatArray) -> BoolArray:
    """Keep of ``allowed`` what no lighter option of the group matches in value.

    Needs no pairs: in the order of weights, an option stays when it is worth more than all before
    it; of equals the first stays.
    """
    masked = np.where(allowed, value, -np.inf)
    before = np.maximum.accumulate(masked, axis=1)
    keep = allowed.copy()
    keep[:, 1:] &= masked[:, 1:] > before[:, :-1]
    heaviest = np.maximum.accumulate(np.where(allowed, weight, -np.inf), axis=1)
    is_sorted = ((weight[:, 1:] > heaviest[:, :-1]) | ~allowed[:, 1:]).all(axis=1)
    others = np.flatnonzero(~is_sorted)
    if len(others):
        keep[others] = _undominated_unsorted(allowed[others], masked[others], weight[others])
    return keep


def _undominated_unsorted(allowed: BoolArray, masked: FloatArray, weight: FloatArray) -> BoolArray:
    # Of equal weights the most valuable first, of equal ones the first.
    order = np.lexsort((-masked, np.where(allowed, weight, np.inf)), axis=1)
    ranked = np.take_along_axis(masked, order, axis=1)
    before = np.maximum.accumulate(ranked, axis=1)
    sorted_keep = np.ones_like(allowed)
    sorted_keep[:, 1:] = ranked[:, 1:] > before[:, :-1]
    keep = np.empty_like(sorted_keep)
    np.put_along_axis(keep, order, sorted_keep, axis=1)
    result: BoolArray = allowed & keep
    return result
