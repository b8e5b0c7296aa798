"""What-if options shared by ``plan`` and ``solve``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from powercap_planner.cli.files import save_problem, write_text
from powercap_planner.cli.outcome_json import outcome_to_dict
from powercap_planner.cli.tables import (
    print_difference,
    print_findings,
    print_plan,
    rows_of,
    screen,
)
from powercap_planner.errors import RequestError
from powercap_planner.inputs import PlanningInputs
from powercap_planner.outcome import PlanOutcome
from powercap_planner.planning import plan_inputs
from powercap_planner.whatif import WhatIf, apply
from powercap_solver.files import plan_to_json

CapOption = Annotated[
    float | None, typer.Option("--cap", metavar="WATTS", help="Cap at the meter, W.")
]
PriceOption = Annotated[
    str | None,
    typer.Option(
        "--price",
        metavar="NUMBER|CSV",
        help="Electricity price per MWh: a constant, or a CSV file read at --at.",
    ),
]
CarbonOption = Annotated[
    str | None,
    typer.Option(
        "--carbon",
        metavar="NUMBER|CSV",
        help="Carbon intensity, gCO2eq/kWh: a constant, or a CSV file read at --at.",
    ),
]
AtOption = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="Moment of the plan, e.g. 2023-06-01T18:00:00Z."),
]
ZoneOption = Annotated[
    str, typer.Option("--zone", help="Grid zone; needed where a CSV file holds several.")
]
LoadFactorOption = Annotated[
    float | None,
    typer.Option("--load-factor", metavar="FACTOR", help="What if every load were this times."),
]
ReplicasOption = Annotated[
    list[str] | None,
    typer.Option(
        "--replicas",
        metavar="NAME=N",
        help="What if this deployment had exactly N replicas; may be repeated.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON instead of tables.", show_default=False)
]
SaveProblemOption = Annotated[
    Path | None,
    typer.Option("--save-problem", metavar="FILE", help="Write the problem for solve and verify."),
]
SavePlanOption = Annotated[
    Path | None, typer.Option("--save-plan", metavar="FILE", help="Write the plan for verify.")
]


def parse_pins(texts: list[str] | None) -> dict[str, int]:
    """Return pins from ``NAME=N`` texts.

    Raises:
        RequestError: naming the text that is not of this form.
    """
    pins: dict[str, int] = {}
    for text in texts or []:
        name, equals, count = text.rpartition("=")
        if not (equals and name and count.isascii() and count.isdigit()):
            raise RequestError("replicas", f"is {text!r}; accepted: NAME=N, N a whole number")
        if name in pins:
            raise RequestError("replicas", f"{name} is pinned twice")
        pins[name] = int(count)
    return pins


def check_cap(cap_watts: float | None) -> None:
    """Check a cap given as an option.

    Raises:
        RequestError: when it is not a number above 0.
    """
    if cap_watts is not None and not 0 < cap_watts < float("inf"):
        raise RequestError("cap", f"is {cap_watts:g}; accepted: more than 0 W")


def run(
    inputs: PlanningInputs,
    what_if: WhatIf,
    *,
    now_seconds: float,
    as_json: bool,
    save_problem_to: Path | None,
    save_plan_to: Path | None,
) -> None:
    """Plan, plan again with the changes if there are any, print and save."""
    unchanged = plan_inputs(inputs, now_seconds=now_seconds, valid_seconds=180.0)
    outcome, changed = unchanged, inputs
    if not what_if.is_empty:
        changed = apply(inputs, what_if)
        outcome = plan_inputs(changed, now_seconds=now_seconds, valid_seconds=180.0)
    if save_problem_to:
        save_problem(save_problem_to, outcome.problem, changed, planned_at_seconds=now_seconds)
    if save_plan_to:
        write_text(save_plan_to, plan_to_json(outcome.plan))
    show(outcome, None if what_if.is_empty else unchanged, as_json=as_json)


def show(outcome: PlanOutcome, unchanged: PlanOutcome | None, *, as_json: bool) -> None:
    """Print a plan and, beside a what-if, its difference from the unchanged one."""
    if as_json:
        document: dict[str, Any] = {"plan": outcome_to_dict(outcome)}
        if unchanged is not None:
            document["unchanged"] = outcome_to_dict(unchanged)
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
        return
    console = screen()
    rows = rows_of(outcome)
    print_plan(console, rows, title="Plan" if unchanged is None else "Plan, as asked")
    if unchanged is not None:
        print_difference(console, rows_of(unchanged), rows)
    print_findings(console, rows)
