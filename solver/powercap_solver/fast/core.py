"""What is left after fixing: a small exact model.

With prices that prove a bound U and a choice worth B, an option that lies more than U - B below
the best of its group (of its chain, with links) at these prices is in no better choice: it is
dropped (Lagrangian variable fixing). What remains goes to OR-Tools; its bound and B together
bound the whole model.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.chains import Chains
from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, ChoiceSolver, SolveLimits
from powercap_solver.plan import StoppedBy

_LOGGER = logging.getLogger(__name__)
_MARGIN = 1e-12


def reduced_losses(worth: FloatArray, allowed: BoolArray, chains: Chains | None) -> FloatArray:
    """float64[group, option]: what taking the option loses at the prices; inf if not allowed.

    Args:
        worth: float64[group, option], value less what the prices charge.
        allowed: bool[group, option].
        chains: the links; None when there are none.
    """
    masked = np.where(allowed, worth, -np.inf)
    if chains is not None:
        through = chains.through(worth, allowed)
        periods = chains.links.periods
        best = np.repeat(through.reshape(-1, periods, through.shape[1])[:, 0].max(axis=1), periods)
        losses: FloatArray = best[:, None] - through
        return losses
    losses = masked.max(axis=1, keepdims=True) - masked
    return losses


def solve_core(
    model: ChoiceModel,
    *,
    losses: FloatArray,
    upper: float,
    choice: IntArray | None,
    limits: SolveLimits,
    solver: ChoiceSolver,
    method: str,
) -> ChoiceAnswer:
    """Solve what can still beat ``choice``.

    Args:
        model: the whole model.
        losses: float64[group, option], in the unit of the value.
        upper: the bound that the prices prove.
        choice: int64[group], the best known; None when none is.
        limits: gaps and time.
        solver: the exact back end.
        method: what stood before the core, for the answer.
    """
    if choice is None:
        answer = solver(model, limits)
        return replace(answer, method=f"{method}+{answer.method}")
    known = model.worth(choice)
    # A choice that is not better is not needed: the back end may stop at the asked gap of U.
    keep = model.allowed & (losses <= upper - known + _MARGIN * (abs(upper) + abs(known)))
    keep[np.arange(len(choice)), choice] = True
    core = replace(model, allowed=keep, hint=choice)
    open_groups = int((keep.sum(axis=1) > 1).sum())
    _LOGGER.debug(
        "core: %s of %s groups open, %s options",
        open_groups,
        len(keep),
        int(keep.sum()),
    )
    if limits.core_groups is not None and open_groups > limits.core_groups:
        return ChoiceAnswer(
            choice=choice,
            bound=max(upper, known),
            method=method,
            stopped_by=StoppedBy.HEURISTIC,
        )
    # Of the whole value: a back end would take the share of what is still open, which is less.
    wanted = max(limits.relative_gap * abs(known), limits.absolute_gap)
    answer = solver(core, replace(limits, relative_gap=0.0, absolute_gap=wanted))
    if answer.choice is None or model.worth(answer.choice) < known:
        better = choice
    else:
        better = answer.choice
    reached = model.worth(better)
    bound = min(upper, max(answer.bound, known))
    stopped_by = answer.stopped_by
    if answer.choice is None and stopped_by is StoppedBy.PROOF:
        # Nothing in the core keeps the rows but the choice we had: it is the best.
        bound = reached
    return replace(
        answer,
        choice=better,
        bound=max(bound, reached),
        stopped_by=stopped_by,
        method=f"{method}+{answer.method}",
    )
