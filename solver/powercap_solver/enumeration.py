"""The optimum of a small problem by going over every choice.

Choices are int64[choice, deployment, period]. Their totals are added up group by group (a group
is a deployment in a period), so the whole enumeration is a few array operations per group. Limits
count as kept within 1e-9 of themselves, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.parts import Dynamics
from powercap_solver.problem import PlanningProblem, Utility

_TOLERANCE = 1e-9
_LARGEST_ENUMERATION = 500_000
_BUDGETS = ("energy_budget_joules", "money_budget", "carbon_budget_grams")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Optimum:
    """The lexicographic optimum of floors and worth, over every choice."""

    shortfall: tuple[float, ...]
    """Missing fractions of floors by priority class, highest first."""
    value: float
    """What stage 2 maximises: the worth, with linear utility S."""
    choice: IntArray
    """int64[deployment, period]: the first choice that reaches both."""


def every_choice(
    problem: PlanningProblem, *, kappa: FloatArray | None = None
) -> Iterator[IntArray]:
    """Every choice that keeps every limit, int64[deployment, period].

    With assurance Expected the caps hold for the aggregate bound, or, given ``kappa``
    (float64[domain, period]), for mean + kappa * (upper - mean).

    Raises:
        ValueError: when there are more than half a million choices.
    """
    choices = _all_choices(problem)
    yield from choices[_keeps(problem, choices, kappa)]


def keeps_limits(
    problem: PlanningProblem, choice: IntArray, *, kappa: FloatArray | None = None
) -> bool:
    """Whether ``choice`` (int64[deployment, period]) keeps every limit and ramp."""
    return bool(_keeps(problem, choice[None], kappa)[0])


def keeps_caps(
    problem: PlanningProblem, choice: IntArray, *, kappa: FloatArray | None = None
) -> bool:
    """Whether ``choice`` (int64[deployment, period]) keeps every cap."""
    return bool(_keeps_caps(problem, choice[None], kappa)[0])


def picked(table: FloatArray, choice: IntArray) -> FloatArray:
    """Entries of float64[..., deployment, period, option] under int64[deployment, period]."""
    deployment, period = np.indices(choice.shape)
    entries: FloatArray = table[..., deployment, period, choice]
    return entries


def value_of(problem: PlanningProblem, choice: IntArray) -> float:
    """S: sum of period_seconds * weight * served, less what the links lose."""
    factor = problem.period_seconds * problem.weight[:, None]
    return float(_total(factor[:, :, None] * problem.served_tps, choice[None])[0]) - float(
        _lost(problem, choice[None])[0]
    )


def worth_of(
    problem: PlanningProblem, choice: IntArray, *, objective: str = "throughput_per_watt"
) -> float:
    """What stage 2 maximises under ``objective`` (a member of ``settings.Objective``)."""
    return float(_worth(problem, choice[None], objective)[0])


def energy_of(problem: PlanningProblem, choice: IntArray) -> float:
    """Sum of period_seconds * energy_weight * watts, base included."""
    weight = problem.period_seconds * problem.energy_weight
    power = picked(problem.power_watts, choice) * weight[problem.zone_index]
    return math.fsum([*power.ravel(), *(weight * problem.zone_base_watts).ravel()])


def shortfall_of(problem: PlanningProblem, choice: IntArray) -> tuple[float, ...]:
    """Missing fractions of floors by priority class, highest first, as shares of the horizon."""
    return tuple(float(missed) for missed in _shortfall(problem, choice[None])[0])


def enumerate_optimum(
    problem: PlanningProblem,
    *,
    objective: str = "throughput_per_watt",
    kappa: FloatArray | None = None,
) -> Optimum | None:
    """The best choice by floors, then worth; None when no choice keeps the limits.

    Raises:
        ValueError: when there are more than half a million choices.
    """
    choices = _all_choices(problem)
    choices = choices[_keeps(problem, choices, kappa)]
    if not len(choices):
        return None
    # Rounded so that sums of equal fractions in another order compare as equal.
    missed = np.round(_shortfall(problem, choices), 9)
    worth = _worth(problem, choices, objective)
    # lexsort: the last key counts most.
    best = np.lexsort((-worth, *missed.T[::-1]))[0]
    return Optimum(
        shortfall=tuple(float(each) for each in missed[best]),
        value=float(worth[best]),
        choice=choices[best],
    )


def attainable(problem: PlanningProblem, *, kappa: FloatArray | None = None) -> PlanningProblem:
    """The problem with every cap, pool and budget raised to the least that any choice uses.

    That is the problem that is planned when those limits cannot hold. With ``kappa`` the least
    charge of assurance Expected is that of its rows.
    """
    changes: dict[str, Any] = {}
    least = np.zeros(problem.cap_watts.shape)
    charged = _charged(problem, kappa)
    for draw, (domain, deployment) in enumerate(
        zip(problem.draw_domain.tolist(), problem.draw_deployment.tolist(), strict=True)
    ):
        least[domain] += charged[draw, :, : problem.option_count[deployment]].min(axis=1)
    above = problem.base_watts + problem.unmanaged_watts + problem.fixed_watts
    cap = (least + above) * problem.overhead_factor[:, None]
    cap = (cap + problem.fixed_overhead_watts[:, None]) * (1 + _TOLERANCE / 10)
    over = least > problem.available_watts + _TOLERANCE * problem.cap_watts
    changes["cap_watts"] = np.where(over, cap, problem.cap_watts)
    if problem.pools is not None:
        real = np.where(problem.is_option, problem.pools.gpus, np.iinfo(np.int64).max)
        needed = real.min(axis=2).sum(axis=1)
        count = np.maximum(problem.pools.gpu_count, needed[:, None])
        changes["pools"] = replace(problem.pools, gpu_count=count)
    if problem.grid is not None:
        budgets: dict[str, Any] = {}
        for name, (limit, base, spent) in _budgets(problem).items():
            real_only = np.where(problem.is_option[:, None, :], spent, np.inf)
            lowest = base + float(real_only.min(axis=2).sum())
            slack = _TOLERANCE * abs(limit)
            budgets[name] = limit if lowest <= limit + slack else lowest + slack / 10
        changes["grid"] = replace(problem.grid, **budgets)
    values = {field.name: getattr(problem, field.name) for field in fields(problem)}
    return PlanningProblem(**{**values, **changes})


def _all_choices(problem: PlanningProblem) -> IntArray:
    periods = len(problem.period_seconds)
    counts = np.repeat(problem.option_count, periods).tolist()
    if math.prod(counts) > _LARGEST_ENUMERATION:
        raise ValueError(f"{math.prod(counts)} choices are too many to enumerate")
    grids = np.indices(counts).reshape(len(counts), -1)
    return grids.T.reshape(-1, len(problem.deployments), periods).astype(np.int64)


def _total(table: FloatArray, choices: IntArray) -> FloatArray:
    """float64[choice]: sums of float64[deployment, period, option]."""
    total = np.zeros(len(choices))
    for deployment, period in np.ndindex(*choices.shape[1:]):
        total += table[deployment, period][choices[:, deployment, period]]
    return total


def _keeps(problem: PlanningProblem, choices: IntArray, kappa: FloatArray | None) -> BoolArray:
    keeps = _keeps_caps(problem, choices, kappa)
    if problem.pools is not None:
        for gpus, count in zip(problem.pools.gpus, problem.pools.gpu_count, strict=True):
            for period, most in enumerate(count.tolist()):
                used = np.zeros(len(choices))
                for deployment, table in enumerate(gpus):
                    used += table[choices[:, deployment, period]]
                keeps &= used <= most
    if problem.dynamics is not None:
        keeps &= _keeps_ramps(problem, problem.dynamics, choices)
        keeps &= _keeps_steps(problem, problem.dynamics, _drawn(problem, choices, kappa))
    if problem.grid is not None:
        for limit_, base, spent in _budgets(problem).values():
            slack = _TOLERANCE * abs(limit_) + 1e-12 * (abs(base) + np.abs(spent).sum())
            keeps &= np.less_equal(base + _total(spent, choices), limit_ + float(slack))
    return keeps


def _keeps_caps(problem: PlanningProblem, choices: IntArray, kappa: FloatArray | None) -> BoolArray:
    if problem.expected is None or kappa is not None:
        drawn = _drawn(problem, choices, kappa)
    else:
        drawn = _aggregate(problem, choices)
    limit = problem.available_watts + _TOLERANCE * problem.cap_watts
    keeps: BoolArray = np.asarray((drawn <= limit).all(axis=(1, 2)))
    return keeps


def _charged(problem: PlanningProblem, kappa: FloatArray | None) -> FloatArray:
    """float64[draw, period, option]: W above base charged by the rows."""
    charged = problem.upper_watts
    if problem.expected is not None:
        share = np.ones(problem.cap_watts.shape) if kappa is None else kappa
        mean = problem.expected.mean_watts
        charged = mean + share[problem.draw_domain][:, :, None] * (charged - mean)
    if problem.dynamics is not None:
        charged = np.maximum(charged, problem.dynamics.present_upper_watts[:, :, None])
    return charged


def _drawn(problem: PlanningProblem, choices: IntArray, kappa: FloatArray | None) -> FloatArray:
    """float64[choice, domain, period]: W above base charged by the rows."""
    charged = _charged(problem, kappa)
    drawn = np.zeros((len(choices), *problem.cap_watts.shape))
    for draw, domain in enumerate(problem.draw_domain.tolist()):
        taken = choices[:, problem.draw_deployment[draw]]
        for period in range(drawn.shape[2]):
            drawn[:, domain, period] += charged[draw, period][taken[:, period]]
    return drawn


def _aggregate(problem: PlanningProblem, choices: IntArray) -> FloatArray:
    expected = problem.expected
    assert expected is not None
    mean = np.zeros((len(choices), *problem.cap_watts.shape))
    samples = np.zeros((len(expected.residual), *mean.shape))
    for draw, domain in enumerate(problem.draw_domain.tolist()):
        deployment = problem.draw_deployment[draw]
        for period in range(mean.shape[2]):
            taken = choices[:, deployment, period]
            average = expected.mean_watts[draw, period][taken]
            spread = problem.upper_watts[draw, period][taken] - average
            mean[:, domain, period] += average
            samples[:, :, domain, period] += expected.residual[:, deployment][:, None] * spread
    samples.sort(axis=0)
    shares = np.arange(1, len(samples) + 1) / len(samples)
    place = int(np.argmax(shares >= expected.coverage - 1e-12))
    bound: FloatArray = mean + samples[place]
    return bound


def _sizes(problem: PlanningProblem, dynamics: Dynamics, choices: IntArray) -> FloatArray:
    """float64[choice, deployment, 1 + period]: replicas, from before the first period on."""
    deployment = np.arange(len(problem.deployments))[:, None]
    sizes = problem.replicas[deployment, choices].astype(np.float64)
    before = np.where(dynamics.initial_replicas < 0, np.nan, dynamics.initial_replicas)
    return np.concatenate(
        [np.broadcast_to(before[None, :, None], (*sizes.shape[:2], 1)), sizes], axis=2
    )


def _keeps_ramps(problem: PlanningProblem, dynamics: Dynamics, choices: IntArray) -> BoolArray:
    step = np.diff(_sizes(problem, dynamics, choices), axis=2)
    up = np.where(dynamics.max_raise < 0, np.inf, dynamics.max_raise)[None, :, None]
    down = np.where(dynamics.max_lower < 0, np.inf, dynamics.max_lower)[None, :, None]
    fits: BoolArray = np.isnan(step) | ((step <= up) & (-step <= down))
    keeps: BoolArray = np.asarray(fits.all(axis=(1, 2)))
    return keeps


def _keeps_steps(problem: PlanningProblem, dynamics: Dynamics, drawn: FloatArray) -> BoolArray:
    before = np.broadcast_to(dynamics.initial_upper_watts[None, :, None], (*drawn.shape[:2], 1))
    step = np.diff(np.concatenate([before, drawn], axis=2), axis=2)
    slack = _TOLERANCE * problem.cap_watts.max(axis=1, initial=1.0)[None, :, None]
    up, down = dynamics.max_rise_watts[None, :, None], dynamics.max_fall_watts[None, :, None]
    fits = np.isnan(step) | ((step <= up + slack) & (-step <= down + slack))
    keeps: BoolArray = np.asarray(fits.all(axis=(1, 2)))
    return keeps


def _lost(problem: PlanningProblem, choices: IntArray) -> FloatArray:
    """float64[choice]: what switching and late starts lose of S."""
    lost = np.zeros(len(choices))
    dynamics = problem.dynamics
    if dynamics is None:
        return lost
    change = np.abs(np.diff(_sizes(problem, dynamics, choices), axis=2))
    lost += (dynamics.switching_cost[None, :, None] * np.nan_to_num(change)).sum(axis=(1, 2))
    for deployment in np.flatnonzero(dynamics.starts_late).tolist():
        weight = float(problem.weight[deployment])
        initial = int(dynamics.initial_replicas[deployment])
        for period, seconds in enumerate(problem.period_seconds.tolist()):
            table = problem.served_tps[deployment, period]
            now = table[choices[:, deployment, period]]
            if period > 0:
                before = table[choices[:, deployment, period - 1]]
            elif initial < 0:
                continue
            else:
                count = int(problem.option_count[deployment])
                up_to = np.flatnonzero(problem.replicas[deployment, :count] <= initial)
                before = np.full(len(choices), table[up_to[-1]] if len(up_to) else 0.0)
            lost += seconds * weight * np.maximum(0.0, now - before)
    return lost


def _worth(problem: PlanningProblem, choices: IntArray, objective: str) -> FloatArray:
    seconds = problem.period_seconds[None, :, None]
    weight = problem.weight[:, None, None]
    if objective == "net_value":
        grid = problem.grid
        assert grid is not None
        assert grid.token_price_per_million is not None
        income = grid.token_price_per_million[:, None, None] * problem.served_tps / 1e6
        per_kwh = grid.price_per_mwh / 1e3
        per_kwh = per_kwh + grid.carbon_g_per_kwh * grid.carbon_price_per_tonne / 1e6
        paid = (per_kwh * grid.overhead_factor[:, None])[problem.zone_index][:, :, None]
        table = seconds * (income - paid * problem.power_watts / 3.6e6)
    elif problem.utility is Utility.PROPORTIONAL_FAIR:
        load = problem.load_tps[:, :, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(load > 0, problem.served_tps / load, 1.0)
        table = seconds * weight * np.log(0.01 + share)
    else:
        table = seconds * weight * problem.served_tps
    return _total(table, choices) - _lost(problem, choices)


def _shortfall(problem: PlanningProblem, choices: IntArray) -> FloatArray:
    """float64[choice, class]: by priority, highest first."""
    levels = sorted(set(problem.priority.tolist()), reverse=True)
    share = problem.period_seconds / problem.period_seconds.sum()
    missed = np.zeros((len(choices), len(levels)))
    for deployment, period in np.ndindex(*choices.shape[1:]):
        option = choices[:, deployment, period]
        wanted = int(problem.min_replicas[deployment])
        floor = problem.min_served_fraction[deployment] * problem.load_tps[deployment, period]
        lacking = np.zeros(len(choices))
        if wanted > 0:
            replicas = problem.replicas[deployment, option]
            lacking += np.maximum(0, wanted - replicas) / wanted
        if floor > 0:
            served = problem.served_tps[deployment, period, option]
            lacking += np.where(served < floor * (1 - 1e-9), (floor - served) / floor, 0.0)
        missed[:, levels.index(int(problem.priority[deployment]))] += share[period] * lacking
    return missed


def _budgets(problem: PlanningProblem) -> dict[str, tuple[float, float, FloatArray]]:
    """Limit, what the bases spend, and float64[deployment, period, option], of finite ones."""
    grid = problem.grid
    assert grid is not None
    joules = grid.overhead_factor[:, None] * problem.period_seconds
    amounts = (joules, joules / 3.6e9 * grid.price_per_mwh, joules / 3.6e6 * grid.carbon_g_per_kwh)
    found = {}
    for name, amount in zip(_BUDGETS, amounts, strict=True):
        limit = float(getattr(grid, name))
        if math.isfinite(limit):
            base = float((amount * problem.zone_base_watts).sum())
            spent = amount[problem.zone_index][:, :, None] * problem.power_watts
            found[name] = (limit, base, spent)
    return found
