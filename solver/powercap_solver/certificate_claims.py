"""What a plan claims about its floors, its caps and the limits that hold it down.

Floors that yielded are named, truly and completely; the least caps that would have kept them are
larger than the caps given; a binding row is one with a price, or one that leaves less than the
next larger option of anyone needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from powercap_solver.arrays import BoolArray
from powercap_solver.plan import BindingRow, Plan, StoppedBy
from powercap_solver.problem import PlanningProblem
from powercap_solver.recomputed import FLOORS, Chosen
from powercap_solver.recomputed_limits import CAP_TOLERANCE, LimitRows, Limits

TOLERANCE = 1e-7
"""Relative, on sums recomputed and on what a stage keeps."""
ROUNDING = 1e-12
"""Relative to the size of what was summed up."""
MOST_TOLD = 20
"""Sentences of one kind; a plan wrong everywhere needs no more."""


def is_near(one: float, other: float, *, size: float = 0.0) -> bool:
    """Whether two numbers agree up to rounding; ``size`` is that of what was summed up."""
    near = TOLERANCE * max(abs(one), abs(other), 1e-9) + ROUNDING * size
    return abs(one - other) <= near


def told(places: BoolArray, sentence: Callable[..., str]) -> list[str]:
    """One sentence for each place where the array is not zero, and how many were left out."""
    found = np.argwhere(places)
    told = [sentence(*place) for place in found[:MOST_TOLD].tolist()]
    if len(found) > len(told):
        told.append(f"{len(found) - len(told)} more like the last")
    return told


def check_yielded(problem: PlanningProblem, plan: Plan, chosen: Chosen) -> list[str]:
    """Floors said to have yielded: true, with the right numbers, and none left out."""
    index = {name: place for place, name in enumerate(problem.deployments)}
    kinds = {
        "min_replicas": (chosen.missing_replicas, problem.min_replicas, chosen.replicas),
        "min_served_fraction": (
            chosen.missing_served,
            problem.min_served_fraction,
            chosen.served / np.where(problem.load_tps > 0, problem.load_tps, 1.0),
        ),
    }
    left = {kind: missing > 0 for kind, (missing, _, _) in kinds.items()}
    wrong = []
    for floor in plan.yielded_floors:
        key = (floor.deployment, floor.period, floor.kind)
        place = index.get(floor.deployment, -1)
        is_known = floor.kind in kinds and 0 <= floor.period < len(problem.period_seconds)
        if place < 0 or not is_known:
            wrong.append(f"yielded floor {key} is of no deployment, period and kind there is")
            continue
        missing, wanted, reached = kinds[floor.kind]
        at = (place, floor.period)
        if not missing[at] > 0:
            wrong.append(f"yielded floor {key} is stated, the options keep it")
            continue
        if not left[floor.kind][at]:
            wrong.append(f"yielded floor {key} is stated twice")
        left[floor.kind][at] = False
        required, planned = float(wanted[place]), float(reached[at])
        if not (is_near(floor.required, required) and is_near(floor.planned, planned)):
            wrong.append(
                f"yielded floor {key} states {floor.planned!r} of {floor.required!r}, "
                f"the options give {planned!r} of {required!r}"
            )
    for kind, unstated in left.items():
        wrong += told(
            unstated,
            lambda at, period, kind=kind: (
                f"floor {kind} of {problem.deployments[at]}, period {period} is missed and "
                "not stated"
            ),
        )
    return wrong


def check_least_caps(problem: PlanningProblem, plan: Plan) -> list[str]:
    """Least caps and their common factor: only where floors yielded, above what is given."""
    least, cap = plan.least_cap_watts, problem.cap_watts
    has_yielded = np.zeros(cap.shape[1], dtype=bool)
    has_yielded[[at.period for at in plan.yielded_floors if 0 <= at.period < len(has_yielded)]] = 1
    is_known = ~np.isnan(least)
    # Where a floor yields to nothing but caps and pools of its period, and that is proven, the
    # cap alone must grow.
    grid = problem.grid
    is_budgeted = (
        grid is not None
        and min(grid.energy_budget_joules, grid.money_budget, grid.carbon_budget_grams) < math.inf
    )
    is_proven = any(
        stage.name == FLOORS and stage.stopped_by is StoppedBy.PROOF for stage in plan.stages
    )
    must_exceed = is_proven and problem.dynamics is None and not is_budgeted
    above = cap if must_exceed else np.zeros(cap.shape)

    def where(domain: int, period: int) -> str:
        at = (domain, period)
        return (
            f"least_cap_watts of domain {problem.domains[domain]}, period {period} is "
            f"{least[at]!s} W"
        )

    wrong = [
        *told(is_known & ~has_yielded, lambda *at: f"{where(*at)} although no floor yielded there"),
        *told(
            is_known & has_yielded & ~((least > above) & (least < np.inf)),
            lambda *at: f"{where(*at)}, not above {above[at]!s} W, or infinite",
        ),
    ]
    factor = plan.least_common_factor
    if not math.isnan(factor):
        if not plan.yielded_floors:
            wrong.append(f"least_common_factor is {factor!r} although no floor yielded")
        elif not 1 <= factor < math.inf:
            wrong.append(f"least_common_factor is {factor!r}; accepted: 1 or more, or not known")
    return wrong


def check_binding(plan: Plan, limits: Limits, rows: tuple[LimitRows, ...]) -> list[str]:
    """Binding rows: they exist, their numbers are right, and they hold the plan down."""
    by_kind = {each.kind: (each, limits.effective(each)) for each in rows}
    places = {(each.kind, name): place for each in rows for place, name in enumerate(each.names)}
    wrong = []
    seen = set()
    for row in plan.binding:
        key = (row.kind, row.name, row.period)
        place = places.get(key[:2], -1)
        if place < 0 or not 0 <= row.period < by_kind[row.kind][0].used.shape[1]:
            wrong.append(f"binding row {key} is none of the problem's limits")
            continue
        if key in seen:
            wrong.append(f"binding row {key} is stated twice")
        seen.add(key)
        each, limit = by_kind[row.kind]
        wrong += _binding_row(plan, limits, row, place, each, float(limit[place, row.period]))
    return wrong


def _binding_row(
    plan: Plan, limits: Limits, row: BindingRow, place: int, rows: LimitRows, limit: float
) -> list[str]:
    at = (place, row.period)
    what = f"binding row {row.kind} of {row.name}, period {row.period}"
    used, slack = float(rows.used[at]), float(rows.slack[at])
    near = slack + CAP_TOLERANCE * max(abs(used), abs(limit)) if math.isfinite(limit) else 0.0
    if not (abs(row.used - used) <= near and abs(row.limit - limit) <= near):
        return [
            f"{what} states {row.used!r} of {row.limit!r}, the options use {used!r} of {limit!r}"
        ]
    if not 0 <= row.price < math.inf:
        return [f"{what} has the price {row.price!r}; accepted: 0 or more"]
    if row.price > 0:
        return []
    need = limits.next_need(row.kind, place, row.period, plan.choice)
    if not limit - used < need < math.inf:
        return [f"{what} has no price and leaves {limit - used!r}; the next step needs {need!r}"]
    return []
