"""What a plan's choices give, recomputed from the problem in plain numpy and ``math.fsum``.

The arithmetic of ``certificate``; like it, this imports nothing but the problem's and the plan's
types. Sums are written out from their definitions, not taken from the methods.
"""

from __future__ import annotations

import math

import numpy as np

from powercap_solver.plan import Plan
from powercap_solver.problem import FloatArray, IntArray, PlanningProblem

FLOORS, SERVED, RATIO, CHANGE, BACK = (
    "floors",
    "served",
    "throughput_per_watt",
    "least_change",
    "give_back",
)
_FLOOR_TOLERANCE = 1e-9


def picked(table: FloatArray, choice: IntArray) -> FloatArray:
    """Entries of float64[..., deployment, period, option] under int64[deployment, period]."""
    deployments, periods = np.indices(choice.shape)
    entries: FloatArray = table[..., deployments, periods, choice]
    return entries


def drawn_watts(problem: PlanningProblem, choice: IntArray) -> FloatArray:
    """float64[domain, period]: upper watts above base of the choices."""
    charged = picked(problem.upper_watts, choice)
    drawn = np.zeros(problem.cap_watts.shape)
    for domain, period in np.ndindex(*drawn.shape):
        drawn[domain, period] = math.fsum(charged[domain, :, period])
    return drawn


def least_drawn_watts(problem: PlanningProblem) -> FloatArray:
    """float64[domain, period]: the lowest upper watts above base there are."""
    real = problem.is_option[None, :, None, :]
    least_each = np.where(real, problem.upper_watts, np.inf).min(axis=3)
    least = np.zeros(problem.cap_watts.shape)
    for domain, period in np.ndindex(*least.shape):
        least[domain, period] = math.fsum(least_each[domain, :, period])
    return least


def shortfalls(problem: PlanningProblem, choice: IntArray) -> dict[tuple[str, int, str], float]:
    """Missing fraction of every floor that ``choice`` misses."""
    missed = {}
    for deployment, period in np.ndindex(*choice.shape):
        option = choice[deployment, period]
        name = problem.deployments[deployment]
        wanted = problem.min_replicas[deployment]
        replicas = problem.replicas[deployment, option]
        if replicas < wanted:
            missed[name, period, "min_replicas"] = float((wanted - replicas) / wanted)
        floor = problem.min_served_fraction[deployment] * problem.load_tps[deployment, period]
        served = problem.served_tps[deployment, period, option]
        if floor - served > _FLOOR_TOLERANCE * floor:
            missed[name, period, "min_served_fraction"] = float((floor - served) / floor)
    return missed


def value_of(problem: PlanningProblem, choice: IntArray) -> float:
    """S: the sum of period_seconds * weight * served."""
    weight = problem.weight[:, None] * problem.period_seconds[None, :]
    return math.fsum((weight * picked(problem.served_tps, choice)).ravel())


def energy_of(problem: PlanningProblem, choice: IntArray) -> float:
    """W: the sum of period_seconds * energy_weight * watts, base included."""
    weight = problem.energy_weight * problem.period_seconds[None, :]
    power = weight[problem.zone_index] * picked(problem.power_watts, choice)
    return math.fsum([*power.ravel(), *(weight * problem.zone_base_watts).ravel()])


def ratio_of(problem: PlanningProblem, choice: IntArray) -> float:
    """S / W; 0 when nothing is served, infinite when that draws nothing."""
    value, energy = value_of(problem, choice), energy_of(problem, choice)
    if value == 0:
        return 0.0
    return value / energy if energy > 0 else math.inf


def objective_of(problem: PlanningProblem, plan: Plan, index: int) -> float:
    """The objective of the stage at ``index``, from its choice and the choice before."""
    name, choice = plan.stages[index].name, plan.stage_choice[index]
    before = plan.stage_choice[max(0, index - 1)]
    if name == FLOORS:
        horizon = math.fsum(problem.period_seconds)
        return math.fsum(
            missing * problem.period_seconds[period] / horizon
            for (_, period, _), missing in shortfalls(problem, choice).items()
        )
    if name == SERVED:
        return value_of(problem, choice)
    if name == RATIO:
        return ratio_of(problem, choice)
    if name == CHANGE:
        in_force = problem.replicas_in_force[:, None]
        reference = np.where(in_force >= 0, in_force, replicas_of(problem, before))
        return float(np.abs(replicas_of(problem, choice) - reference).sum())
    gained = replicas_of(problem, choice) - replicas_of(problem, before)
    return math.fsum((problem.weight[:, None] * gained).ravel())


def replicas_of(problem: PlanningProblem, choice: IntArray) -> IntArray:
    """int64[deployment, period]: replicas allowed."""
    allowed: IntArray = problem.replicas[np.arange(len(choice))[:, None], choice]
    return allowed


def class_shortfalls(problem: PlanningProblem, choice: IntArray) -> dict[int, float]:
    """Missing fractions of floors by priority, as shares of the horizon."""
    total = dict.fromkeys(problem.priority.tolist(), 0.0)
    horizon = math.fsum(problem.period_seconds)
    for (name, period, _), missing in shortfalls(problem, choice).items():
        level = int(problem.priority[problem.deployments.index(name)])
        total[level] += missing * float(problem.period_seconds[period]) / horizon
    return total
