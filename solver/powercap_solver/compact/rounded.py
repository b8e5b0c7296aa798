"""Choices rounded from a back end's floating-point answer, kept honest.

A back end keeps rows within its own tolerance and reports binaries that are nearly whole; rounding
to one option per group may then break a row by more than the row's slack. Such an answer is
checked in float64, the broken rows are tightened, and the model is solved again. The tighter model
has fewer choices, so what it proves is no bound of the model asked for: the first bound stays, and
a tighter model without a choice is no proof that there is none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from powercap_solver.arrays import IntArray
from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, ChoiceSolver, SolveLimits
from powercap_solver.errors import SolverError
from powercap_solver.plan import StoppedBy

_LOGGER = logging.getLogger(__name__)
_ROUNDS = 3


def checked_solver(
    solve_once: ChoiceSolver, name: str, *, clock: Callable[[], float] = time.perf_counter
) -> ChoiceSolver:
    """Return ``solve_once`` with every choice checked and broken rows tightened.

    Args:
        solve_once: a back end whose choices may break rows by its tolerances.
        name: how messages call the back end.
        clock: monotonic seconds, shared by the rounds of one solve.
    """

    def solve(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
        start = clock()
        first = answer = solve_once(model, limits)
        tightened = model
        for _ in range(_ROUNDS - 1):
            if answer.choice is None or model.holds(answer.choice):
                break
            if answer.stopped_by is not StoppedBy.PROOF:
                break
            _LOGGER.debug("%s: a rounded choice broke a row; solving with tighter rows", name)
            tightened = _tighten(tightened, answer.choice)
            left = limits.seconds
            if left is not None:
                left = max(0.0, left - (clock() - start))
            answer = solve_once(tightened, replace(limits, seconds=left))
        if answer.choice is not None and not model.holds(answer.choice):
            if answer.stopped_by is StoppedBy.PROOF:
                raise SolverError(f"{name} keeps breaking a row by more than its tolerance")
            # What a search cut short leaves behind need not be a choice yet.
            answer = replace(answer, choice=None)
        if answer is first:
            return answer
        if answer.choice is None and answer.stopped_by is StoppedBy.PROOF:
            raise SolverError(f"{name} finds only choices that break a row when rounded")
        return replace(answer, bound=max(first.bound, answer.bound))

    return solve


def _tighten(model: ChoiceModel, choice: IntArray) -> ChoiceModel:
    """Lower each limit that ``choice`` breaks by twice the excess, so by more than the slack."""
    rows = []
    for row in model.rows:
        excess = row.used(choice) - row.limit
        rows.append(row if excess <= row.slack else replace(row, limit=row.limit - 2 * excess))
    return replace(model, rows=tuple(rows))
