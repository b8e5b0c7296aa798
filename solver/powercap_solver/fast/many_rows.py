"""Many rows, and links: prices, repair, exchanges, and an exact core where a gap is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.chains import Chains
from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, ChoiceSolver, SolveLimits
from powercap_solver.fast.core import reduced_losses, solve_core
from powercap_solver.fast.linked import (
    feasible_paths,
    fill_linked,
    find_linked_prices,
    linked_bound,
    lower_linked,
)
from powercap_solver.fast.pairs import exchange
from powercap_solver.fast.prices import Prices, curvature_of, dual_bound, find_prices
from powercap_solver.fast.repair import fill, lower, raise_until_kept
from powercap_solver.fast.row_by_row import row_by_row
from powercap_solver.fast.rowtable import RowTable, table_of
from powercap_solver.plan import StoppedBy

METHOD = "prices"
_PRICE_GAP = 0.05
"""Of the gap asked, the share that prices short of the best may cost."""
_LEANINGS = (1.02, 1.1, 1.5)
"""How much dearer rows that ask for more are made, in turn."""
_LEAST_PRICE_GAP = 1e-7
_MOST_PRICE_GAP = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    """A model on its way: the best bound and choice so far."""

    model: ChoiceModel
    table: RowTable
    prices: Prices
    chains: Chains | None

    @property
    def bound(self) -> float:
        """In the unit of the model's value."""
        return self.prices.bound * self.table.value_scale

    def open_gap(self, choice: IntArray | None, limits: SolveLimits) -> float:
        """By how much the gap of ``choice`` exceeds what is asked; at most 0 when it is enough."""
        if choice is None:
            return float("inf")
        known = self.model.worth(choice)
        return self.bound - known - max(limits.relative_gap * abs(known), limits.absolute_gap)


def solve_many_rows(model: ChoiceModel, limits: SolveLimits, exact: ChoiceSolver) -> ChoiceAnswer:
    """Solve a model of any rows and links.

    Args:
        model: what to solve.
        limits: gaps and time.
        exact: the back end for the core.

    Raises:
        SolverError: when the core's back end fails.
    """
    warm = _warm(model, limits)
    if warm is not None:
        return warm
    state = _priced(model, limits)
    if state is None:
        return ChoiceAnswer(choice=None, bound=-np.inf, method=METHOD, stopped_by=StoppedBy.PROOF)
    worth = state.table.value - state.table.penalty(state.prices.price)
    choice = _better(model, _repaired(state, worth, limits), model.hint)
    if choice is not None and state.open_gap(choice, limits) > 0:
        choice = _better(model, _improved(state, worth, choice, limits), choice)
    prices = state.table.unscaled_prices(state.prices.price)
    if choice is not None and state.open_gap(choice, limits) <= 0:
        return ChoiceAnswer(
            choice=choice,
            bound=max(state.bound, model.worth(choice)),
            method=METHOD,
            stopped_by=StoppedBy.PROOF,
            prices=prices,
        )
    scale = state.table.value_scale
    answer = solve_core(
        model,
        losses=scale * reduced_losses(worth, model.allowed, state.chains),
        upper=state.bound,
        choice=choice,
        limits=limits,
        solver=exact,
        method=METHOD,
    )
    return ChoiceAnswer(
        choice=answer.choice,
        bound=answer.bound,
        method=answer.method,
        stopped_by=answer.stopped_by,
        prices=prices,
    )


def _warm(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer | None:
    """The last choice, repaired, where the last prices still prove it good enough; else None."""
    if model.prices is None or model.hint is None:
        return None
    table = table_of(model)
    price = np.maximum(table.scaled_prices(model.prices), 0.0)
    if model.links is None:
        chains = None
        bound, best = dual_bound(table, price)
    else:
        chains = Chains(model.links.scaled(table.value_scale))
        bound, paths = linked_bound(table, chains, price)
        if paths is None:
            return None
        best = paths
    state = _State(
        model=model,
        table=table,
        prices=Prices(price=price, bound=bound, choice=best),
        chains=chains,
    )
    penalty = table.penalty(price)
    if chains is None:
        lowered = lower(table, table.value - penalty, model.hint, table.allowed)
    else:
        lowered = lower_linked(table, chains.links, penalty, model.hint)
    choice = _better(model, None, lowered)
    if choice is None or state.open_gap(choice, limits) > 0:
        return None
    return ChoiceAnswer(
        choice=choice,
        bound=max(state.bound, model.worth(choice)),
        method=f"warm {METHOD}",
        stopped_by=StoppedBy.PROOF,
        prices=model.prices,
    )


def _priced(model: ChoiceModel, limits: SolveLimits) -> _State | None:
    table = table_of(model)
    gap = max(limits.relative_gap, limits.absolute_gap / table.value_scale)
    wanted = min(max(_PRICE_GAP * gap, _LEAST_PRICE_GAP), _MOST_PRICE_GAP)
    start = None if model.prices is None else table.scaled_prices(model.prices)
    if model.links is None:
        return _State(
            model=model,
            table=table,
            prices=find_prices(table, gap=wanted, start=start),
            chains=None,
        )
    chains = Chains(model.links.scaled(table.value_scale))
    if start is None:
        first = find_prices(table, gap=max(wanted, 1e-3))
    else:
        bound, taken = linked_bound(table, chains, start)
        if taken is None:
            return None
        first = Prices(price=start, bound=bound, choice=taken)
    found = find_linked_prices(
        table, chains, start=first, gap=wanted, curvature=curvature_of(table, first.price)
    )
    if found is None:
        return None
    return _State(model=model, table=table, prices=found, chains=chains)


def _repaired(state: _State, worth: FloatArray, limits: SolveLimits) -> IntArray | None:
    """The best start that keeps every row, filled; the next one only while a gap is left."""
    table, model = state.table, state.model
    best: IntArray | None = None
    for start in _starts(state, worth):
        if start is None:
            continue
        if state.chains is None:
            choice = fill(table, worth, start, table.allowed)
        else:
            penalty = table.penalty(state.prices.price)
            choice = fill_linked(table, state.chains.links, penalty, start)
        best = _better(model, best, choice)
        if state.open_gap(best, limits) <= 0:
            break
    return best


def _starts(state: _State, worth: FloatArray) -> Iterator[IntArray | None]:
    """Ways to a choice that keeps every row.

    Lowering loses least, but rows that pull against each other undo each other's work; raising
    prices moves all rows at once.
    """
    table, prices, chains = state.table, state.prices, state.chains
    if chains is not None:
        yield feasible_paths(table, chains, prices)
        yield from _leaning_starts(state)
    else:
        yield lower(table, worth, prices.choice, table.allowed)
        yield from _leaning_starts(state)
        yield raise_until_kept(table, prices, lambda price: dual_bound(table, price)[1])
    yield _hint_of(state.model)


def _leaning_starts(state: _State) -> Iterator[IntArray | None]:
    """Starts that do more than enough for rows that ask for more, so that caps may take from it.

    Rows that keep an earlier stage pull against the caps. Where many options tie at the prices the
    best choice takes all or none of them; with dearer asking rows it errs on their side, and
    lowering for the caps finds the middle.
    """
    table, price = state.table, state.prices.price
    asks = np.array([bool((row.coefficient < 0).any()) for row in state.model.rows])
    if not (asks & (price > 0)).any():
        return
    for factor in _LEANINGS:
        leaning = np.where(asks, price * factor, price)
        penalty = table.penalty(leaning)
        worth = table.value - penalty
        if state.chains is None:
            yield lower(table, worth, np.argmax(worth, axis=1), table.allowed)
            continue
        paths = linked_bound(table, state.chains, leaning)[1]
        if paths is not None:
            yield lower_linked(table, state.chains.links, penalty, paths)


def _hint_of(model: ChoiceModel) -> IntArray | None:
    return model.hint if model.hint is not None and model.holds(model.hint) else None


def _improved(
    state: _State, worth: FloatArray, choice: IntArray, limits: SolveLimits
) -> IntArray | None:
    if state.chains is not None:
        return None
    known = state.model.worth(choice)
    enough = max(limits.relative_gap * abs(known), limits.absolute_gap) / state.table.value_scale
    price, bound = state.prices.price, state.prices.bound
    improved = row_by_row(state.table, worth, choice, price, bound=bound, enough=enough)
    improved = exchange(state.table, worth, improved, price, bound=bound, enough=enough)
    return improved if state.model.holds(improved) else None


def _better(model: ChoiceModel, one: IntArray | None, other: IntArray | None) -> IntArray | None:
    """The choice worth more of those that are there; ``other`` counts only where it holds."""
    if other is None or not model.holds(other):
        return one
    if one is None or model.worth(other) > model.worth(one):
        return other
    return one


def price_rows(model: ChoiceModel, limits: SolveLimits) -> FloatArray | None:
    """float64[row]: prices of the rows near the best of the dual; None when no path exists."""
    state = _priced(model, limits)
    return None if state is None else state.table.unscaled_prices(state.prices.price)
