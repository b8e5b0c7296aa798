"""An independent check of a plan against its problem, in plain numpy and ``math.fsum``.

Shares nothing with the methods. What it proves: the choices exist, every limit holds (caps, GPU
pools, watts per step, budgets, ramps), every number the plan states about its choices is what
the choices give, every stage keeps the stages before it, and every bound lies on the right side.
What it cannot prove: that a bound is no tighter than the truth; for that, solve again with
another method.

A cap, pool or budget that even the least choice exceeds counts as that least use, and the status
must then be ``cap_infeasible``. A plan of that status without stages must be the lowest draw.
"""

from __future__ import annotations

import numpy as np

from powercap_solver.certificate_claims import (
    check_binding,
    check_least_caps,
    check_yielded,
    told,
)
from powercap_solver.certificate_stages import check_stages
from powercap_solver.plan import Plan, PlanStatus, StoppedBy
from powercap_solver.problem import PlanningProblem
from powercap_solver.recomputed import NET_VALUE, OBJECTIVES, Chosen
from powercap_solver.recomputed_limits import CAP_TOLERANCE, LimitRows, Limits

_FAST, _COMPACT, _GREEDY, _IN_FORCE, _LOWEST = "fast", "compact", "greedy", "in_force", "lowest"
_RUNGS = (_FAST, _COMPACT, _GREEDY, _IN_FORCE, _LOWEST)


def verify(problem: PlanningProblem, plan: Plan) -> tuple[str, ...]:
    """Check ``plan`` against ``problem``; every sentence returned is something wrong with it."""
    unreadable = _unreadable(problem, plan)
    if unreadable:
        return tuple(unreadable)
    limits = Limits(problem=problem, kappa=plan.kappa)
    chosen = Chosen(problem=problem, objective=plan.objective, choice=plan.choice)
    rows = limits.rows(plan.choice)
    return (
        *_kappa(problem, plan),
        *_watts(problem, plan, rows[0]),
        *_prices(plan),
        *check_yielded(problem, plan, chosen),
        *check_least_caps(problem, plan),
        *check_binding(plan, limits, rows),
        *check_stages(problem, plan, limits, chosen, rows),
        *_status(problem, plan, limits, chosen, rows),
    )


def _unreadable(problem: PlanningProblem, plan: Plan) -> list[str]:
    """What makes everything else meaningless: shapes, places, the objective."""
    choices, caps = problem.load_tps.shape, problem.cap_watts.shape
    expected: dict[str, tuple[int, ...]] = {
        "choice": choices,
        "stage_choice": (len(plan.stages), *choices),
        "upper_watts": caps,
        "headroom_watts": caps,
        "shadow_price_low": caps,
        "shadow_price_high": caps,
        "least_cap_watts": caps,
        "kappa": (0, 0) if problem.expected is None else caps,
    }
    wrong = [
        f"{name} has shape {getattr(plan, name).shape}, the problem asks for {shape}"
        for name, shape in expected.items()
        if getattr(plan, name).shape != shape
    ]
    if plan.objective not in OBJECTIVES:
        wrong.append(f"objective is {plan.objective!r}; accepted: {', '.join(OBJECTIVES)}")
    grid = problem.grid
    if plan.objective == NET_VALUE and (grid is None or grid.token_price_per_million is None):
        wrong.append("objective is 'net_value'; the problem has no grid.token_price_per_million")
    if wrong:
        return wrong
    for name in ("choice", "stage_choice"):
        choice = getattr(plan, name)
        if choice.dtype.kind != "i":
            return [f"{name} holds {choice.dtype}; accepted: whole numbers"]
        count = problem.option_count[:, None]
        wrong += told(
            (choice < 0) | (choice >= count),
            lambda *at, name=name, choice=choice: (
                f"{name}{list(at)} is {choice[at]}; {problem.deployments[at[-2]]} has "
                f"{problem.option_count[at[-2]]} options"
            ),
        )
    if len(plan.stages) and (plan.stage_choice[-1] != plan.choice).any():
        wrong.append("choice is not that of the last stage")
    return wrong


def _kappa(problem: PlanningProblem, plan: Plan) -> list[str]:
    if problem.expected is None:
        return []
    # At the largest residual of any sample the rows charge no less than the aggregate bound.
    most = max(0.0, float(problem.expected.residual.max()))
    kappa = plan.kappa
    return told(
        ~((kappa >= 0) & (kappa <= most * (1 + CAP_TOLERANCE))),
        lambda domain, period: (
            f"kappa of domain {problem.domains[domain]}, period {period} is "
            f"{kappa[domain, period]!s}; accepted: 0 to the largest residual, {most!s}"
        ),
    )


def _watts(problem: PlanningProblem, plan: Plan, caps: LimitRows) -> list[str]:
    total = caps.used + problem.base_watts + problem.unmanaged_watts + problem.fixed_watts
    near = CAP_TOLERANCE * np.maximum(problem.cap_watts, total)
    left = caps.given - caps.used

    def where(domain: int, period: int) -> str:
        return f"domain {problem.domains[domain]}, period {period}"

    return [
        *told(
            ~(np.abs(plan.upper_watts - total) <= near),
            lambda *at: (
                f"{where(*at)}: upper_watts is {plan.upper_watts[at]!s} W, the options give "
                f"{total[at]!s} W"
            ),
        ),
        *told(
            ~(np.abs(plan.headroom_watts - left) <= near),
            lambda *at: (
                f"{where(*at)}: headroom_watts is {plan.headroom_watts[at]!s} W, the options "
                f"leave {left[at]!s} W"
            ),
        ),
    ]


def _prices(plan: Plan) -> list[str]:
    low, high = plan.shadow_price_low, plan.shadow_price_high
    is_unknown = np.isnan(low) & np.isnan(high)
    wrong = told(
        ~(is_unknown | ((low >= 0) & (low <= high) & (high < np.inf))),
        lambda *at: (
            f"shadow price of domain {at[0]}, period {at[1]} is {low[at]!s} to {high[at]!s}; "
            "accepted: 0 or more, ends in order, or both not known"
        ),
    )
    prices = plan.row_prices
    if prices.ndim != 1:
        return [*wrong, f"row_prices has shape {prices.shape}; accepted: one price per row"]
    return wrong + told(
        ~(np.isnan(prices) | ((prices >= 0) & (prices < np.inf))),
        lambda row: f"row_prices[{row}] is {prices[row]!s}; accepted: 0 or more, or not known",
    )


def _status(
    problem: PlanningProblem,
    plan: Plan,
    limits: Limits,
    chosen: Chosen,
    rows: tuple[LimitRows, ...],
) -> list[str]:
    wrong = []
    if plan.rung not in _RUNGS:
        wrong.append(f"rung is {plan.rung!r}; accepted: {', '.join(_RUNGS)}")
    unproven = [stage.name for stage in plan.stages if stage.stopped_by is not StoppedBy.PROOF]
    if plan.status is PlanStatus.OPTIMAL and unproven:
        wrong.append(f"status is optimal, stages {unproven} stopped before their proof")
    if plan.status is PlanStatus.OPTIMAL and not plan.stages:
        wrong.append("status is optimal, the plan has no stages")
    if not plan.stages and plan.rung not in (_IN_FORCE, _LOWEST):
        wrong.append(f"the plan has no stages; rung {plan.rung!r} has")
    if plan.stages and plan.rung == _IN_FORCE:
        wrong.append("rung is 'in_force', which has no stages")
    if plan.rung == _IN_FORCE:
        is_other = chosen.replicas != problem.replicas_in_force[:, None]
        wrong += told(
            is_other,
            lambda *at: f"{problem.deployments[at[0]]}, period {at[1]}: not the plan in force",
        )
    is_infeasible = plan.status is PlanStatus.CAP_INFEASIBLE
    if is_infeasible and plan.rung != _LOWEST:
        wrong.append(f"rung is {plan.rung!r}, expected 'lowest' with status cap_infeasible")
    if not is_infeasible and plan.stages and plan.rung == _LOWEST:
        wrong.append(f"rung is 'lowest' although the status is {plan.status.value!r}")
    is_exceeded = any((each.excess > 0).any() for each in rows)
    if is_infeasible and not is_exceeded and (plan.stages or not _breaks_more(limits, chosen)):
        wrong.append("status is cap_infeasible although the options keep every cap")
    if not plan.stages and plan.rung == _LOWEST:
        wrong += _lowest(problem, plan, limits)
    return wrong


def _breaks_more(limits: Limits, chosen: Chosen) -> bool:
    """Whether a ramp or, with assurance Expected, the aggregate bound is broken."""
    problem = limits.problem
    aggregate = limits.aggregate(chosen.choice)
    is_over = aggregate is not None and bool(
        (aggregate > problem.available_watts + CAP_TOLERANCE * problem.cap_watts).any()
    )
    return is_over or bool(chosen.breaks_ramps.any())


def _lowest(problem: PlanningProblem, plan: Plan, limits: Limits) -> list[str]:
    """A plan of the lowest draw must be it, in every deployment and period."""
    summed = limits.summed_upper()
    least = np.where(problem.is_option[:, None, :], summed, np.inf).min(axis=2)
    drawn = np.take_along_axis(summed, plan.choice[:, :, None], axis=2)[:, :, 0]
    return told(
        drawn > least * (1 + 1e-12),
        lambda *at: (
            f"{problem.deployments[at[0]]}, period {at[1]} draws {drawn[at]!s} W above base "
            f"over its domains, the least is {least[at]!s} W"
        ),
    )
