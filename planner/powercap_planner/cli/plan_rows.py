"""Rows for the screen from a problem and its plan alone, without curves behind them."""

from __future__ import annotations

import math

import numpy as np

from powercap_planner.cli.tables import CapRow, PlanRows, TargetRow, shown_least_cap
from powercap_planner.planning import least_cap_watts
from powercap_solver.plan import Plan, PlanStatus
from powercap_solver.problem import PlanningProblem


def problem_rows(problem: PlanningProblem, plan: Plan) -> PlanRows:
    """Return the rows of the first period of a plan."""
    row = np.arange(len(problem.deployments))
    chosen = plan.choice[:, 0]
    power = problem.power_watts[row, 0, chosen]
    return PlanRows(
        targets=tuple(_target_row(problem, int(place), int(chosen[place])) for place in row),
        caps=tuple(
            _cap_row(problem, plan, domain, float(power.sum()))
            for domain in range(len(problem.domains))
        ),
        status=plan.status.value,
        rung=plan.rung,
        gap=max((stage.gap for stage in plan.stages), default=math.nan),
    )


def _target_row(problem: PlanningProblem, row: int, option: int) -> TargetRow:
    upper = problem.upper_watts[:, row, 0, option]
    in_force = int(problem.replicas_in_force[row])
    is_last = option + 1 == int(problem.option_count[row])
    return TargetRow(
        deployment=problem.deployments[row],
        gpus="",
        load_tps=float(problem.load_tps[row, 0]),
        replicas_now=None if in_force < 0 else in_force,
        replicas_allowed=int(problem.replicas[row, option]),
        planned_watts=float(problem.power_watts[row, 0, option]),
        charged_watts=float(upper.max()) if upper.size else 0.0,
        served_tps=float(problem.served_tps[row, 0, option]),
        reason="the largest option" if is_last else "",
    )


def _cap_row(problem: PlanningProblem, plan: Plan, domain: int, power_watts: float) -> CapRow:
    base = float(problem.base_watts[domain, 0])
    unmanaged = float(problem.unmanaged_watts[domain, 0])
    high = float(plan.shadow_price_high[domain, 0])
    return CapRow(
        name=problem.domains[domain],
        cap_watts=float(problem.cap_watts[domain, 0]),
        charged_watts=float(plan.upper_watts[domain, 0]),
        planned_watts=base + unmanaged + float(problem.fixed_watts[domain, 0]) + power_watts,
        base_watts=base,
        unmanaged_watts=unmanaged,
        headroom_watts=float(plan.headroom_watts[domain, 0]),
        shadow_price_low=float(plan.shadow_price_low[domain, 0]),
        shadow_price_high=high,
        is_binding=high > 0,
        least_cap_watts=shown_least_cap(
            least_cap_watts(problem, plan, domain=domain),
            is_kept=plan.status is not PlanStatus.CAP_INFEASIBLE
            and all(floor.period != 0 for floor in plan.yielded_floors),
        ),
    )
