"""Families of what not every problem has: budgets, start-up, fairness, assurance, modes, variants.

Each takes a fleet under a cap of 70 % of what its load needs and adds one part.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.families import Kind, family
from powercap_solver.fleet_problems import (
    OVERHEAD_FACTOR,
    fleet_problem,
    near_replicas,
    one_cap,
    tree,
)
from powercap_solver.fleets import Tables, random_fleet, tabulate
from powercap_solver.parts import MOST_VARIANTS, Dynamics, Expected, Grid, Labels
from powercap_solver.problem import PlanningProblem, Utility
from powercap_solver.settings import Objective

_SIZES = (10, 50, 200, 1_000)
_LONG = (10, 50, 200)
"""Sizes of families with periods."""
_PERIODS = 6
_DOMAINS = 4
_SAMPLES = 200
_MODE_SPEED = np.array([0.85, 1.0])
_MODE_PEAK = np.array([0.7, 1.0])
"""A GPU power limit of 70 % costs 15 % of the throughput."""


@family(Kind.FEATURE, sizes=_LONG)
def budgets(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Energy, money and carbon over six periods, each of 85 % of what the load would use."""
    problem = _horizon(generator, size)
    grid = _grid(generator, problem, lowest_price=20.0)
    meter = grid.overhead_factor[:, None] * problem.period_seconds
    joules = meter * _mean_watts(problem)
    base = meter * problem.zone_base_watts
    money, grams = grid.price_per_mwh / 3.6e9, grid.carbon_g_per_kwh / 3.6e6
    return replace(
        problem,
        grid=replace(
            grid,
            energy_budget_joules=_share(joules, base),
            money_budget=_share(joules * money, base * money),
            carbon_budget_grams=_share(joules * grams, base * grams),
        ),
    )


@family(Kind.FEATURE, sizes=_LONG)
def start_up(generator: np.random.Generator, size: int) -> PlanningProblem:
    """A new replica draws power in its first period and serves nothing."""
    problem = _horizon(generator, size)
    return replace(problem, dynamics=_dynamics(generator, problem, starts_late=True))


@family(Kind.FEATURE, sizes=_LONG)
def switching_cost(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Every replica changed loses what it serves in about half a minute, within ramps."""
    problem = _horizon(generator, size)
    best = (problem.weight[:, None, None] * problem.served_tps).max(axis=(1, 2))
    each = 30.0 * best / np.maximum(problem.replicas.max(axis=1), 1)
    return replace(problem, dynamics=_dynamics(generator, problem, switching_cost=each, ramps=True))


@family(Kind.FEATURE, sizes=_LONG)
def watts_per_step(generator: np.random.Generator, size: int) -> PlanningProblem:
    """What every domain is charged may rise or fall by a tenth of its cap a period."""
    problem = _horizon(generator, size)
    dynamics = _dynamics(generator, problem)
    step = 0.1 * problem.available_watts.min(axis=1)
    return replace(
        problem,
        dynamics=replace(
            dynamics,
            max_rise_watts=step,
            max_fall_watts=step,
            initial_upper_watts=0.9 * problem.available_watts[:, 0],
        ),
    )


@family(Kind.FEATURE, sizes=_SIZES)
def proportional_fair(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Stage 2 maximises the sum of logarithms of the served shares."""
    return replace(_plain(generator, size), utility=Utility.PROPORTIONAL_FAIR)


@family(Kind.FEATURE, sizes=_SIZES, objective=Objective.NET_VALUE)
def negative_prices(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Net value over six periods, with hours in which drawing power is paid for."""
    problem = _horizon(generator, size)
    return replace(problem, grid=_grid(generator, problem, lowest_price=-200.0))


@family(Kind.FEATURE, sizes=_SIZES)
def expected_assurance(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Caps that hold for the aggregate bound of 200 joint residuals at coverage 0.95."""
    problem = _plain(generator, size)
    common = 0.15 * generator.normal(size=(_SAMPLES, 1))
    residual = np.clip(common + 0.35 * generator.normal(size=(_SAMPLES, size)), -1.0, 1.0)
    mean = problem.power_watts[problem.draw_deployment]
    return replace(
        problem,
        cap_watts=0.8 * (problem.cap_watts - OVERHEAD_FACTOR * problem.base_watts)
        + OVERHEAD_FACTOR * problem.base_watts,
        expected=Expected(
            mean_watts=np.minimum(mean, problem.upper_watts), residual=residual, coverage=0.95
        ),
    )


@family(Kind.FEATURE, sizes=_SIZES)
def modes(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Every option with and without a GPU power limit of 70 %."""
    fleet = random_fleet(generator, size, options=(2, 16))
    tables = tabulate(fleet)
    slow = tabulate(
        replace(
            fleet,
            capacity_tps=fleet.capacity_tps * _MODE_SPEED[0],
            peak_watts=fleet.peak_watts * _MODE_PEAK[0],
        )
    )
    doubled = replace(
        fleet,
        replicas=np.repeat(fleet.replicas, 2, axis=1),
        option_count=2 * fleet.option_count,
    )
    mode = np.where(doubled.is_option, np.arange(doubled.replicas.shape[1]) % 2, 0)
    both = Tables(
        served_tps=_interleaved(slow.served_tps, tables.served_tps),
        power_watts=_interleaved(slow.power_watts, tables.power_watts),
        upper_watts=_interleaved(slow.upper_watts, tables.upper_watts),
    )
    return fleet_problem(
        generator,
        doubled,
        one_cap(size),
        tightness=np.array([[0.6]]),
        tables=both,
        labels=Labels(
            modes=("limited", "full"),
            mode_index=mode,
            variants=((),) * size,
            variant_replicas=np.zeros((*mode.shape, MOST_VARIANTS), dtype=np.int64),
        ),
    )


@family(Kind.FEATURE, sizes=_SIZES)
def variants(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Groups of a fast and a frugal variant, up to four replicas of each in any mixture."""
    pairs = np.array([(fast, slow) for fast in range(5) for slow in range(5)])
    pairs = pairs[np.argsort(pairs.sum(axis=1), kind="stable")]
    fleet = random_fleet(generator, size, options=(len(pairs), len(pairs)))
    speed = np.array([1.0, 0.45])
    peak = np.array([1.0, 0.35])
    # Load splits in proportion to capacity: a vector acts like so many replicas of the fast one.
    fast_like = pairs @ speed
    served = _interpolated(tabulate(fleet).served_tps, fast_like)
    upper = (pairs @ peak) * 1.05 * fleet.peak_watts[:, None]
    total = np.broadcast_to(pairs.sum(axis=1), upper.shape)
    tables = Tables(
        served_tps=served,
        power_watts=0.8 * upper[:, None, :],
        upper_watts=upper[:, None, :],
    )
    vectors = np.zeros((size, len(pairs), MOST_VARIANTS), dtype=np.int64)
    vectors[:, :, :2] = pairs
    return fleet_problem(
        generator,
        replace(fleet, replicas=total.astype(np.int64)),
        one_cap(size),
        tightness=np.array([[0.7]]),
        tables=tables,
        labels=Labels(
            modes=("full",),
            mode_index=np.zeros(total.shape, dtype=np.int64),
            variants=(("fast", "frugal"),) * size,
            variant_replicas=vectors,
        ),
    )


def _plain(generator: np.random.Generator, size: int) -> PlanningProblem:
    fleet = random_fleet(generator, size)
    return fleet_problem(generator, fleet, one_cap(size), tightness=np.array([[0.7]]))


def _horizon(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Six periods, a tree of four domains, two zones."""
    fleet = random_fleet(generator, size, periods=_PERIODS)
    tightness = np.array([[0.7], [0.8], [0.8], [0.8]])
    placement = tree(generator, size, domains=_DOMAINS)
    return fleet_problem(generator, fleet, placement, tightness=tightness, zones=2)


def _grid(generator: np.random.Generator, problem: PlanningProblem, *, lowest_price: float) -> Grid:
    shape = problem.energy_weight.shape
    return Grid(
        price_per_mwh=generator.uniform(lowest_price, 200.0, shape),
        carbon_g_per_kwh=generator.uniform(50.0, 500.0, shape),
        overhead_factor=np.full(shape[0], OVERHEAD_FACTOR),
        carbon_price_per_tonne=80.0,
        # About what the energy of a token costs, up to some times as much.
        token_price_per_million=problem.weight
        * generator.uniform(0.02, 0.2, len(problem.deployments)),
    )


def _mean_watts(problem: PlanningProblem) -> FloatArray:
    """float64[zone, period]: what all replicas draw, above base."""
    last = (problem.option_count - 1)[:, None, None]
    watts = np.take_along_axis(problem.power_watts, last, axis=2)[:, :, 0]
    return np.stack(
        [
            np.bincount(problem.zone_index, weights=column, minlength=len(problem.zones))
            for column in watts.T
        ],
        axis=1,
    )


def _share(used: FloatArray, base: FloatArray) -> float:
    return math.fsum(base.ravel()) + 0.85 * math.fsum(used.ravel())


def _dynamics(
    generator: np.random.Generator,
    problem: PlanningProblem,
    *,
    switching_cost: FloatArray | None = None,
    starts_late: bool = False,
    ramps: bool = False,
) -> Dynamics:
    size, domains = len(problem.deployments), len(problem.domains)
    draws = (len(problem.draw_domain), len(problem.period_seconds))
    free = np.full(size, -1)
    levels = problem.draw_domain.reshape(-1, size)
    return Dynamics(
        max_raise=generator.integers(1, 4, size) if ramps else free,
        max_lower=generator.integers(2, 5, size) if ramps else free,
        switching_cost=np.zeros(size) if switching_cost is None else switching_cost,
        starts_late=np.full(size, starts_late),
        initial_replicas=near_replicas(problem, tuple(levels)),
        present_upper_watts=np.zeros(draws),
        max_rise_watts=np.full(domains, np.inf),
        max_fall_watts=np.full(domains, np.inf),
        initial_upper_watts=np.full(domains, np.nan),
    )


def _interleaved(first: FloatArray, second: FloatArray) -> FloatArray:
    """Options of both in turn."""
    shape = (*first.shape[:-1], 2 * first.shape[-1])
    return np.stack([first, second], axis=-1).reshape(shape)


def _interpolated(table: FloatArray, place: FloatArray | IntArray) -> FloatArray:
    """Entries of float64[..., option] at fractional options, linearly between."""
    low = np.minimum(np.floor(place).astype(np.int64), table.shape[-1] - 2)
    share = place - low
    between: FloatArray = table[..., low] * (1 - share) + table[..., low + 1] * share
    return between
