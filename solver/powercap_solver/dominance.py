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
