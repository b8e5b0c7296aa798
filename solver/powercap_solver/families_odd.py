"""Families of what breaks careless code: ties, zeros, exact sums, no plan at all, great ranges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from powercap_solver.arrays import FloatArray
from powercap_solver.families import Kind, family
from powercap_solver.families_hard import knapsack
from powercap_solver.fleet_problems import OVERHEAD_FACTOR, fleet_problem, one_cap
from powercap_solver.fleets import Fleet, random_fleet
from powercap_solver.problem import PlanningProblem

_SIZES = (10, 50, 200)


@family(Kind.ODD, sizes=_SIZES)
def equal_deployments(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Every deployment is the same: the best plans are as many as there are permutations."""
    problem = _plain(generator, size)
    served, upper = problem.served_tps[0, 0], problem.upper_watts[0, 0]
    needed = upper[np.argmax(served >= 0.98 * served.max())]
    return replace(
        problem,
        option_count=_first(problem.option_count),
        replicas=_first(problem.replicas),
        served_tps=_first(problem.served_tps),
        power_watts=_first(problem.power_watts),
        upper_watts=_first(problem.upper_watts),
        load_tps=_first(problem.load_tps),
        weight=_first(problem.weight),
        priority=_first(problem.priority),
        min_replicas=_first(problem.min_replicas),
        cap_watts=OVERHEAD_FACTOR
        * (problem.base_watts + np.maximum(0.6 * needed * size, size * upper[1])),
    )


@family(Kind.ODD, sizes=_SIZES)
def zeros(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Options that draw nothing, options that serve nothing, deployments that are asked nothing."""
    problem = _plain(generator, size)
    shape = problem.served_tps.shape
    is_idle = (np.arange(size) % 5 == 0)[:, None]
    return replace(
        problem,
        served_tps=np.where(is_idle[:, :, None] | (generator.random(shape) < 0.1), 0.0, 1.0)
        * problem.served_tps,
        power_watts=problem.power_watts * (generator.random(shape) > 0.1),
        upper_watts=problem.upper_watts * (generator.random(shape) > 0.1),
        load_tps=np.where(is_idle, 0.0, problem.load_tps),
    )


@family(Kind.ODD, sizes=_SIZES)
def wild_curves(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Tables without order: neither monotone nor concave, in served, power or upper watts."""
    problem = _plain(generator, size)
    real = problem.is_option[:, None, :]
    shape = problem.served_tps.shape

    def shuffled(table: FloatArray) -> FloatArray:
        most = table.max(axis=2, keepdims=True)
        return np.where(real, generator.random(shape) ** 2 * most, 0.0)

    return replace(
        problem,
        served_tps=shuffled(problem.served_tps),
        power_watts=shuffled(problem.power_watts),
        upper_watts=shuffled(problem.upper_watts),
        is_ceiling=np.zeros(size, dtype=bool),
        min_replicas=np.zeros(size, dtype=np.int64),
        cap_watts=OVERHEAD_FACTOR * (problem.base_watts + 0.3 * problem.available_watts),
    )


@family(Kind.ODD, sizes=_SIZES)
def exact_sum(generator: np.random.Generator, size: int) -> PlanningProblem:
    """The cap is exactly what one choice draws, in tenths of a watt that no float holds."""
    problem = _plain(generator, size)
    tenths = np.round(problem.upper_watts * 10)
    option = (generator.random(size) * problem.option_count).astype(np.int64)
    drawn = int(tenths[np.arange(size), 0, option].sum())
    return replace(
        problem,
        min_replicas=np.zeros(size, dtype=np.int64),
        upper_watts=tenths / 10,
        cap_watts=np.full((1, 1), drawn / 10),
        overhead_factor=np.ones(1),
        base_watts=np.zeros((1, 1)),
    )


@family(Kind.ODD, sizes=_SIZES)
def infeasible(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Even the lowest options draw twice the cap."""
    fleet = random_fleet(generator, size, least_replicas=1)
    problem = fleet_problem(generator, fleet, one_cap(size), tightness=np.array([[0.5]]))
    lowest = problem.upper_watts[:, :, 0].sum(axis=0)
    return replace(problem, cap_watts=OVERHEAD_FACTOR * (problem.base_watts + 0.5 * lowest))


@family(Kind.ODD, sizes=(10, 50))
def cap_below_base(generator: np.random.Generator, size: int) -> PlanningProblem:
    """The cap is half of what parked GPUs draw: nothing is left to plan with."""
    problem = _plain(generator, size)
    return replace(problem, cap_watts=0.5 * problem.base_watts)


@family(Kind.ODD, sizes=(1,))
def one_deployment(generator: np.random.Generator, size: int) -> PlanningProblem:
    """One deployment alone."""
    return _plain(generator, size)


@family(Kind.ODD, sizes=_SIZES)
def one_option(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Every deployment has one option: there is nothing to choose."""
    fleet = random_fleet(generator, size, options=(1, 1), least_replicas=2)
    return fleet_problem(generator, fleet, one_cap(size), tightness=np.array([[1.1]]))


@family(Kind.ODD, sizes=_SIZES)
def no_cap(generator: np.random.Generator, size: int) -> PlanningProblem:
    """No domain at all: everyone gets what serves most."""
    problem = _plain(generator, size)
    return replace(
        problem,
        domains=(),
        draw_domain=np.zeros(0, dtype=np.int64),
        draw_deployment=np.zeros(0, dtype=np.int64),
        upper_watts=problem.upper_watts[:0],
        cap_watts=np.zeros((0, 1)),
        overhead_factor=np.zeros(0),
        fixed_overhead_watts=np.zeros(0),
        base_watts=np.zeros((0, 1)),
        unmanaged_watts=np.zeros((0, 1)),
        fixed_watts=np.zeros((0, 1)),
    )


@family(Kind.ODD, sizes=_SIZES)
def watt_to_gigawatt(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Options from 1 W to 1 GW under one cap, spread evenly over the decades."""
    fleet = random_fleet(generator, size)
    scale = 10.0 ** np.linspace(0.0, 9.0, max(size, 2))[:size] / fleet.peak_watts
    scale = scale / np.maximum(fleet.replicas.max(axis=1), 1)
    scaled = _scaled(fleet, scale)
    return fleet_problem(generator, scaled, one_cap(size), tightness=np.array([[0.7]]))


@family(Kind.ODD, sizes=_SIZES)
def whole_units(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Weights 1 to 3 and profits 1 to 3: nearly every choice ties with many others."""
    return knapsack(generator.integers(1, 4, (size, 6)), generator.integers(1, 4, (size, 6)))


def _scaled(fleet: Fleet, scale: FloatArray) -> Fleet:
    """The fleet with watts and tokens of each deployment times float64[deployment]."""
    return replace(
        fleet,
        capacity_tps=fleet.capacity_tps * scale,
        idle_watts=fleet.idle_watts * scale,
        peak_watts=fleet.peak_watts * scale,
        load_tps=fleet.load_tps * scale[:, None],
    )


def _plain(generator: np.random.Generator, size: int) -> PlanningProblem:
    fleet = random_fleet(generator, size)
    return fleet_problem(generator, fleet, one_cap(size), tightness=np.array([[0.6]]))


def _first(table: Any) -> Any:
    return np.repeat(table[:1], len(table), axis=0)
