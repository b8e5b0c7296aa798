"""What an option is worth: served tokens, a fair utility of them, or money.

    token value     s * weight * served
    fair            s * weight * log(0.01 + served / load)
    net value       s * (served * token price - meter watts * (price + carbon price * carbon))

The utility and net value are what stage 2 maximises in place of the token value; the base of the
zones is the same for every plan and left out of net value.
"""

from __future__ import annotations

import numpy as np

from powercap_solver.arrays import FloatArray
from powercap_solver.errors import ProblemError
from powercap_solver.links import Links
from powercap_solver.parts import Grid
from powercap_solver.problem import PlanningProblem, Utility
from powercap_solver.ramps import Ramps
from powercap_solver.settings import Objective

FAIR_OFFSET = 0.01
"""Keeps the logarithm finite where nothing is served."""
BUDGETS = ("energy_budget_joules", "money_budget", "carbon_budget_grams")
"""In the order of their rows' places."""
_TOKENS_PER_MILLION = 1e6
_JOULES_PER_MWH = 3.6e9
_JOULES_PER_KWH = 3.6e6
_GRAMS_PER_TONNE = 1e6


def token_value(problem: PlanningProblem) -> FloatArray:
    """float64[deployment, period, option]: weighted tokens served."""
    factor = problem.weight[:, None] * problem.period_seconds[None, :]
    value: FloatArray = factor[:, :, None] * problem.served_tps
    return value


def stage_worth(problem: PlanningProblem, objective: Objective) -> FloatArray:
    """float64[deployment, period, option]: the summands of what stage 2 maximises.

    Raises:
        ProblemError: when net value is asked of a problem without prices.
    """
    if objective is Objective.NET_VALUE:
        return net_value(problem)
    if problem.utility is Utility.PROPORTIONAL_FAIR:
        return fair_value(problem)
    return token_value(problem)


def fair_value(problem: PlanningProblem) -> FloatArray:
    """float64[deployment, period, option]: the proportional-fair utility."""
    load = problem.load_tps[:, :, None]
    share = np.where(load > 0, problem.served_tps / np.where(load > 0, load, 1.0), 1.0)
    factor = problem.weight[:, None] * problem.period_seconds[None, :]
    worth: FloatArray = factor[:, :, None] * np.log(FAIR_OFFSET + share)
    return worth


def net_value(problem: PlanningProblem) -> FloatArray:
    """float64[deployment, period, option]: money earned less energy and carbon paid.

    Raises:
        ProblemError: when the problem has no prices.
    """
    grid = problem.grid
    if grid is None or grid.token_price_per_million is None:
        raise ProblemError(
            "objective net_value needs grid.token_price_per_million; the problem has none"
        )
    seconds = problem.period_seconds[None, :, None]
    price = grid.token_price_per_million[:, None, None] / _TOKENS_PER_MILLION
    cost = cost_per_joule(grid)[problem.zone_index][:, :, None]
    worth: FloatArray = seconds * (price * problem.served_tps - cost * problem.power_watts)
    return worth


def cost_per_joule(grid: Grid) -> FloatArray:
    """float64[zone, period]: money per joule of GPUs and hosts, energy and carbon together."""
    energy = grid.price_per_mwh / _JOULES_PER_MWH
    grams = grid.carbon_g_per_kwh / _JOULES_PER_KWH
    carbon = grams * grid.carbon_price_per_tonne / _GRAMS_PER_TONNE
    cost: FloatArray = grid.overhead_factor[:, None] * (energy + carbon)
    return cost


def budget_rates(grid: Grid) -> dict[str, tuple[float, FloatArray]]:
    """Limits and amounts per joule of GPUs and hosts, float64[zone, period], by budget."""
    meter = np.broadcast_to(grid.overhead_factor[:, None], grid.price_per_mwh.shape)
    return {
        "energy_budget_joules": (grid.energy_budget_joules, meter * 1.0),
        "money_budget": (grid.money_budget, meter * grid.price_per_mwh / _JOULES_PER_MWH),
        "carbon_budget_grams": (
            grid.carbon_budget_grams,
            meter * grid.carbon_g_per_kwh / _JOULES_PER_KWH,
        ),
    }


def links_of(problem: PlanningProblem) -> Links | None:
    """What links the periods of each deployment, in weighted tokens; None when nothing does."""
    dynamics = problem.dynamics
    if dynamics is None or not dynamics.is_linking:
        return None
    size = np.where(problem.is_option, problem.replicas, np.iinfo(np.int32).max).astype(float)
    late = initial_late = None
    initial = np.where(dynamics.initial_replicas < 0, np.nan, dynamics.initial_replicas)
    if dynamics.starts_late.any():
        value = token_value(problem) * dynamics.starts_late[:, None, None]
        late = value.reshape(-1, value.shape[2])
        initial_late = _initial_late(problem, value[:, 0], initial)
    max_raise = np.where(dynamics.max_raise < 0, np.inf, dynamics.max_raise)
    max_lower = np.where(dynamics.max_lower < 0, np.inf, dynamics.max_lower)
    return Links(
        periods=len(problem.period_seconds),
        size=size,
        max_raise=max_raise,
        max_lower=max_lower,
        shared_ramps=Ramps(size=size, max_raise=max_raise, max_lower=max_lower),
        change_cost=dynamics.switching_cost,
        initial_size=initial,
        late=late,
        initial_late=initial_late,
    )


def _initial_late(problem: PlanningProblem, first: FloatArray, initial: FloatArray) -> FloatArray:
    """float64[deployment]: what the replicas before the first period are worth in it.

    That of the largest option with no more replicas; 0 when there is none.
    """
    with np.errstate(invalid="ignore"):
        is_smaller = problem.is_option & (problem.replicas <= initial[:, None])
    last = problem.replicas.shape[1] - 1 - np.argmax(is_smaller[:, ::-1], axis=1)
    worth = np.where(is_smaller.any(axis=1), first[np.arange(len(first)), last], 0.0)
    late: FloatArray = np.where(np.isnan(initial), np.inf, worth)
    return late
