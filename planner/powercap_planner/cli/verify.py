"""``powercap verify``: is this plan what it says, under this problem?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from powercap_planner.cli.files import load_plan, load_problem
from powercap_planner.cli.tables import screen
from powercap_solver.certificate import verify

VIOLATED = 1
"""Exit code when the plan breaks the problem."""


def command(
    problem: Annotated[Path, typer.Argument(metavar="PROBLEM", help="Problem, .json or .npz.")],
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="Plan, .json or .npz.")],
) -> None:
    """Check a plan against its problem: caps, floors, objectives and bounds, recomputed.

    Exits 0 when everything holds, 1 when something is violated (each violation on its own
    line), 2 when a file cannot be read.

    Example:
      powercap verify problem.json plan.json
    """
    violations = verify(load_problem(problem).problem, load_plan(plan))
    console = screen()
    for violation in violations:
        console.print(f"violated: {violation}", highlight=False, markup=False, soft_wrap=True)
    if violations:
        raise typer.Exit(VIOLATED)
    said = f"{plan}: verified against {problem}"
    console.print(said, highlight=False, markup=False, soft_wrap=True)
