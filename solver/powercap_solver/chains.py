"""Best paths of many chains at once: a dynamic program over the periods.

    V[0,k] = value[0,k] - first loss[k]
    V[t,k] = value[t,k] + max over j allowed before k of (V[t-1,j] - loss[t,j,k])

Options ascend in size, so the options allowed before k are a range, and within its lower and
upper part (sizes up to that of k, from that of k on) the loss splits into a term of j and one of
k, provided ``late`` ascends with size as well:

    j <= k    change_cost * (size[k] - size[j]) + late[t,k] - late[t,j]
    j >= k    change_cost * (size[j] - size[k])

So each period needs two range maxima per option (a sparse table of powers of two): the cost is
chains * options * log(options), without a loop over pairs. Where ``late`` does not ascend all
pairs are looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.links import Links

_PAIR_CELLS = 4_000_000
_ROUNDING = 2e-15
"""Relative error of one step of the program: of about nine operations, each of 2^-53."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BestPaths:
    """The best path of every chain."""

    choice: IntArray | None
    """int64[group]; None when some chain has no path that keeps its ramps."""
    bound: float
    """No choice is worth more; -inf when there is none."""


def best_paths(value: FloatArray, allowed: BoolArray, links: Links) -> BestPaths:
    """Choose the best path of every chain, rows left aside.

    Args:
        value: float64[group, option].
        allowed: bool[group, option].
        links: what links the groups.
    """
    return Chains(links).best(value, allowed)


class Chains:
    """The dynamic program of one set of links; keeps what does not depend on values."""

    def __init__(self, links: Links) -> None:
        """Prepare the ranges of the ramps."""
        self.links = links
        self._first = links.first_allowed()
        self._first_loss = links.first_losses()
        size = links.size
        options = size.shape[1]
        self._ramps = links.ramps
        late = links.late
        self._is_ascending = late is None or bool((np.diff(late, axis=1) >= 0).all())
        if not self._is_ascending and late is not None:
            # Padding repeats no size: only real options need to ascend.
            real = size < np.iinfo(np.int32).max
            real = np.repeat(real, links.periods, axis=0)
            self._is_ascending = bool(((np.diff(late, axis=1) >= 0) | ~real[:, 1:]).all())
        self._cost = links.change_cost[:, None] * np.where(size < np.iinfo(np.int32).max, size, 0.0)
        self._options = options
        self._most_lost = self._largest_losses()

    def best(self, value: FloatArray, allowed: BoolArray) -> BestPaths:
        """Choose the best path of every chain."""
        periods = self.links.periods
        masked = np.where(allowed, value, -np.inf).reshape(-1, periods, self._options)
        table = self._forward(masked)
        chains = np.arange(len(masked))
        choice = np.zeros((len(masked), periods), dtype=np.int64)
        choice[:, -1] = np.argmax(table[-1], axis=1)
        worth = table[-1][chains, choice[:, -1]]
        if not np.isfinite(worth).all():
            return BestPaths(choice=None, bound=-math.inf)
        for period in range(periods - 1, 0, -1):
            scores = table[period - 1] - self._losses_into(period, choice[:, period])
            choice[:, period - 1] = np.argmax(scores, axis=1)
        total = math.fsum(worth)
        # Partial sums and losses may be far larger than the worth that remains of them.
        largest = float(np.where(allowed, np.abs(value), 0.0).max(axis=1).sum())
        slack = _ROUNDING * periods * (largest + self._most_lost)
        return BestPaths(choice=choice.ravel(), bound=total + slack)

    def through(self, value: FloatArray, allowed: BoolArray) -> FloatArray:
        """float64[group, option]: the chain's best path that takes the option; -inf if none."""
        periods = self.links.periods
        masked = np.where(allowed, value, -np.inf).reshape(-1, periods, self._options)
        table = self._forward(masked)
        behind = np.zeros((len(masked), self._options))
        result = np.empty_like(masked)
        result[:, -1] = table[-1]
        for period in range(periods - 1, 0, -1):
            behind = self._backward_step(period, masked[:, period] + behind)
            result[:, period - 1] = table[period - 1] + behind
        return result.reshape(-1, self._options)

    def _forward(self, masked: FloatArray) -> FloatArray:
        """float64[period, chain, option]: the best way up to each option."""
        periods = self.links.periods
        table = np.empty((periods, len(masked), self._options))
        table[0] = np.where(self._first, masked[:, 0] - self._first_loss, -np.inf)
        for period in range(1, periods):
            table[period] = masked[:, period] + self._forward_step(period, table[period - 1])
        return table

    def _largest_losses(self) -> float:
        """Sum over the chains of the largest numbers that enter and leave a step again."""
        links = self.links
        is_real = links.size < np.iinfo(np.int32).max
        largest = self._cost.max(axis=1)
        largest += np.where(is_real & self._first, self._first_loss, 0.0).max(axis=1)
        if links.late is not None:
            late = np.abs(links.late).reshape(len(largest), links.periods, -1)
            largest += np.where(is_real[:, None, :], late, 0.0).max(axis=(1, 2))
        return float(largest.sum())

    def _late(self, period: int) -> FloatArray | None:
        late = self.links.late
        if late is None:
            return None
        return late.reshape(-1, self.links.periods, self._options)[:, period]

    def _forward_step(self, period: int, table: FloatArray) -> FloatArray:
        late = self._late(period)
        if not self._is_ascending:
            return self._all_pairs(table, period, is_forward=True)
        lower = self._cost if late is None else self._cost + late
        from_below = self._ramps.ranges_before.maxima_up_to(table + lower) - lower
        from_above = self._ramps.ranges_before.maxima_from(table - self._cost) + self._cost
        return np.maximum(from_below, from_above)

    def _backward_step(self, period: int, table: FloatArray) -> FloatArray:
        late = self._late(period)
        if not self._is_ascending:
            return self._all_pairs(table, period, is_forward=False)
        lower = self._cost if late is None else self._cost + late
        upwards = self._ramps.ranges_after.maxima_from(table - lower) + lower
        downwards = self._ramps.ranges_after.maxima_up_to(table + self._cost) - self._cost
        return np.maximum(upwards, downwards)

    def _all_pairs(self, table: FloatArray, period: int, *, is_forward: bool) -> FloatArray:
        chunk = max(1, _PAIR_CELLS // self._options**2)
        result = np.empty_like(table)
        for start in range(0, len(table), chunk):
            part = slice(start, start + chunk)
            loss = self._pair_losses(period, part)  # [chain, j, k]
            if is_forward:
                ways = np.where(
                    self._ramps.before[part].transpose(0, 2, 1),
                    table[part, :, None] - loss,
                    -np.inf,
                )
                result[part] = ways.max(axis=1)
            else:
                ways = np.where(self._ramps.after[part], table[part, None, :] - loss, -np.inf)
                result[part] = ways.max(axis=2)
        return result

    def _pair_losses(self, period: int, part: slice) -> FloatArray:
        cost = self._cost[part]
        loss = np.abs(cost[:, None, :] - cost[:, :, None])
        late = self._late(period)
        if late is not None:
            loss = loss + np.maximum(0.0, late[part, None, :] - late[part, :, None])
        return loss

    def _losses_into(self, period: int, option: IntArray) -> FloatArray:
        """float64[chain, j]: loss from j into ``option`` (int64[chain]); inf if not allowed."""
        chains = np.arange(len(option))
        loss = np.abs(self._cost - self._cost[chains, option][:, None])
        late = self._late(period)
        if late is not None:
            loss = loss + np.maximum(0.0, late[chains, option][:, None] - late)
        return np.where(self._ramps.before[chains, option], loss, np.inf)
