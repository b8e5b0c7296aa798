"""The greedy method: from the least draw, always the step with most value per unit of the rows.

Steps are those of each group's upper hull of value over what it uses of all rows, each row as a
share of its limit (Sinha and Zoltners' greedy for the multiple-choice knapsack). A group whose
next step does not fit stays where it is. Fast and feasible; its bound relaxes every row but one,
so its gaps are honest and seldom zero.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import replace

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.chains import Chains
from powercap_solver.compact.model import (
    ChoiceAnswer,
    ChoiceModel,
    ChoiceSolver,
    SolveLimits,
    cheapest,
)
from powercap_solver.fast.linked import fill_linked
from powercap_solver.fast.price import price_of_row
from powercap_solver.fast.repair import lower
from powercap_solver.fast.rowtable import RowTable, table_of
from powercap_solver.plan import StoppedBy
from powercap_solver.separate import best_without_rows

METHOD = "greedy"


def greedy_solver() -> ChoiceSolver:
    """Return the method as a function of model and limits (which it does not need)."""

    def solve(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
        del limits
        choice = greedy_choice(model)
        if choice is None and model.hint is not None and model.holds(model.hint):
            choice = model.hint
        bound = relaxed_bound(model)
        if choice is not None:
            bound = max(bound, model.worth(choice))
        return ChoiceAnswer(
            choice=choice, bound=bound, method=METHOD, stopped_by=StoppedBy.HEURISTIC
        )

    return solve


def greedy_choice(model: ChoiceModel) -> IntArray | None:
    """int64[group]: the greedy choice; None when not even its start keeps the rows."""
    table = table_of(model)
    use = table.penalty(np.ones(table.rows))
    if model.links is not None:
        links = model.links.scaled(table.value_scale)
        start = Chains(links.ramps_only()).best(-use, model.allowed).choice
        if start is None or not model.holds(start):
            return None
        # With links the price of a row is its share: the filling takes most value per use.
        share = float(np.nanmax(np.where(model.allowed, table.value, np.nan))) or 1.0
        choice = fill_linked(table, links, use * share, start)
        return choice if model.holds(choice) else None
    start = cheapest(use, -model.value, model.allowed)
    lowered = lower(table, -use, start, model.allowed)
    if lowered is None:
        return None
    choice = _climb(table, use, lowered, model.allowed)
    return choice if model.holds(choice) else None


def _climb(table: RowTable, use: FloatArray, start: IntArray, allowed: BoolArray) -> IntArray:
    """Take hull steps in the order of their rates while they fit."""
    choice = start.copy()
    left = table.limit - table.used(choice)
    target, rate = _next_steps(table, use, choice, np.arange(len(choice)), allowed)
    heap = [
        (-rate[group], group, int(target[group])) for group in np.flatnonzero(rate > 0).tolist()
    ]
    heapq.heapify(heap)
    slots = range(len(table.row))
    while heap:
        _, group, option = heapq.heappop(heap)
        now = int(choice[group])
        shift = [
            (
                int(table.row[slot, group]),
                float(table.coefficient[slot, group, option] - table.coefficient[slot, group, now]),
            )
            for slot in slots
        ]
        if any(more > 0 and more > left[row] for row, more in shift):
            continue
        for row, more in shift:
            left[row] -= more
        choice[group] = option
        following, rates = _next_steps(table, use, choice, np.array([group]), allowed)
        if rates[0] > 0:
            heapq.heappush(heap, (-float(rates[0]), group, int(following[0])))
    return choice


def _next_steps(
    table: RowTable, use: FloatArray, choice: IntArray, groups: IntArray, allowed: BoolArray
) -> tuple[IntArray, FloatArray]:
    """The steepest step of each of ``groups``: option and value per use; rate 0 where none."""
    place = np.arange(len(groups))
    now = choice[groups]
    gain = table.value[groups] - table.value[groups, now][:, None]
    more = use[groups] - use[groups, now][:, None]
    can = allowed[groups] & (gain > 0)
    rate = np.where(can, gain / np.where(more > 1e-15, more, 1e-15), 0.0)
    option = np.argmax(rate, axis=1)
    return option, rate[place, option]


def relaxed_bound(model: ChoiceModel) -> float:
    """No choice is worth more: the least of the bounds that relax every row but one."""
    best = best_without_rows(replace(model, links=None))[1]
    bounds = [best]
    for row in model.rows:
        if (row.coefficient < 0).any():
            continue
        value, allowed = model.value[row.groups], model.allowed[row.groups]
        priced = price_of_row(value, row.coefficient, allowed, row.limit + row.slack)
        if priced is None:
            continue
        outside = math.fsum(np.where(allowed, value, -np.inf).max(axis=1))
        bounds.append(best - outside + priced.bound)
    return min(bounds) + 1e-12 * abs(best)
