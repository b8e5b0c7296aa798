"""Ramps made ready for the dynamic program: which options may follow which, as ranges.

Options ascend in size, so those that a ramp allows before or after an option are a range around
it; maxima over all ranges at once come from a sparse table of powers of two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Ramps:
    """Which options may follow which; the same whatever is lost by changing."""

    size: FloatArray
    """float64[chain, option], replicas."""
    max_raise: FloatArray
    """float64[chain]."""
    max_lower: FloatArray
    """float64[chain]."""

    @cached_property
    def before(self) -> BoolArray:
        """bool[chain, k, j]: j of the period before allows k."""
        return self._allowed(self.max_raise, self.max_lower)

    @cached_property
    def after(self) -> BoolArray:
        """bool[chain, k, j]: j of the period after is allowed by k."""
        return self._allowed(self.max_lower, self.max_raise)

    @cached_property
    def ranges_before(self) -> Ranges:
        """``before`` as ranges."""
        return Ranges(self.before)

    @cached_property
    def ranges_after(self) -> Ranges:
        """``after`` as ranges."""
        return Ranges(self.after)

    def _allowed(self, down: FloatArray, up: FloatArray) -> BoolArray:
        """bool[chain, k, j]: size[k] - down <= size[j] <= size[k] + up."""
        low, high = self.size - down[:, None], self.size + up[:, None]
        allowed: BoolArray = (self.size[:, None, :] >= low[:, :, None]) & (
            self.size[:, None, :] <= high[:, :, None]
        )
        return allowed


class Ranges:
    """Range maxima over the options that a mask allows; each mask row is one range around k."""

    def __init__(self, mask: BoolArray) -> None:
        """Take bool[chain, k, j], for each k a range of j that holds k itself."""
        chains, options, _ = mask.shape
        place = np.arange(options)
        low = np.argmax(mask, axis=2)
        high = options - 1 - np.argmax(mask[:, :, ::-1], axis=2)
        self._shape = (chains, options)
        self._levels = max(1, int(math.log2(options)) + 1)
        self._up_to = self._lookups(low, np.broadcast_to(place, low.shape))
        self._from = self._lookups(np.broadcast_to(place, high.shape), high)

    def _lookups(self, low: IntArray, high: IntArray) -> tuple[IntArray, IntArray]:
        """Flat places in the stacked table of the two powers of two that cover each range."""
        chains, options = self._shape
        level = np.floor(np.log2(high - low + 1)).astype(np.int64)
        chain = np.arange(chains)[:, None]
        flat = (level * chains + chain) * options
        return (flat + low).ravel(), (flat + high - (1 << level) + 1).ravel()

    def maxima_up_to(self, table: FloatArray) -> FloatArray:
        """float64[chain, k]: the most of the range's entries up to k."""
        return self._maxima(table, self._up_to)

    def maxima_from(self, table: FloatArray) -> FloatArray:
        """float64[chain, k]: the most of the range's entries from k on."""
        return self._maxima(table, self._from)

    def _maxima(self, table: FloatArray, lookups: tuple[IntArray, IntArray]) -> FloatArray:
        stacked = np.empty((self._levels, *self._shape))
        stacked[0] = table
        for level in range(1, self._levels):
            half = 1 << (level - 1)
            np.copyto(stacked[level], stacked[level - 1])
            np.maximum(
                stacked[level - 1][:, :-half],
                stacked[level - 1][:, half:],
                out=stacked[level][:, :-half],
            )
        flat = stacked.ravel()
        best = np.maximum(flat.take(lookups[0]), flat.take(lookups[1]))
        result: FloatArray = best.reshape(self._shape)
        return result
