"""``powercap solve``: a saved problem, solved again, as it is or changed."""

from __future__ import annotations

import json as json_module
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from powercap_planner.assemble import build_problem
from powercap_planner.cli import changes
from powercap_planner.cli.difference import print_difference
from powercap_planner.cli.files import (
    ProblemFile,
    check_target,
    load_problem,
    save_bare_problem,
    save_plan,
    save_problem,
)
from powercap_planner.cli.grid import number_or_path
from powercap_planner.cli.only_ours import only_ours_on_stdout
from powercap_planner.cli.plan_rows import option_text, price_unit, problem_rows
from powercap_planner.cli.questions import USUAL_SECONDS, Answers, answers_to_dict, ask
from powercap_planner.cli.solve_tables import period_title, print_answers, print_details
from powercap_planner.cli.tables import (
    PlanRows,
    finding_lines,
    print_findings,
    print_plan,
    rows_of,
    screen,
)
from powercap_planner.cli.warm import read_warm, warm_notes
from powercap_planner.errors import RequestError
from powercap_planner.inputs import PlanningInputs
from powercap_planner.planning import solve_verified
from powercap_planner.request import ObjectiveKind
from powercap_planner.whatif import WhatIf, resolve
from powercap_solver.edits import with_cap, with_only_replicas
from powercap_solver.files import plan_to_json, problem_to_json
from powercap_solver.plan import Plan, PlanStatus
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import Method, Objective, SolveSettings
from powercap_solver.warm import WarmStart

FLOORS_YIELDED = 3
"""Exit code when every cap holds and a floor gave way."""
INFEASIBLE = 4
"""Exit code when even the lowest options exceed a limit."""
UNPROVEN = 5
"""Exit code when all limits and floors hold and a stage stopped before its proof."""

_MOST_ROWS = 60
"""Deployments on the screen; a file or ``--json`` has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What one call asks for."""

    what_if: WhatIf
    """All but caps, which need the problem's domains."""
    caps: list[str] | None
    settings: SolveSettings
    objective: Objective | None
    warm: WarmStart | None
    save_problem_to: Path | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Solved:
    """What came of it: the plan as asked, and the one without what-ifs beside it."""

    problem: PlanningProblem
    plan: Plan
    rows: PlanRows
    unchanged: PlanRows | None
    document: dict[str, Any]


def command(
    problem: Annotated[Path, typer.Argument(metavar="PROBLEM", help="Problem, .json or .npz.")],
    method: Annotated[
        Method, typer.Option(help="What solves it; the last resort is always greedy.")
    ] = Method.FAST,
    gap: Annotated[
        float | None,
        typer.Option(metavar="GAP", help="Relative gap to prove; default 1e-6."),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Time for each solve, s; default: until proven."),
    ] = None,
    objective: Annotated[
        Objective | None,
        typer.Option(help="Objective; default: the file's own, else throughput_per_watt."),
    ] = None,
    cap: changes.CapsOption = None,
    price: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="What if the price per MWh were this.")
    ] = None,
    carbon: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="What if gCO2eq/kWh were this.")
    ] = None,
    load_factor: changes.LoadFactorOption = None,
    replicas: changes.ReplicasOption = None,
    rates: Annotated[
        bool,
        typer.Option(
            "--rates",
            show_default=False,
            help="Measure what the next caps are worth, for each that binds; takes as long again "
            f"as --time-limit, {USUAL_SECONDS:.0f} s without.",
        ),
    ] = False,
    one_more: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What one more replica of this deployment needs and costs in the first period; "
            "may be repeated; time as for --rates, shared with it.",
        ),
    ] = None,
    warm: Annotated[
        Path | None,
        typer.Option(metavar="PLAN", help="Plan of an earlier solve to start from."),
    ] = None,
    json: changes.JsonOption = False,
    save_problem: changes.SaveProblemOption = None,
    output: changes.OutputOption = None,
) -> None:
    """Solve a problem file and print the plan.

    With what-if options the difference from the unchanged plan is shown. --cap and --replicas
    work on any problem. --price, --carbon and --load-factor change the tables themselves:
    they need a file written by `powercap plan --save-problem`, which holds curves and loads
    beside the tables, and are refused for a file without them.

    Exit codes, of the plan as asked:
      0  optimal: every stage proven to the gap
      2  a mistake in arguments or files, told in one line
      3  every cap holds, and a floor yielded
      4  infeasible: even the lowest options exceed a cap, a pool or a budget
      5  caps and floors hold, and a stage stopped before its proof (time, or method greedy)

    Examples:
      powercap solve problem.json
      powercap solve problem.json --cap 9000 --replicas chat=4 --output plan.json
      powercap solve problem.npz --method highs --gap 1e-4 --time-limit 30 --rates
    """
    check_target(save_problem, option="save-problem")
    check_target(output, option="output")
    number_or_path(None if price is None else str(price), option="price", low=float("-inf"))
    number_or_path(None if carbon is None else str(carbon), option="carbon", low=0.0)
    what_if = WhatIf(
        price=price,
        carbon=carbon,
        load_factor=load_factor,
        replicas=changes.parse_pins(replicas),
    )
    asked = _Asked(
        what_if=what_if,
        caps=cap,
        settings=_settings(method, gap, time_limit),
        objective=objective,
        warm=None if warm is None else read_warm(warm),
        save_problem_to=save_problem,
    )
    read = load_problem(problem)
    names = tuple(
        resolve(one, read.problem.deployments, option="one-more") for one in one_more or ()
    )
    with only_ours_on_stdout():
        solved = _solved(read, asked)
        answers = ask(
            solved.problem, solved.plan, with_rates=rates, one_more=names, settings=asked.settings
        )
        notes = [] if warm is None else warm_notes(warm, asked.warm, solved.problem, solved.plan)
    if output:
        save_plan(output, solved.plan)
    if json:
        document = {**solved.document, **answers_to_dict(answers)}
        changes.write_json({**document, "notes": notes} if notes else document)
    else:
        _print(solved, answers, notes)
    raise typer.Exit(exit_code(solved.plan))


def exit_code(plan: Plan) -> int:
    """Return the exit code that says what a plan is."""
    if plan.status is PlanStatus.CAP_INFEASIBLE:
        return INFEASIBLE
    if plan.yielded_floors:
        return FLOORS_YIELDED
    return 0 if plan.status is PlanStatus.OPTIMAL else UNPROVEN


def _settings(method: Method, gap: float | None, time_limit: float | None) -> SolveSettings:
    settings = SolveSettings(method=method)
    if gap is not None:
        if not 0 <= gap < 1:
            raise RequestError("gap", f"is {gap:g}; accepted: 0 or more, less than 1")
        settings = replace(settings, relative_gap=gap)
    if time_limit is not None:
        if not 0 < time_limit < float("inf"):
            raise RequestError("time-limit", f"is {time_limit:g}; accepted: more than 0 s")
        settings = replace(settings, deadline_seconds=time_limit)
    return settings


def _solved(read: ProblemFile, asked: _Asked) -> _Solved:
    caps = changes.parse_caps(asked.caps, read.problem.domains)
    inputs = read.inputs
    if inputs is not None and _is_made_from(read.problem, inputs):
        return _solve_inputs(read, inputs, caps, asked)
    _refuse_table_changes(asked.what_if, inputs)
    return _solve_bare(read.problem, caps, asked)


def _is_made_from(problem: PlanningProblem, inputs: PlanningInputs) -> bool:
    """Tell whether the tables are still those of the inputs; edited tables win."""
    return problem_to_json(build_problem(inputs)) == problem_to_json(problem)


def _refuse_table_changes(what_if: WhatIf, inputs: PlanningInputs | None) -> None:
    for option, value in (
        ("price", what_if.price),
        ("carbon", what_if.carbon),
        ("load-factor", what_if.load_factor),
    ):
        if value is None:
            continue
        why = (
            "the file holds tables alone, and those of another load or price do not follow from "
            "them; save the problem with `powercap plan --save-problem`, as .json"
            if inputs is None
            else "the tables of the file were edited and no longer follow from its curves and loads"
        )
        raise RequestError(option, f"cannot be applied: {why}")


def _check_objective(problem: PlanningProblem, objective: Objective) -> None:
    grid = problem.grid
    if objective is Objective.NET_VALUE and (grid is None or grid.token_price_per_million is None):
        raise RequestError(
            "objective",
            "is net_value, and the problem has no grid.token_price_per_million; accepted without: "
            f"{Objective.THROUGHPUT_PER_WATT}, {Objective.THROUGHPUT}",
        )


def _solve_inputs(
    read: ProblemFile, inputs: PlanningInputs, caps: dict[str, float], asked: _Asked
) -> _Solved:
    """Solve a file that holds what its tables follow from: loads and prices can change too."""
    objective = asked.objective or Objective(inputs.objective.kind.value)
    _check_objective(read.problem, objective)
    kind = ObjectiveKind(objective.value)
    unchanged, outcome, changed = changes.plan_both(
        replace(inputs, objective=replace(inputs.objective, kind=kind)),
        replace(asked.what_if, cap_watts=next(iter(caps.values()), None)),
        now_seconds=read.planned_at_seconds,
        solve_settings=asked.settings,
        warm=asked.warm,
    )
    if asked.save_problem_to:
        save_problem(
            asked.save_problem_to,
            outcome.problem,
            changed,
            planned_at_seconds=read.planned_at_seconds,
        )
    return _Solved(
        problem=outcome.problem,
        plan=outcome.plan,
        rows=rows_of(outcome),
        unchanged=None if unchanged is None else rows_of(unchanged),
        document=changes.document_of(outcome, unchanged),
    )


def _solve_bare(problem: PlanningProblem, caps: dict[str, float], asked: _Asked) -> _Solved:
    objective = asked.objective or Objective.THROUGHPUT_PER_WATT
    _check_objective(problem, objective)
    settings = replace(asked.settings, objective=objective)
    changed = _changed(problem, caps, asked.what_if.replicas)
    plan, findings = solve_verified(changed, settings, warm=asked.warm)
    document = {"plan": _plan_to_dict(changed, plan)}
    unchanged = None
    if changed is not problem:
        first, _ = solve_verified(problem, settings, warm=asked.warm)
        unchanged = problem_rows(problem, first)
        document["unchanged"] = _plan_to_dict(problem, first)
    if asked.save_problem_to:
        save_bare_problem(asked.save_problem_to, changed)
    return _Solved(
        problem=changed,
        plan=plan,
        rows=replace(problem_rows(changed, plan), findings=finding_lines(findings)),
        unchanged=unchanged,
        document=document,
    )


def _changed(
    problem: PlanningProblem, caps: dict[str, float], pins: dict[str, int]
) -> PlanningProblem:
    for domain, watts in caps.items():
        problem = with_cap(problem, watts, domain=problem.domains.index(domain))
    for name, count in pins.items():
        row = problem.deployments.index(resolve(name, problem.deployments))
        problem = with_only_replicas(problem, deployment=row, replicas=count)
    return problem


def _plan_to_dict(problem: PlanningProblem, plan: Plan) -> dict[str, Any]:
    document = {
        "replicas": {
            key: [int(problem.replicas[row, option]) for option in plan.choice[row]]
            for row, key in enumerate(problem.deployments)
        },
        **json_module.loads(plan_to_json(plan)),
    }
    if problem.labels is not None:
        document["options"] = {
            key: [option_text(problem, row, option) for option in plan.choice[row].tolist()]
            for row, key in enumerate(problem.deployments)
        }
    return document


def _print(solved: _Solved, answers: Answers, notes: list[str]) -> None:
    console = screen()
    title = "Plan" if solved.unchanged is None else "Plan, as asked"
    title += period_title(solved.problem)
    print_plan(console, solved.rows, title=title, most_rows=_MOST_ROWS)
    print_details(console, solved.problem, solved.plan)
    if solved.unchanged is not None:
        print_difference(console, solved.unchanged, solved.rows, most_rows=_MOST_ROWS)
    print_answers(console, answers, unit=price_unit(solved.problem, solved.plan))
    print_findings(console, replace(solved.rows, findings=(*solved.rows.findings, *notes)))
