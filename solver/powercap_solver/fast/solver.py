"""The fast path as a method: which way a model goes."""

from __future__ import annotations

from dataclasses import replace

from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, ChoiceSolver, SolveLimits
from powercap_solver.fast.many_rows import solve_many_rows
from powercap_solver.fast.one_row import solve_one_row
from powercap_solver.plan import StoppedBy

_SMALL = 300
"""Groups with a choice up to which an unfinished knapsack is handed to the exact back end."""
_WIDE_GAP = 1e-5
"""Relative; a gap below is one of choices that differ by next to nothing, and stands."""
_SEARCH_SECONDS = 5.0


def fast_solver(exact: ChoiceSolver) -> ChoiceSolver:
    """Return the fast path as a function of model and limits; ``exact`` solves its cores."""

    def solve(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
        if len(model.rows) == 1 and model.links is None and (model.rows[0].coefficient >= 0).all():
            answer = solve_one_row(model, limits)
            if _is_worth_a_search(model, answer):
                return _searched(model, answer, limits, exact)
            return answer
        return solve_many_rows(model, limits, exact)

    return solve


def _is_worth_a_search(model: ChoiceModel, answer: ChoiceAnswer) -> bool:
    if answer.stopped_by is not StoppedBy.ITERATIONS or answer.choice is None:
        return False
    known = model.worth(answer.choice)
    is_small = int((model.allowed.sum(axis=1) > 1).sum()) <= _SMALL
    return is_small and answer.bound - known > _WIDE_GAP * abs(known)


def _searched(
    model: ChoiceModel, answer: ChoiceAnswer, limits: SolveLimits, exact: ChoiceSolver
) -> ChoiceAnswer:
    """Few groups of very unlike weights: the list of partial choices is cut, a search may end."""
    seconds = _SEARCH_SECONDS if limits.seconds is None else min(limits.seconds, _SEARCH_SECONDS)
    choice = answer.choice
    assert choice is not None
    found = exact(replace(model, hint=choice), replace(limits, seconds=seconds))
    if found.choice is not None and model.worth(found.choice) > model.worth(choice):
        choice = found.choice
    known = model.worth(choice)
    return replace(
        found,
        choice=choice,
        bound=max(known, min(answer.bound, found.bound)),
        method=f"{answer.method}+{found.method}",
        prices=answer.prices,
    )
