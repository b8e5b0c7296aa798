"""``powercap solve``: a saved problem, solved again, as it is or changed."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import typer
from numpy.typing import NDArray

from powercap_planner.assemble import build_problem
from powercap_planner.cli import changes
from powercap_planner.cli.files import load_problem, write_text
from powercap_planner.cli.grid import number_or_path
from powercap_planner.cli.plan_rows import problem_rows
from powercap_planner.cli.tables import print_difference, print_plan, screen
from powercap_planner.errors import RequestError
from powercap_planner.inputs import PlanningInputs
from powercap_planner.planning import solve_verified
from powercap_planner.request import ObjectiveKind
from powercap_planner.whatif import WhatIf, resolve
from powercap_solver.files import plan_to_json, problem_to_json
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import SolveSettings

_Scalar = TypeVar("_Scalar", bound=np.generic)


def command(
    problem: Annotated[Path, typer.Argument(metavar="PROBLEM", help="Problem file (JSON).")],
    cap: changes.CapOption = None,
    price: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="What if the price per MWh were this.")
    ] = None,
    carbon: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="What if gCO2eq/kWh were this.")
    ] = None,
    load_factor: changes.LoadFactorOption = None,
    replicas: changes.ReplicasOption = None,
    objective: Annotated[
        ObjectiveKind | None,
        typer.Option(help="Objective; default: the file's own, else throughput_per_watt."),
    ] = None,
    json: changes.JsonOption = False,
    save_problem: changes.SaveProblemOption = None,
    save_plan: changes.SavePlanOption = None,
) -> None:
    """Solve a problem file and print the plan.

    With what-if options the difference from the unchanged plan is shown. --cap and --replicas
    work on any problem. --price, --carbon and --load-factor change the tables themselves:
    they need a file written by `powercap plan --save-problem`, which holds curves and loads
    beside the tables, and are refused for a file without them.

    Examples:
      powercap solve problem.json
      powercap solve problem.json --cap 9000 --replicas chat=4 --save-plan plan.json
    """
    changes.check_cap(cap)
    number_or_path(None if price is None else str(price), option="price", low=float("-inf"))
    number_or_path(None if carbon is None else str(carbon), option="carbon", low=0.0)
    what_if = WhatIf(
        cap_watts=cap,
        price=price,
        carbon=carbon,
        load_factor=load_factor,
        replicas=changes.parse_pins(replicas),
    )
    read = load_problem(problem)
    inputs = read.inputs
    if inputs is not None and _is_made_from(read.problem, inputs):
        kind = objective or inputs.objective.kind
        changes.run(
            replace(inputs, objective=replace(inputs.objective, kind=kind)),
            what_if,
            now_seconds=read.planned_at_seconds,
            as_json=json,
            save_problem_to=save_problem,
            save_plan_to=save_plan,
        )
        return
    _refuse_table_changes(what_if, inputs)
    _solve_bare(
        read.problem,
        what_if,
        kind=objective or ObjectiveKind.THROUGHPUT_PER_WATT,
        as_json=json,
        save_problem_to=save_problem,
        save_plan_to=save_plan,
    )


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
            "them; save the problem with `powercap plan --save-problem`"
            if inputs is None
            else "the tables of the file were edited and no longer follow from its curves and loads"
        )
        raise RequestError(option, f"cannot be applied: {why}")


def _solve_bare(
    problem: PlanningProblem,
    what_if: WhatIf,
    *,
    kind: ObjectiveKind,
    as_json: bool,
    save_problem_to: Path | None,
    save_plan_to: Path | None,
) -> None:
    plan, _ = solve_verified(problem, kind, SolveSettings())
    changed, changed_plan = problem, plan
    if not what_if.is_empty:
        changed = _changed(problem, what_if)
        changed_plan, _ = solve_verified(changed, kind, SolveSettings())
    if save_problem_to:
        write_text(save_problem_to, problem_to_json(changed))
    if save_plan_to:
        write_text(save_plan_to, plan_to_json(changed_plan))
    if as_json:
        document: dict[str, Any] = {"plan": _plan_to_dict(changed, changed_plan)}
        if not what_if.is_empty:
            document["unchanged"] = _plan_to_dict(problem, plan)
        sys.stdout.write(json_module.dumps(document, indent=2) + "\n")
        return
    console = screen()
    rows = problem_rows(changed, changed_plan)
    print_plan(console, rows, title="Plan" if what_if.is_empty else "Plan, as asked")
    if not what_if.is_empty:
        print_difference(console, problem_rows(problem, plan), rows)


def _changed(problem: PlanningProblem, what_if: WhatIf) -> PlanningProblem:
    if what_if.cap_watts is not None:
        if len(problem.domains) != 1:
            raise RequestError("cap", f"{len(problem.domains)} domains have one; accepted: one")
        problem = replace(problem, cap_watts=np.full_like(problem.cap_watts, what_if.cap_watts))
    for name, count in what_if.replicas.items():
        row = problem.deployments.index(resolve(name, problem.deployments))
        problem = _pinned(problem, row, count)
    return problem


def _pinned(problem: PlanningProblem, row: int, count: int) -> PlanningProblem:
    """Return the problem with one option left for a deployment."""
    options = problem.replicas[row, : problem.option_count[row]]
    if count not in options:
        accepted = f"{options[0]} to {options[-1]}, as the problem offers"
        raise RequestError("replicas", f"{problem.deployments[row]}={count}; accepted: {accepted}")
    option = int(np.flatnonzero(options == count)[0])

    counts = np.array(problem.option_count)
    counts[row] = 1
    floors = np.array(problem.min_replicas)
    floors[row] = count
    return replace(
        problem,
        option_count=counts,
        min_replicas=floors,
        replicas=_with_option_first(problem.replicas, np.index_exp[row], option),
        served_tps=_with_option_first(problem.served_tps, np.index_exp[row], option),
        power_watts=_with_option_first(problem.power_watts, np.index_exp[row], option),
        upper_watts=_with_option_first(problem.upper_watts, np.index_exp[:, row], option),
    )


def _with_option_first(
    table: NDArray[_Scalar], place: tuple[int | slice, ...], option: int
) -> NDArray[_Scalar]:
    """Return [..., option] with one option of a deployment moved to the front, padded behind."""
    result = np.array(table)
    result[place] = 0
    result[place][..., 0] = table[place][..., option]
    return result


def _plan_to_dict(problem: PlanningProblem, plan: Plan) -> dict[str, Any]:
    return {
        "replicas": {
            key: [int(problem.replicas[row, option]) for option in plan.choice[row]]
            for row, key in enumerate(problem.deployments)
        },
        **json_module.loads(plan_to_json(plan)),
    }
