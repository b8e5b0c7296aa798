"""The rows that no plan may break: caps, GPU pools, watts per step, budgets.

    cap     sum of (mean + kappa * (upper - mean)) <= available        per domain and period
    pool    sum of gpus <= gpu_count                                   per pool and period
    rise    charged watts of t less those of t - 1 <= max_rise_watts   per domain and step
    fall    the same the other way, <= max_fall_watts
    budget  sum over the horizon of s * rate * (power + zone base) <= limit

A cap, pool or budget below the least that any choice uses is replaced by that least: nothing lower
can be planned, and everything else is planned under it.
"""

from __future__ import annotations

import math

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray
from powercap_solver.compact.model import Row
from powercap_solver.problem import PlanningProblem
from powercap_solver.worth import BUDGETS, budget_rates

CAP_TOLERANCE = 1e-9
"""A cap holds when it is exceeded by no more than this share of it."""
STEP_TOLERANCE = 1e-9
"""The same for watts per step and budgets."""


def charged_watts(problem: PlanningProblem, kappa: FloatArray) -> FloatArray:
    """float64[draw, period, option]: W above base charged against the draw's domain."""
    upper = problem.upper_watts
    if problem.expected is not None:
        share = kappa[problem.draw_domain][:, :, None]
        mean = problem.expected.mean_watts
        upper = mean + share * (upper - mean)
    if problem.dynamics is not None:
        upper = np.maximum(upper, problem.dynamics.present_upper_watts[:, :, None])
    return upper


def effective_available(
    problem: PlanningProblem, kappa: FloatArray
) -> tuple[FloatArray, BoolArray]:
    """Watts above base that options may be charged, and where even the least is more.

    Returns:
        float64[domain, period], bool[domain, period].
    """
    available = problem.available_watts
    charged = charged_watts(problem, kappa)
    is_option = problem.is_option[problem.draw_deployment][:, None, :]
    least_each = np.min(np.where(is_option, charged, np.inf), axis=2, initial=np.inf)
    least = np.zeros(available.shape)
    for domain, period in np.ndindex(*available.shape):
        least[domain, period] = math.fsum(least_each[problem.draw_domain == domain, period])
    is_exceeded: BoolArray = least > available + CAP_TOLERANCE * problem.cap_watts
    return np.where(is_exceeded, least, available), is_exceeded


def hard_rows(
    problem: PlanningProblem, available: FloatArray, is_exceeded: BoolArray, kappa: FloatArray
) -> tuple[Row, ...]:
    """Every hard row, caps first: ``domain * periods + period`` is the place of a cap's row."""
    charged = charged_watts(problem, kappa)
    return (
        *_cap_rows(problem, available, is_exceeded, charged),
        *_pool_rows(problem),
        *_step_rows(problem, charged),
        *_budget_rows(problem),
    )


def _cap_rows(
    problem: PlanningProblem, available: FloatArray, is_exceeded: BoolArray, charged: FloatArray
) -> list[Row]:
    periods = len(problem.period_seconds)
    rows = []
    for domain in range(len(problem.domains)):
        draws = np.flatnonzero(problem.draw_domain == domain)
        deployment = problem.draw_deployment[draws]
        for period in range(periods):
            coefficient = charged[draws, period]
            # Only who can draw there: rows that touch few groups fall apart into small models.
            can_draw = (coefficient > 0).any(axis=1)
            if not can_draw.all():
                coefficient = coefficient[can_draw]
            rows.append(
                Row(
                    kind="cap",
                    place=(domain, period),
                    groups=deployment[can_draw] * periods + period,
                    coefficient=coefficient,
                    limit=float(available[domain, period]),
                    slack=float(CAP_TOLERANCE * problem.cap_watts[domain, period]),
                    is_raised=bool(is_exceeded[domain, period]),
                )
            )
    return rows


def _pool_rows(problem: PlanningProblem) -> list[Row]:
    if problem.pools is None:
        return []
    periods = len(problem.period_seconds)
    rows = []
    for pool in range(len(problem.pools.names)):
        gpus = problem.pools.gpus[pool].astype(np.float64)
        users = np.flatnonzero((gpus > 0).any(axis=1))
        least = np.where(problem.is_option[users], gpus[users], np.inf).min(axis=1, initial=np.inf)
        for period in range(periods):
            gpu_count, needed = float(problem.pools.gpu_count[pool, period]), math.fsum(least)
            rows.append(
                Row(
                    kind="pool",
                    place=(pool, period),
                    groups=users * periods + period,
                    coefficient=gpus[users],
                    limit=max(gpu_count, needed),
                    is_raised=needed > gpu_count,
                    # GPUs are whole: half of one is no rounding and no GPU.
                    slack=0.25,
                )
            )
    return rows


def _step_rows(problem: PlanningProblem, charged: FloatArray) -> list[Row]:
    dynamics = problem.dynamics
    if dynamics is None:
        return []
    rows = []
    for domain in range(len(problem.domains)):
        for kind, sign, limits in (
            ("rise", 1.0, dynamics.max_rise_watts),
            ("fall", -1.0, dynamics.max_fall_watts),
        ):
            if math.isfinite(limits[domain]):
                rows += _steps_of(problem, charged, domain, kind, sign, float(limits[domain]))
    return rows


def _steps_of(
    problem: PlanningProblem,
    charged: FloatArray,
    domain: int,
    kind: str,
    sign: float,
    limit: float,
) -> list[Row]:
    dynamics = problem.dynamics
    assert dynamics is not None
    periods = len(problem.period_seconds)
    draws = np.flatnonzero(problem.draw_domain == domain)
    deployment = problem.draw_deployment[draws]
    rows = []
    slack = STEP_TOLERANCE * float(problem.cap_watts[domain].max(initial=1.0))
    initial = float(dynamics.initial_upper_watts[domain])
    for period in range(periods):
        now = sign * charged[draws, period]
        groups, coefficient, most = deployment * periods + period, now, limit
        if period == 0:
            if math.isnan(initial):
                continue
            most = limit + sign * initial
        else:
            before = -sign * charged[draws, period - 1]
            groups = np.concatenate([groups, groups - 1])
            coefficient = np.concatenate([coefficient, before])
        rows.append(
            Row(
                kind=kind,
                place=(domain, period),
                groups=groups,
                coefficient=coefficient,
                limit=most,
                slack=slack,
            )
        )
    return rows


def _budget_rows(problem: PlanningProblem) -> list[Row]:
    if problem.grid is None:
        return []
    seconds = problem.period_seconds
    rows = []
    for name, (limit, rate) in budget_rates(problem.grid).items():
        if not math.isfinite(limit):
            continue
        spent = math.fsum((seconds * rate * problem.zone_base_watts).ravel())
        each = (seconds * rate)[problem.zone_index][:, :, None] * problem.power_watts
        coefficient = each.reshape(-1, each.shape[2])
        real = np.repeat(problem.is_option, len(seconds), axis=0)
        least = math.fsum(np.where(real, coefficient, np.inf).min(axis=1))
        rows.append(
            Row(
                kind="budget",
                place=(BUDGETS.index(name), 0),
                groups=np.arange(len(coefficient)),
                coefficient=coefficient,
                limit=max(limit - spent, least),
                slack=STEP_TOLERANCE * abs(limit),
                is_raised=least > limit - spent + STEP_TOLERANCE * abs(limit),
            )
        )
    return rows
