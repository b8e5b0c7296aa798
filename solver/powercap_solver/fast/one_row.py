"""One row: a multiple-choice knapsack, solved to the asked gap and exactly where asked.

Filtering, the price of the row, a choice rounded at that price, its rest filled by exchanges,
and, where that leaves a gap, the dynamic program over the core (``knapsack``).
"""

from __future__ import annotations

import math

import numpy as np

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, SolveLimits
from powercap_solver.dominance import undominated_in_one
from powercap_solver.fast.exchange import fill_row
from powercap_solver.fast.knapsack import Core, search_core
from powercap_solver.fast.price import Price, price_of_row
from powercap_solver.plan import StoppedBy

METHOD = "knapsack"


def solve_one_row(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
    """Solve a model of one row and no links."""
    (row,) = model.rows
    if len(row.groups) == len(model.value) and (np.diff(row.groups) == 1).all():
        weight = row.coefficient
    else:
        weight = np.zeros(model.value.shape)
        weight[row.groups] = row.coefficient
    least = np.min(np.where(model.allowed, weight, np.inf), axis=1)
    weight = weight - least[:, None]
    room = row.limit + row.slack / 2 - math.fsum(least)
    allowed = model.allowed & (weight <= room)
    if room < 0 or not allowed.any(axis=1).all():
        return ChoiceAnswer(choice=None, bound=-math.inf, method=METHOD, stopped_by=StoppedBy.PROOF)
    allowed = undominated_in_one(allowed, model.value, weight)
    near = None if model.prices is None else float(model.prices[0])
    priced = price_of_row(model.value, weight, allowed, room, near=near)
    if priced is None:
        return ChoiceAnswer(choice=None, bound=-math.inf, method=METHOD, stopped_by=StoppedBy.PROOF)
    price = priced.price
    worth = np.where(allowed, model.value - price * weight, -np.inf)
    choice = _rounded(priced, weight, room)
    wanted = _wanted_gap(limits, model.worth(choice))
    choice = fill_row(worth, weight, allowed, choice, price=price, room=room, enough=wanted)
    hint = model.hint
    if hint is not None and model.worth(hint) > model.worth(choice) and model.holds(hint):
        choice = hint
    known = model.worth(choice)
    bound = max(known, priced.bound)
    if bound - known <= _wanted_gap(limits, known):
        return _answer(choice, bound, StoppedBy.PROOF, price)
    core = Core.at_price(worth, weight, allowed, room=room, price=price)
    return search_core(model, core, choice, bound, limits)


def _wanted_gap(limits: SolveLimits, known: float) -> float:
    return max(limits.relative_gap * abs(known), limits.absolute_gap)


def _answer(choice: IntArray, bound: float, stopped_by: StoppedBy, price: float) -> ChoiceAnswer:
    return ChoiceAnswer(
        choice=choice, bound=bound, method=METHOD, stopped_by=stopped_by, prices=np.array([price])
    )


def _rounded(priced: Price, weight: FloatArray, room: float) -> IntArray:
    """The light choice, with as many of the heavy choice's options as fit in turn."""
    choice = priced.light.copy()
    rows = np.arange(len(choice))
    undecided = np.flatnonzero(priced.light != priced.heavy)
    left = room - math.fsum(weight[rows, choice])
    step = weight[undecided, priced.heavy[undecided]] - weight[undecided, choice[undecided]]
    order = np.argsort(step, kind="stable")
    fits = np.cumsum(step[order]) <= left
    taken = undecided[order[fits]]
    choice[taken] = priced.heavy[taken]
    return choice
