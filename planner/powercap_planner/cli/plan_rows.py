"""Rows for the screen from a problem and its plan alone, without curves behind them."""

from __future__ import annotations

import math

import numpy as np

from powercap_planner.cli.tables import CapRow, PlanRows, TargetRow, shown_least_cap
from powercap_planner.planning import least_cap_watts
from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.plan import Plan, PlanStatus
from powercap_solver.problem import PlanningProblem, Utility
from powercap_solver.settings import Objective


def problem_rows(problem: PlanningProblem, plan: Plan) -> PlanRows:
    """Return the rows of the first period of a plan."""
    row = np.arange(len(problem.deployments))
    chosen = plan.choice[:, 0]
    power = float(problem.power_watts[row, 0, chosen].sum())
    charged = _charged(problem, chosen)
    unit = price_unit(problem, plan)
    binding = {one.name for one in plan.binding if one.kind == "cap" and one.period == 0}
    is_alone = len(problem.domains) == 1
    return PlanRows(
        targets=tuple(
            _target_row(problem, place, int(chosen[place]), float(charged[place]))
            for place in row.tolist()
        ),
        caps=tuple(
            _cap_row(
                problem,
                plan,
                domain,
                # What is drawn behind one of several caps, tables of upper watts do not tell.
                power_watts=power if is_alone else math.nan,
                is_binding=name in binding,
                unit=unit,
            )
            for domain, name in enumerate(problem.domains)
        ),
        status=plan.status.value,
        rung=plan.rung,
        gap=max((stage.gap for stage in plan.stages), default=math.nan),
        whole_watts=None if is_alone else power + float(problem.zone_base_watts[:, 0].sum()),
    )


def price_unit(problem: PlanningProblem, plan: Plan) -> str:
    """Return what stage 2 counts per second."""
    if plan.objective == Objective.NET_VALUE.value:
        return "money/s"
    return "utility/s" if problem.utility is Utility.PROPORTIONAL_FAIR else "weighted tok/s"


def option_text(problem: PlanningProblem, row: int, option: int) -> str:
    """Return mode and variants of an option, as far as the problem tells options apart by them."""
    labels = problem.labels
    if labels is None:
        return ""
    parts = []
    if len(labels.modes) > 1:
        parts.append(labels.modes[int(labels.mode_index[row, option])])
    counts = labels.variant_replicas[row, option].tolist()
    variants = zip(labels.variants[row], counts[: len(labels.variants[row])], strict=True)
    parts += [f"{count} x {name}" for name, count in variants]
    return ", ".join(parts)


def _charged(problem: PlanningProblem, chosen: IntArray) -> FloatArray:
    """float64[deployment]: upper W of the first period in the domain that is charged most."""
    charged = np.zeros(len(problem.deployments))
    draws = problem.draw_deployment
    upper = problem.upper_watts[np.arange(len(draws)), 0, chosen[draws]]
    np.maximum.at(charged, draws, upper)
    return charged


def _target_row(problem: PlanningProblem, row: int, option: int, charged: float) -> TargetRow:
    in_force = int(problem.replicas_in_force[row])
    options = int(problem.option_count[row])
    reason = "the largest option" if option + 1 == options else ""
    return TargetRow(
        deployment=problem.deployments[row],
        gpus="",
        load_tps=float(problem.load_tps[row, 0]),
        replicas_now=None if in_force < 0 else in_force,
        replicas_allowed=int(problem.replicas[row, option]),
        planned_watts=float(problem.power_watts[row, 0, option]),
        charged_watts=charged,
        served_tps=float(problem.served_tps[row, 0, option]),
        reason="the only option" if options == 1 else reason,
        option=option_text(problem, row, option),
    )


def _cap_row(
    problem: PlanningProblem,
    plan: Plan,
    domain: int,
    *,
    power_watts: float,
    is_binding: bool,
    unit: str,
) -> CapRow:
    base = float(problem.base_watts[domain, 0])
    unmanaged = float(problem.unmanaged_watts[domain, 0])
    return CapRow(
        name=problem.domains[domain],
        cap_watts=float(problem.cap_watts[domain, 0]),
        charged_watts=float(plan.upper_watts[domain, 0]),
        planned_watts=base + unmanaged + float(problem.fixed_watts[domain, 0]) + power_watts,
        base_watts=base,
        unmanaged_watts=unmanaged,
        headroom_watts=float(plan.headroom_watts[domain, 0]),
        shadow_price_low=float(plan.shadow_price_low[domain, 0]),
        shadow_price_high=float(plan.shadow_price_high[domain, 0]),
        is_binding=is_binding,
        least_cap_watts=shown_least_cap(
            least_cap_watts(problem, plan, domain=domain),
            is_kept=plan.status is not PlanStatus.CAP_INFEASIBLE
            and all(floor.period != 0 for floor in plan.yielded_floors),
        ),
        price_unit=unit,
    )
