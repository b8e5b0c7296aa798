"""The core of a model with one row: a dynamic program that proves the choice exact.

Data (g group, k option): v[g,k] value, w[g,k] >= 0 weight after each group's least is taken off,
R the room. For a price p of weight, Lagrange's bound is

    U = p R + sum over g of max over k of (v[g,k] - p w[g,k])

An option's *loss* is how far its v - p w stays below its group's best. A choice is worth
U - (sum of losses) - p (R - sum of weights): both terms cost, so a choice that beats the best
one known has losses summing to less than U - best. That leaves few options of few groups (the
core). A dynamic program adds group after group, the cheapest losses first, to the list of
partial choices; it drops those that another matches in weight and value, and those whose bound
does not beat the best known.

The list is kept short (a beam): what is cut off leaves its bound behind, so that every search
proves something, and each better choice makes the core of the next, longer search smaller. Equal
replicas under one cap are close to a subset-sum problem, where very many choices differ by less
than 1e-7: there the longest search may end with a small gap, which the answer states. A list
that is never cut proves the very best choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, SolveLimits, best_of_each
from powercap_solver.plan import StoppedBy

_BEAMS = (300, 3_000, 20_000)
"""Most partial choices in the list, one search after another."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Core:
    """The model relative to each group's best option at the price."""

    best: IntArray
    """int64[group]: the option with the most v - p w."""
    allowed: BoolArray
    """bool[group, option]."""
    loss: FloatArray
    """float64[group, option]."""
    shift: FloatArray
    """float64[group, option]: weight above that of ``best``."""
    room: float
    """R less the weight of ``best``; negative when ``best`` is too heavy."""
    price: float

    @classmethod
    def at_price(
        cls,
        worth: FloatArray,
        weight: FloatArray,
        allowed: BoolArray,
        *,
        room: float,
        price: float,
    ) -> Core:
        """Take v - p w (float64[group, option], -inf where not allowed) and the weights."""
        best = best_of_each(worth, allowed)
        rows = np.arange(len(best))
        return cls(
            best=best,
            allowed=allowed,
            loss=worth[rows, best][:, None] - worth,
            shift=weight - weight[rows, best][:, None],
            room=room - math.fsum(weight[rows, best]),
            price=price,
        )


def search_core(
    model: ChoiceModel, core: Core, choice: IntArray, upper: float, limits: SolveLimits
) -> ChoiceAnswer:
    """Search ever longer lists until the gap is proven or the longest has been tried.

    Args:
        model: the model of one row.
        core: the same, relative to the best options at the row's price.
        choice: int64[group], the best choice known.
        upper: Lagrange's bound.
        limits: the gaps at which to stop.
    """
    bound, stopped_by = upper, StoppedBy.ITERATIONS
    for beam in _BEAMS:
        known = model.worth(choice)
        found = _search(core, upper - known, beam)
        if found.choice is not None and model.worth(found.choice) > known:
            choice = found.choice
        known = model.worth(choice)
        bound = max(known, min(bound, upper - found.least_cut))
        if bound - known <= max(limits.relative_gap * abs(known), limits.absolute_gap):
            stopped_by = StoppedBy.PROOF
            break
    return ChoiceAnswer(
        choice=choice,
        bound=bound,
        method="knapsack",
        stopped_by=stopped_by,
        prices=np.array([core.price]),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    choice: IntArray | None
    """int64[group]; None when nothing beats the choice known before."""
    least_cut: float
    """No choice dropped unproven costs less; inf when none was."""


def _search(core: Core, gap: float, beam: int) -> _Found:
    """Find the choice that costs least, if less than ``gap``."""
    rows = np.arange(len(core.best))
    keep = core.allowed & (core.loss <= gap)
    keep[rows, core.best] = True
    other = keep.copy()
    other[rows, core.best] = False
    free = np.nonzero(other.any(axis=1))[0]
    cheapest_loss = np.min(np.where(other[free], core.loss[free], np.inf), axis=1, initial=np.inf)
    free = free[np.argsort(cheapest_loss, kind="stable")]
    least, most = _reach(core.shift[free], keep[free])
    shift, cost = np.zeros(1), np.zeros(1)
    parents: list[IntArray] = []
    options: list[IntArray] = []
    limit = gap
    best_layer, best_state, least_cut = -1, 0, math.inf
    for layer in range(len(free) + 1):
        # A partial choice that takes the best option of every group still to come is complete.
        complete = np.where(shift <= core.room, cost + core.price * (core.room - shift), np.inf)
        winner = int(np.argmin(complete))
        if complete[winner] < limit:
            limit = float(complete[winner])
            best_layer, best_state = layer, winner
        if layer == len(free):
            break
        picks = np.nonzero(keep[free[layer]])[0]
        new_shift = (shift[:, None] + core.shift[free[layer], picks]).ravel()
        new_cost = (cost[:, None] + core.loss[free[layer], picks]).ravel()
        idle = np.maximum(0.0, core.room - new_shift - most[layer + 1])
        bound = new_cost + core.price * idle
        is_open = (new_shift + least[layer + 1] <= core.room) & (bound < limit)
        places = np.nonzero(is_open)[0]
        if not len(places):
            break
        places = places[_unmatched(new_shift[places], new_cost[places], core.price)]
        if len(places) > beam:
            ranked = places[np.argsort(bound[places], kind="stable")]
            least_cut = min(least_cut, float(bound[ranked[beam]]))
            places = np.sort(ranked[:beam])
        parents.append(places // len(picks))
        options.append(picks[places % len(picks)])
        shift, cost = new_shift[places], new_cost[places]
    if best_layer < 0:
        return _Found(choice=None, least_cut=least_cut)
    choice, state = core.best.copy(), best_state
    for layer in range(best_layer - 1, -1, -1):
        choice[free[layer]] = options[layer][state]
        state = int(parents[layer][state])
    return _Found(choice=choice, least_cut=least_cut)


def _reach(shift: FloatArray, keep: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Least and most weight that groups from each layer on can still add, float64[layer + 1]."""
    lowest = np.min(np.where(keep, shift, np.inf), axis=1, initial=np.inf)
    highest = np.max(np.where(keep, shift, -np.inf), axis=1, initial=-np.inf)
    least = np.append(np.cumsum(lowest[::-1])[::-1], 0.0)
    most = np.append(np.cumsum(highest[::-1])[::-1], 0.0)
    return least, most


def _unmatched(shift: FloatArray, cost: FloatArray, price: float) -> IntArray:
    """Places of partial choices that no lighter one matches in value."""
    value = price * shift - cost
    order = np.lexsort((-value, shift))
    ranked = value[order]
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], ranked[:-1]]))
    kept: IntArray = order[ranked > best_before]
    return kept
