"""The choice model: one option per group, linear rows, a linear value to maximise.

Data (g group, k option, r row):

    value[g,k]          worth of the option
    allowed[g,k]        whether it may be chosen
    a[r,g,k], limit[r]  coefficients and right-hand side of row r

Variables: x[g,k] in {0,1}.

Maximise sum value[g,k] x[g,k] subject to sum over k of x[g,k] = 1 for every g and
sum a[r,g,k] x[g,k] <= limit[r] for every r.

A group is a deployment in a period. This is the textbook model: it is the reference that every
faster method is tested against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from powercap_solver.plan import StoppedBy
from powercap_solver.problem import BoolArray, FloatArray, IntArray


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
    """int64[group]: a choice to start from, if one is known."""

    def worth(self, choice: IntArray) -> float:
        """Value of ``choice``, exactly summed."""
        return math.fsum(self.value[np.arange(len(choice)), choice])

    def holds(self, choice: IntArray) -> bool:
        """Whether ``choice`` is allowed and keeps every row."""
        is_allowed = bool(self.allowed[np.arange(len(choice)), choice].all())
        return is_allowed and all(row.holds(choice) for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChoiceAnswer:
    """What a back end found; no choice and ``PROOF`` means proven infeasible."""

    choice: IntArray | None
    """int64[group]."""
    bound: float
    """Proven: no choice is worth more. -inf when infeasible."""
    method: str
    stopped_by: StoppedBy


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveLimits:
    """When a back end may stop."""

    relative_gap: float
    seconds: float | None
    """Time left, s; None for no limit."""
    absolute_gap: float = 0.0
    """In the unit of the value; either gap is enough."""


ChoiceSolver = Callable[[ChoiceModel, SolveLimits], ChoiceAnswer]
"""A back end. Raises ``SolverError`` when it ends without an answer."""


def best_of_each(value: FloatArray, allowed: BoolArray) -> IntArray:
    """int64[group]: each group's most valuable allowed option, the first among equals."""
    best: IntArray = np.argmax(np.where(allowed, value, -np.inf), axis=1).astype(np.int64)
    return best


def solve_model(model: ChoiceModel, limits: SolveLimits, solver: ChoiceSolver) -> ChoiceAnswer:
    """Solve ``model``, asking the back end only where rows bind.

    Raises:
        SolverError: when the back end fails.
    """
    fitting = without_oversized(model)
    if not fitting.allowed.any(axis=1).all():
        return ChoiceAnswer(
            choice=None, bound=-math.inf, method="separable", stopped_by=StoppedBy.PROOF
        )
    best = best_of_each(fitting.value, fitting.allowed)
    if fitting.holds(best):
        return ChoiceAnswer(
            choice=best,
            bound=fitting.worth(best),
            method="separable",
            stopped_by=StoppedBy.PROOF,
        )
    hint = model.hint
    if hint is not None and model.holds(hint) and model.worth(hint) >= fitting.worth(best):
        return ChoiceAnswer(
            choice=hint,
            bound=model.worth(hint),
            method="separable",
            stopped_by=StoppedBy.PROOF,
        )
    blocks = _blocks(fitting)
    if len(blocks) == 1:
        return solver(fitting, limits)
    return _solve_blocks(fitting, blocks, limits, solver)


def _blocks(model: ChoiceModel) -> list[IntArray]:
    """Groups that rows link, directly or through others: periods without coupling fall apart."""
    groups = len(model.value)
    links = [(row.groups[:-1], row.groups[1:]) for row in model.rows]
    one = np.concatenate([np.zeros(0, dtype=np.int64), *(link[0] for link in links)])
    other = np.concatenate([np.zeros(0, dtype=np.int64), *(link[1] for link in links)])
    graph = csr_array((np.ones(len(one)), (one, other)), shape=(groups, groups))
    count, label = connected_components(graph, directed=False)
    return [np.nonzero(label == block)[0] for block in range(count)]


def _solve_blocks(
    model: ChoiceModel, blocks: list[IntArray], limits: SolveLimits, solver: ChoiceSolver
) -> ChoiceAnswer:
    choice = np.zeros(len(model.value), dtype=np.int64)
    bounds, methods, stopped_by, is_found = [], set[str](), StoppedBy.PROOF, True
    for block in blocks:
        # Blocks share the time evenly: what one leaves unused is not handed on.
        seconds = None if limits.seconds is None else limits.seconds / len(blocks)
        answer = solve_model(_restricted(model, block), replace(limits, seconds=seconds), solver)
        bounds.append(answer.bound)
        methods.add(answer.method)
        if answer.stopped_by is not StoppedBy.PROOF:
            stopped_by = answer.stopped_by
        if answer.choice is None:
            is_found = False
            if answer.stopped_by is StoppedBy.PROOF:
                return answer
        else:
            choice[block] = answer.choice
    return ChoiceAnswer(
        choice=choice if is_found else None,
        bound=math.fsum(bounds),
        method="+".join(sorted(methods - {"separable"})) or "separable",
        stopped_by=stopped_by,
    )


def _restricted(model: ChoiceModel, block: IntArray) -> ChoiceModel:
    """The model of the groups in ``block`` alone; no row crosses its edge."""
    place = np.full(len(model.value), -1, dtype=np.int64)
    place[block] = np.arange(len(block))
    rows = tuple(
        replace(row, groups=place[row.groups])
        for row in model.rows
        if len(row.groups) and place[row.groups[0]] >= 0
    )
    return ChoiceModel(
        value=model.value[block],
        allowed=model.allowed[block],
        rows=rows,
        hint=None if model.hint is None else model.hint[block],
    )


def without_oversized(model: ChoiceModel) -> ChoiceModel:
    """Drop options that break a row even with every other group at its least."""
    allowed = model.allowed.copy()
    for row in model.rows:
        coefficient = np.where(allowed[row.groups], row.coefficient, np.inf)
        least = coefficient.min(axis=1, initial=np.inf)
        if not np.isfinite(least).all():
            break
        room = row.limit + row.slack - math.fsum(least)
        # The margin keeps what only the rounding of this sum would drop.
        margin = 1e-12 * (abs(row.limit) + float(np.abs(least).sum()))
        allowed[row.groups] &= coefficient - least[:, None] <= room + margin
    return replace(model, allowed=allowed)
