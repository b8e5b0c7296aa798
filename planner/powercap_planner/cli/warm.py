"""The plan that ``solve --warm`` starts from, and what of it did not fit."""

from __future__ import annotations

from pathlib import Path

from powercap_planner.cli.files import load_plan
from powercap_solver.measures import measure
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import Objective
from powercap_solver.warm import WarmStart, usable, warm_start_of


def read_warm(path: Path) -> WarmStart | None:
    """Return what a plan file gives to start from; None when it has no stage ``served``.

    Raises:
        InputFileError: naming the file and the field.
    """
    return warm_start_of(load_plan(path))


def warm_notes(
    path: Path, warm: WarmStart | None, problem: PlanningProblem, plan: Plan
) -> list[str]:
    """Return what to say of a start that could not be used, or only in part; none when it was."""
    if warm is None:
        return [f"warm: {path} has no stage 'served' to start from: solved without"]
    rows = len(measure(problem, Objective(plan.objective)).rows)
    used = usable(warm, problem, rows)
    if used is None:
        return [
            f"warm: {path} is of other deployments, periods or options than the problem: solved "
            "without"
        ]
    if warm.row_prices is not None and used.row_prices is None:
        return [
            f"warm: {path} has prices of {len(warm.row_prices)} limits and the problem has {rows}: "
            "started from its options alone"
        ]
    return []
