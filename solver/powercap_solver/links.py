"""What links consecutive periods of a deployment: ramps, switching cost, late starts.

A *chain* is a deployment over the periods; its groups lie side by side,
``g = chain * periods + t``. With j the option of t - 1 and k that of t:

    allowed     -max_lower <= size[k] - size[j] <= max_raise
    lost        change_cost * |size[k] - size[j]| + max(0, late[t,k] - late[t,j])

``late`` is what the option would be worth in t through what it serves: a replica that is new in t
draws and does not serve yet, so the lesser of both options counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.ramps import Ramps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Links:
    """The links of every chain; options ascend in size."""

    periods: int
    size: FloatArray
    """float64[chain, option], replicas."""
    max_raise: FloatArray
    """float64[chain], infinite for no limit."""
    max_lower: FloatArray
    """float64[chain], infinite for no limit."""
    change_cost: FloatArray
    """float64[chain], value lost per replica changed."""
    initial_size: FloatArray
    """float64[chain], NaN when not known."""
    late: FloatArray | None = None
    """float64[chain * periods, option]; None when no chain starts late."""
    initial_late: FloatArray | None = None
    """float64[chain]: ``late`` of period 0 for what was there before; infinite or None: nothing
    is lost."""
    shared_ramps: Ramps | None = None
    """The ramps made ready; copies with other losses share them."""

    @property
    def ramps(self) -> Ramps:
        """The ramps made ready for the dynamic program."""
        if self.shared_ramps is not None:
            return self.shared_ramps
        return Ramps(size=self.size, max_raise=self.max_raise, max_lower=self.max_lower)

    def losses(self, choice: IntArray) -> FloatArray:
        """float64[group]: value lost on the way into each group of ``choice`` (int64[group])."""
        path = choice.reshape(-1, self.periods)
        chains = np.arange(len(path))[:, None]
        size = self.size[chains, path]
        change = np.abs(np.diff(size, axis=1, prepend=self.initial_size[:, None]))
        lost = self.change_cost[:, None] * np.where(np.isnan(change), 0.0, change)
        if self.late is not None:
            late = self.late.reshape(len(path), self.periods, -1)
            periods = np.arange(self.periods)
            now = late[chains, periods, path]
            before = np.empty_like(now)
            before[:, 0] = np.inf if self.initial_late is None else self.initial_late
            before[:, 1:] = late[chains, periods[1:], path[:, :-1]]
            lost = lost + np.maximum(0.0, now - before)
        result: FloatArray = lost.ravel()
        return result

    def holds(self, choice: IntArray) -> bool:
        """Whether ``choice`` (int64[group]) keeps every ramp."""
        path = choice.reshape(-1, self.periods)
        size = self.size[np.arange(len(path))[:, None], path]
        step = np.diff(size, axis=1, prepend=self.initial_size[:, None])
        with np.errstate(invalid="ignore"):
            is_broken = (step > self.max_raise[:, None]) | (-step > self.max_lower[:, None])
        return not is_broken.any()

    def of_chains(self, chains: IntArray) -> Links:
        """Return the links of ``chains`` (int64[n]) alone."""
        late = self.late
        if late is not None:
            late = late.reshape(len(self.size), self.periods, -1)[chains]
            late = late.reshape(len(chains) * self.periods, -1)
        return replace(
            self,
            size=self.size[chains],
            max_raise=self.max_raise[chains],
            max_lower=self.max_lower[chains],
            change_cost=self.change_cost[chains],
            initial_size=self.initial_size[chains],
            late=late,
            initial_late=None if self.initial_late is None else self.initial_late[chains],
            shared_ramps=None,
        )

    def scaled(self, value_scale: float) -> Links:
        """Return the same with losses in units of ``value_scale``."""
        return replace(
            self,
            change_cost=self.change_cost / value_scale,
            late=None if self.late is None else self.late / value_scale,
            initial_late=None if self.initial_late is None else self.initial_late / value_scale,
        )

    def ramps_only(self) -> Links:
        """Return the same ramps where nothing is lost by changing."""
        return replace(
            self, change_cost=np.zeros_like(self.change_cost), late=None, initial_late=None
        )

    def first_allowed(self) -> BoolArray:
        """bool[chain, option]: options that the first period's ramp allows."""
        with np.errstate(invalid="ignore"):
            step = self.size - self.initial_size[:, None]
            is_broken = (step > self.max_raise[:, None]) | (-step > self.max_lower[:, None])
        return np.logical_not(is_broken)

    def first_losses(self) -> FloatArray:
        """float64[chain, option]: value lost on the way into the first period."""
        change = np.abs(self.size - self.initial_size[:, None])
        lost = self.change_cost[:, None] * np.where(np.isnan(change), 0.0, change)
        if self.late is not None and self.initial_late is not None:
            now = self.late.reshape(len(self.size), self.periods, -1)[:, 0]
            lost = lost + np.maximum(0.0, now - self.initial_late[:, None])
        losses: FloatArray = lost
        return losses
