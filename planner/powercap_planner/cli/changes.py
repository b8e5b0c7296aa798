"""What-if options shared by ``plan`` and ``solve``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from powercap_planner.cli.difference import print_difference
from powercap_planner.cli.files import check_target, save_plan, save_problem
from powercap_planner.cli.only_ours import only_ours_on_stdout
from powercap_planner.cli.outcome_json import outcome_to_dict
from powercap_planner.cli.tables import (
    print_findings,
    print_plan,
    rows_of,
    screen,
)
from powercap_planner.errors import RequestError
from powercap_planner.inputs import PlanningInputs
from powercap_planner.outcome import PlanOutcome
from powercap_planner.planning import plan_inputs
from powercap_planner.whatif import WhatIf, apply, listed
from powercap_solver.settings import SolveSettings
from powercap_solver.warm import WarmStart

CapOption = Annotated[
    float | None, typer.Option("--cap", metavar="WATTS", help="Cap at the meter, W.")
]
CapsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cap",
        metavar="[DOMAIN=]WATTS",
        help="What if the cap at the meter were this, W; DOMAIN= where the problem has several; "
        "may be repeated.",
    ),
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
    typer.Option(
        "--save-problem",
        metavar="FILE",
        help="Write the problem for solve and verify: .json, or .npz for the tables alone.",
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", metavar="FILE", help="Write the plan, .json or .npz, for verify."),
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


def parse_caps(texts: list[str] | None, domains: tuple[str, ...]) -> dict[str, float]:
    """Return caps by domain from ``WATTS`` and ``DOMAIN=WATTS`` texts.

    Raises:
        RequestError: naming the text that is not of this form, or fits no domain.
    """
    caps: dict[str, float] = {}
    for text in texts or []:
        name, equals, number = text.rpartition("=")
        try:
            watts = float(number)
        except ValueError:
            raise RequestError(
                "cap", f"is {text!r}; accepted: WATTS or DOMAIN=WATTS, WATTS a number"
            ) from None
        check_cap(watts)
        if not domains:
            raise RequestError("cap", "cannot be changed: the problem has no cap")
        if not equals and len(domains) > 1:
            raise RequestError(
                "cap",
                f"is {text}, and {len(domains)} domains have one; accepted: DOMAIN={text}, DOMAIN "
                f"one of {listed(domains)}",
            )
        domain = name if equals else domains[0]
        if domain not in domains:
            raise RequestError("cap", f"{domain} is not a domain; accepted: {listed(domains)}")
        if domain in caps:
            raise RequestError("cap", f"of {domain} is given twice")
        caps[domain] = watts
    return caps


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
    check_target(save_problem_to, option="save-problem")
    check_target(save_plan_to, option="output")
    with only_ours_on_stdout():
        unchanged, outcome, changed = plan_both(inputs, what_if, now_seconds=now_seconds)
    if save_problem_to:
        save_problem(save_problem_to, outcome.problem, changed, planned_at_seconds=now_seconds)
    if save_plan_to:
        save_plan(save_plan_to, outcome.plan)
    if as_json:
        write_json(document_of(outcome, unchanged))
        return
    console = screen()
    rows = rows_of(outcome)
    print_plan(console, rows, title="Plan" if unchanged is None else "Plan, as asked")
    if unchanged is not None:
        print_difference(console, rows_of(unchanged), rows)
    print_findings(console, rows)


def plan_both(
    inputs: PlanningInputs,
    what_if: WhatIf,
    *,
    now_seconds: float,
    solve_settings: SolveSettings | None = None,
    warm: WarmStart | None = None,
) -> tuple[PlanOutcome | None, PlanOutcome, PlanningInputs]:
    """Plan, and plan again with the changes if there are any.

    Returns:
        The plan without the changes (None where there are none), the plan as asked, its inputs.
    """

    def planned(one: PlanningInputs) -> PlanOutcome:
        return plan_inputs(
            one,
            now_seconds=now_seconds,
            valid_seconds=180.0,
            solve_settings=solve_settings,
            warm=warm,
        )

    if what_if.is_empty:
        return None, planned(inputs), inputs
    # Made first, so that a change that cannot be made costs no solve.
    changed = apply(inputs, what_if)
    return planned(inputs), planned(changed), changed


def document_of(outcome: PlanOutcome, unchanged: PlanOutcome | None) -> dict[str, Any]:
    """Return what ``--json`` prints of a plan and, beside a what-if, of the unchanged one."""
    document = {"plan": outcome_to_dict(outcome)}
    if unchanged is not None:
        document["unchanged"] = outcome_to_dict(unchanged)
    return document


def write_json(document: dict[str, Any]) -> None:
    """Write one JSON document to stdout."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))
