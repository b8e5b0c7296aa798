"""The choice model: one option per group, linear rows, a linear value to maximise.

Data (g group, k option, r row):

    value[g,k]          worth of the option
    allowed[g,k]        whether it may be chosen
    a[r,g,k], limit[r]  coefficients and right-hand side of row r

Variables: x[g,k] in {0,1}.

Maximise sum value[g,k] x[g,k] less what the links lose, subject to sum over k of x[g,k] = 1 for
every g, sum a[r,g,k] x[g,k] <= limit[r] for every r, and the ramps of the links (``links``).

A group is a deployment in a period. This is the textbook model: it is the reference that every
faster method is tested against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.links import Links
from powercap_solver.plan import StoppedBy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One row ``sum coefficient x <= limit`` over some of the groups."""

    groups: IntArray
    """int64[n]: the groups it touches."""
    coefficient: FloatArray
    """float64[n, option]."""
    limit: float
    slack: float
    """By how much a rounded choice may exceed ``limit``, in its unit."""
    kind: str = ""
    """What the row is about: ``cap``, ``pool``, ``rise``, ``fall``, ``budget``, ``floor``, …"""
    place: tuple[int, ...] = ()
    """Where it belongs: domain and period of a cap, and so on."""
    is_raised: bool = False
    """Whether ``limit`` is the least that any choice uses, in place of a lower one asked for."""

    def used(self, choice: IntArray) -> float:
        """Left-hand side of the row under ``choice`` (int64[group]), exactly summed."""
        picked = self.coefficient[np.arange(len(self.groups)), choice[self.groups]]
        return math.fsum(picked)

    def holds(self, choice: IntArray) -> bool:
        """Whether the row holds within its slack."""
        return self.used(choice) <= self.limit + self.slack


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChoiceModel:
    """One choice model; see the module's docstring."""

    value: FloatArray
    """float64[group, option]."""
    allowed: BoolArray
    """bool[group, option]."""
    rows: tuple[Row, ...]
    hint: IntArray | None = None
    """int64[group]: an allowed choice to start from, if one is known; it may break rows."""
    links: Links | None = None
    """What links the groups of consecutive periods; None: nothing does."""
    prices: FloatArray | None = None
    """float64[row]: prices of the rows to start from, as value per unit of each row."""

    def worth(self, choice: IntArray) -> float:
        """Value of ``choice`` less what the links lose, exactly summed."""
        gained = math.fsum(self.value[np.arange(len(choice)), choice])
        return gained if self.links is None else gained - math.fsum(self.links.losses(choice))

    def holds(self, choice: IntArray) -> bool:
        """Whether ``choice`` is allowed and keeps every row and ramp."""
        is_allowed = bool(self.allowed[np.arange(len(choice)), choice].all())
        if not is_allowed or not all(row.holds(choice) for row in self.rows):
            return False
        return self.links is None or self.links.holds(choice)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChoiceAnswer:
    """What a back end found; no choice and ``PROOF`` means proven infeasible."""

    choice: IntArray | None
    """int64[group]."""
    bound: float
    """Proven: no choice is worth more. -inf when infeasible."""
    method: str
    stopped_by: StoppedBy
    prices: FloatArray | None = None
    """float64[row]: prices that prove the bound, where the method has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveLimits:
    """When a back end may stop."""

    relative_gap: float
    seconds: float | None
    """Time left, s; None for no limit."""
    absolute_gap: float = 0.0
    """In the unit of the value; either gap is enough."""
    core_groups: int | None = None
    """Most groups of a core that the fast path may search exactly; None for no limit. A stage
    that only smooths the plan is not worth minutes of branching."""


ChoiceSolver = Callable[[ChoiceModel, SolveLimits], ChoiceAnswer]
"""A back end. Raises ``SolverError`` when it ends without an answer."""


def best_of_each(value: FloatArray, allowed: BoolArray) -> IntArray:
    """int64[group]: each group's most valuable allowed option, the first among equals."""
    best: IntArray = np.argmax(np.where(allowed, value, -np.inf), axis=1).astype(np.int64)
    return best


def cheapest(cost: FloatArray, tie: FloatArray, allowed: BoolArray) -> IntArray:
    """int64[group]: the allowed option of least cost, then least ``tie``, then the first."""
    masked = np.where(allowed, cost, np.inf)
    is_least = masked == masked.min(axis=1, keepdims=True)
    picked: IntArray = np.argmin(np.where(is_least, tie, np.inf), axis=1).astype(np.int64)
    return picked
