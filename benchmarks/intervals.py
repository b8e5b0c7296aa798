"""Statistics of paired times: nothing here is decided from a single run.

With d the logarithms of the ratios of paired times, the centre is the Hodges-Lehmann estimate
(the median of all means of two of them, each with itself included) and the interval the one that
the exact Wilcoxon signed-rank test does not refuse. Both bear outliers, which times on a shared
machine have. Below ``pairs_needed`` pairs no interval of that confidence exists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from powercap_solver.arrays import FloatArray

SHIFT_SECONDS = 0.001
"""Shift of geometric means and ratios: differences far below it do not count."""
_EXACT_UP_TO = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its interval; infinite where there are too few pairs."""

    centre: float
    low: float
    high: float
    pairs: int


def shifted_mean(seconds: list[float]) -> float:
    """Geometric mean shifted by ``SHIFT_SECONDS``; NaN of nothing."""
    if not seconds:
        return math.nan
    logs = [math.log(each + SHIFT_SECONDS) for each in seconds]
    return math.exp(math.fsum(logs) / len(logs)) - SHIFT_SECONDS


def log_ratio(after: float, before: float) -> float:
    """Logarithm of the ratio of two shifted times."""
    return math.log((after + SHIFT_SECONDS) / (before + SHIFT_SECONDS))


def ratio_interval(log_ratios: list[float], *, confidence: float) -> Interval:
    """The centre and the interval of ``exp`` of ``log_ratios``."""
    values = np.array(log_ratios)
    count = len(values)
    if count == 0:
        return Interval(centre=math.nan, low=0.0, high=math.inf, pairs=0)
    first, second = np.triu_indices(count)
    means = np.sort((values[first] + values[second]) / 2)
    skipped = _skipped(count, 1 - confidence)
    centre = math.exp(float(np.median(means)))
    if skipped is None:
        return Interval(centre=centre, low=0.0, high=math.inf, pairs=count)
    return Interval(
        centre=centre,
        low=math.exp(float(means[skipped])),
        high=math.exp(float(means[-1 - skipped])),
        pairs=count,
    )


def pairs_needed(confidence: float) -> int:
    """Fewest pairs for which an interval of this confidence exists."""
    return math.ceil(1 - math.log2(1 - confidence))


def _skipped(count: int, error: float) -> int | None:
    """How many of the sorted means lie outside on each side; None when none may."""
    if count > _EXACT_UP_TO:
        spread = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
        return max(
            0, math.floor(count * (count + 1) / 4 - NormalDist().inv_cdf(1 - error / 2) * spread)
        )
    below = np.cumsum(_signed_rank(count))
    allowed = np.flatnonzero(2 * below <= error * (1 + 1e-9))
    return int(allowed[-1]) if len(allowed) else None


def _signed_rank(count: int) -> FloatArray:
    """float64[sum]: probability of each sum of signed ranks."""
    ways = np.ones(1)
    for rank in range(1, count + 1):
        ways = (np.append(ways, np.zeros(rank)) + np.append(np.zeros(rank), ways)) / 2
    return ways
