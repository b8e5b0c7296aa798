"""What a solve may start from: the prices and the choice of a plan made a little before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WarmStart:
    """Prices of the hard rows at stage 2, and the options chosen there.

    Only a start: every bound is proven anew and every choice checked anew.
    """

    row_prices: FloatArray | None
    """float64[row], in the order of the problem's hard rows; None when not known."""
    served_choice: IntArray
    """int64[deployment, period]."""


def warm_start_of(plan: Plan) -> WarmStart | None:
    """Return what a later solve of nearly the same problem can start from; None if nothing."""
    for index, stage in enumerate(plan.stages):
        if stage.name == "served":
            prices = plan.row_prices
            return WarmStart(
                row_prices=prices if len(prices) and np.isfinite(prices).all() else None,
                served_choice=plan.stage_choice[index],
            )
    return None


def usable(warm: WarmStart | None, problem: PlanningProblem, rows: int) -> WarmStart | None:
    """Return ``warm`` where its shapes are those of ``problem``, else None."""
    if warm is None:
        return None
    shape = (len(problem.deployments), len(problem.period_seconds))
    choice = warm.served_choice
    if choice.shape != shape or (choice >= problem.option_count[:, None]).any():
        return None
    if warm.row_prices is not None and len(warm.row_prices) != rows:
        return WarmStart(row_prices=None, served_choice=choice)
    return warm
