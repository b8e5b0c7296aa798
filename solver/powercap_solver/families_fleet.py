"""Families shaped like fleets: those that speed is measured on, and small ones of one difficulty.

A deployment has 4 to 32 options, 18 on average. Caps bind and can be kept.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.families import Kind, family
from powercap_solver.fleet_problems import (
    Placement,
    fleet_problem,
    near_replicas,
    one_cap,
    tree,
)
from powercap_solver.fleets import GPU_TYPES, Fleet, random_fleet, tabulate
from powercap_solver.parts import Dynamics, Pools
from powercap_solver.problem import PlanningProblem

_PERIODS = 12
_RAMP_DOMAINS = 9
_DIP = np.array([1.0] * 4 + [0.93] + [0.86] * 4 + [0.93] + [1.0] * 2)
"""Demand response: the cluster's cap over the periods, as a share."""


@family(Kind.FLEET, sizes=(100, 1_000, 10_000, 100_000))
def fleet_one_cap(generator: np.random.Generator, size: int) -> PlanningProblem:
    """One feed of 70 % of what the load needs."""
    return _capped(generator, size)[0]


@family(Kind.FLEET, sizes=(100, 1_000, 10_000, 100_000))
def fleet_one_cap_in_force(generator: np.random.Generator, size: int) -> PlanningProblem:
    """The same with a plan in force near the best: what the operator solves every minute."""
    return _in_force(generator, *_capped(generator, size))


@family(Kind.FLEET, sizes=(100, 1_000, 10_000))
def fleet_tree(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Cluster, rows and racks, one domain per 50 deployments: 200 domains at 10,000."""
    return _treed(generator, size, domains=max(6, size // 50))[0]


@family(Kind.FLEET, sizes=(100, 1_000, 10_000))
def fleet_tree_in_force(generator: np.random.Generator, size: int) -> PlanningProblem:
    """The same with a plan in force near the best."""
    return _in_force(generator, *_treed(generator, size, domains=max(6, size // 50)))


@family(Kind.FLEET, sizes=(100, 1_000))
def fleet_tree_pools(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Cluster, rows and racks, one domain per 20 deployments (50 at 1,000), and 4 GPU pools."""
    return _pooled(generator, size)[0]


@family(Kind.FLEET, sizes=(100, 1_000))
def fleet_tree_pools_in_force(generator: np.random.Generator, size: int) -> PlanningProblem:
    """The same with a plan in force near the best."""
    return _in_force(generator, *_pooled(generator, size))


@family(Kind.FLEET, sizes=(100, 1_000, 10_000))
def fleet_spread(generator: np.random.Generator, size: int) -> PlanningProblem:
    """The tree, but every third deployment may stand in two racks and is charged in both."""
    problem, placement = _treed(generator, size, domains=max(6, size // 50))
    return _spread(problem, placement)


@family(Kind.FLEET, sizes=(30, 100, 1_000, 10_000))
def fleet_ramps(generator: np.random.Generator, size: int) -> PlanningProblem:
    """12 periods, 9 domains, ramps of a few replicas, a dip of the cluster's cap by 14 %."""
    return _ramped(generator, size)[0]


@family(Kind.FLEET, sizes=(30, 100, 1_000, 10_000))
def fleet_ramps_in_force(generator: np.random.Generator, size: int) -> PlanningProblem:
    """The same with the replicas before the first period as the plan in force."""
    problem, _ = _ramped(generator, size)
    assert problem.dynamics is not None
    return replace(problem, replicas_in_force=problem.dynamics.initial_replicas)


@family(Kind.SMALL, sizes=(10, 50, 200))
def concave_one_cap(generator: np.random.Generator, size: int) -> PlanningProblem:
    """A cap that the load nearly fits."""
    return _capped(generator, size, tightness=0.9)[0]


@family(Kind.SMALL, sizes=(10, 50, 200))
def scarce_one_cap(generator: np.random.Generator, size: int) -> PlanningProblem:
    """A cap of a third of what the load needs: every watt is fought for."""
    return _capped(generator, size, tightness=0.35)[0]


@family(Kind.SMALL, sizes=(10, 50, 200))
def not_monotone(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Fixed replicas on curves that fall again near saturation, so that fewer can draw more."""
    fleet = random_fleet(generator, size, sag=0.15, ceiling_fraction=0.0)
    return fleet_problem(generator, fleet, one_cap(size), tightness=np.array([[0.5]]))


@family(Kind.SMALL, sizes=(10, 50, 200))
def tight_floors(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Floors of three priorities that the cap cannot keep."""
    fleet = random_fleet(generator, size, options=(8, 24))
    return fleet_problem(
        generator,
        fleet,
        one_cap(size),
        tightness=np.array([[0.25]]),
        min_replicas=generator.integers(2, 6, size),
        floor_margin=0.0,
        min_served_fraction=generator.choice([0.0, 0.5], size),
        served_share=np.full((size, 1), 0.95),
    )


@family(Kind.SMALL, sizes=(10, 50, 200))
def plan_in_force(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Half ceilings, half fixed, with a plan in force that the cap has outgrown."""
    fleet = random_fleet(generator, size, ceiling_fraction=0.5)
    in_force = np.minimum(generator.integers(1, 12, size), fleet.option_count - 1)
    return fleet_problem(
        generator,
        fleet,
        one_cap(size),
        tightness=np.array([[0.6]]),
        replicas_in_force=in_force,
    )


@family(Kind.SMALL, sizes=(10, 30, 100))
def racks_and_periods(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Three racks under one feed, four periods, two zones with their own energy weights."""
    fleet = random_fleet(generator, size, periods=4)
    rack = 1 + np.arange(size) % 3
    placement = Placement(
        domains=("feed", "rack0", "rack1", "rack2"),
        levels=(np.zeros(size, dtype=np.int64), rack),
    )
    tightness = np.array([[0.6], [0.7], [0.7], [0.7]])
    return fleet_problem(generator, fleet, placement, tightness=tightness, zones=2)


def _capped(
    generator: np.random.Generator, size: int, *, tightness: float = 0.7
) -> tuple[PlanningProblem, Placement]:
    placement = one_cap(size)
    fleet = random_fleet(generator, size)
    problem = fleet_problem(generator, fleet, placement, tightness=np.array([[tightness]]))
    return problem, placement


def _treed(
    generator: np.random.Generator, size: int, *, domains: int
) -> tuple[PlanningProblem, Placement]:
    placement = tree(generator, size, domains=domains)
    fleet = random_fleet(generator, size)
    tightness = _tree_tightness(generator, domains)
    return fleet_problem(generator, fleet, placement, tightness=tightness), placement


def _tree_tightness(generator: np.random.Generator, domains: int) -> FloatArray:
    """float64[domain, 1]: the cluster binds, rows and racks at times."""
    tightness = generator.uniform(0.55, 1.1, (domains, 1))
    tightness[0] = 0.7
    return tightness


def _pooled(generator: np.random.Generator, size: int) -> tuple[PlanningProblem, Placement]:
    domains = max(6, size // 20)
    placement = tree(generator, size, domains=domains)
    fleet = random_fleet(generator, size)
    tables = tabulate(fleet)
    problem = fleet_problem(
        generator,
        fleet,
        placement,
        tightness=_tree_tightness(generator, domains),
        tables=tables,
        pools=_pools(generator, fleet, tables.knee(fleet.option_count)[:, 0]),
    )
    return problem, placement


def _pools(generator: np.random.Generator, fleet: Fleet, knee: IntArray) -> Pools:
    """One pool per type of GPU, of 60 % to 110 % of the GPUs that the load needs."""
    taken = fleet.replicas * fleet.gpus[:, None]
    place = np.arange(len(knee))
    pool = np.arange(len(GPU_TYPES))[:, None]
    is_in: BoolArray = fleet.gpu_type == pool
    needed = (taken[place, knee] * is_in).sum(axis=1)
    floors = (fleet.gpus * (np.arange(len(knee)) % 2) * is_in).sum(axis=1)
    count = np.maximum(needed * generator.uniform(0.6, 1.1, len(pool)), floors)
    return Pools(
        names=GPU_TYPES,
        gpu_count=np.ceil(count).astype(np.int64)[:, None],
        gpus=np.where(is_in[:, :, None], taken, 0),
    )


def _in_force(
    generator: np.random.Generator, problem: PlanningProblem, placement: Placement
) -> PlanningProblem:
    """A third of the deployments are one replica off a good plan."""
    size = len(problem.deployments)
    off = generator.choice([-1, 0, 0, 0, 0, 1], size)
    near = near_replicas(problem, placement.levels) + off
    most = problem.replicas.max(axis=1)
    return replace(problem, replicas_in_force=np.clip(near, 0, most))


def _spread(problem: PlanningProblem, placement: Placement) -> PlanningProblem:
    """Draws of every third deployment in a second rack: the scheduler may fill either."""
    size = len(problem.deployments)
    rack = placement.levels[-1]
    first, racks = int(rack.min()), len(np.unique(rack))
    spread = np.arange(0, size, 3)
    second = first + (rack[spread] - first + 1) % racks
    is_other = second != rack[spread]
    spread, second = spread[is_other], second[is_other]
    # A rack has room for no more than half of the replicas of such a deployment, rounded up.
    half = np.ceil(problem.replicas[spread] / 2) / np.maximum(problem.replicas[spread], 1)
    upper = problem.upper_watts.copy()
    upper[2 * size + spread] *= half[:, None, :]
    return replace(
        problem,
        draw_domain=np.concatenate([problem.draw_domain, second]),
        draw_deployment=np.concatenate([problem.draw_deployment, spread]),
        upper_watts=np.concatenate([upper, upper[2 * size + spread]]),
        cap_watts=problem.cap_watts
        * np.where(np.arange(len(problem.domains)) < first, 1, 1.2)[:, None],
    )


def _ramped(generator: np.random.Generator, size: int) -> tuple[PlanningProblem, Placement]:
    placement = tree(generator, size, domains=_RAMP_DOMAINS)
    fleet = random_fleet(generator, size, periods=_PERIODS)
    tightness = np.repeat(
        np.maximum(_tree_tightness(generator, _RAMP_DOMAINS), 0.7), _PERIODS, axis=1
    )
    tightness[0] *= _DIP
    problem = fleet_problem(generator, fleet, placement, tightness=tightness)
    free = np.full(size, -1)
    is_ramped = generator.random(size) < 0.9
    domains = len(placement.domains)
    dynamics = Dynamics(
        max_raise=np.where(is_ramped, generator.integers(1, 4, size), free),
        max_lower=np.where(is_ramped, generator.integers(2, 5, size), free),
        switching_cost=np.zeros(size),
        starts_late=np.zeros(size, dtype=bool),
        initial_replicas=near_replicas(problem, placement.levels),
        present_upper_watts=np.zeros((len(problem.draw_domain), _PERIODS)),
        max_rise_watts=np.full(domains, np.inf),
        max_fall_watts=np.full(domains, np.inf),
        initial_upper_watts=np.full(domains, np.nan),
    )
    return replace(problem, dynamics=dynamics), placement
