"""Oracles and inputs for tests: hypothesis strategies, and optima by full enumeration.

Needs the extra ``test``. The enumeration reads the problem's own tables and shares nothing with
the methods it checks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies

from powercap_solver.problem import FloatArray, IntArray, PlanningProblem

_CAP_TOLERANCE = 1e-9
_LARGEST_ENUMERATION = 500_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Optimum:
    """The lexicographic optimum of floors and served, over every choice."""

    shortfall: tuple[float, ...]
    """Missing fractions of floors by priority class, highest first."""
    value: float
    """Sum of period_seconds * weight * served."""
    choice: IntArray
    """int64[deployment, period]: the first choice that reaches both."""


def every_choice(problem: PlanningProblem) -> Iterator[IntArray]:
    """Every choice that keeps the caps, int64[deployment, period].

    Raises:
        ValueError: when there are more than half a million choices.
    """
    periods = len(problem.period_seconds)
    counts = np.repeat(problem.option_count, periods)
    if math.prod(counts.tolist()) > _LARGEST_ENUMERATION:
        raise ValueError(f"{math.prod(counts.tolist())} choices are too many to enumerate")
    for picks in itertools.product(*(range(count) for count in counts)):
        choice = np.array(picks, dtype=np.int64).reshape(len(problem.deployments), periods)
        if keeps_caps(problem, choice):
            yield choice


def keeps_caps(problem: PlanningProblem, choice: IntArray) -> bool:
    """Whether ``choice`` (int64[deployment, period]) keeps every cap."""
    drawn = picked(problem.upper_watts, choice).sum(axis=1)
    limit = problem.available_watts + _CAP_TOLERANCE * problem.cap_watts
    return bool((drawn <= limit).all())


def picked(table: FloatArray, choice: IntArray) -> FloatArray:
    """Entries of float64[..., deployment, period, option] under int64[deployment, period]."""
    deployment, period = np.indices(choice.shape)
    entries: FloatArray = table[..., deployment, period, choice]
    return entries


def value_of(problem: PlanningProblem, choice: IntArray) -> float:
    """Sum of period_seconds * weight * served."""
    served = picked(problem.served_tps, choice)
    return math.fsum((problem.period_seconds * problem.weight[:, None] * served).ravel())


def energy_of(problem: PlanningProblem, choice: IntArray) -> float:
    """Sum of period_seconds * energy_weight * watts, base included."""
    weight = problem.period_seconds * problem.energy_weight
    power = picked(problem.power_watts, choice) * weight[problem.zone_index]
    return math.fsum([*power.ravel(), *(weight * problem.zone_base_watts).ravel()])


def shortfall_of(problem: PlanningProblem, choice: IntArray) -> tuple[float, ...]:
    """Missing fractions of floors by priority class, highest first, as shares of the horizon."""
    share = problem.period_seconds / problem.period_seconds.sum()
    levels = sorted(set(problem.priority.tolist()), reverse=True)
    total = dict.fromkeys(levels, 0.0)
    for deployment, period in np.ndindex(*choice.shape):
        option = choice[deployment, period]
        level = int(problem.priority[deployment])
        wanted = problem.min_replicas[deployment]
        floor = problem.min_served_fraction[deployment] * problem.load_tps[deployment, period]
        replicas = problem.replicas[deployment, option]
        served = problem.served_tps[deployment, period, option]
        if replicas < wanted:
            total[level] += share[period] * (wanted - replicas) / wanted
        if served < floor * (1 - 1e-9):
            total[level] += share[period] * (floor - served) / floor
    return tuple(float(total[level]) for level in levels)


def enumerate_optimum(problem: PlanningProblem) -> Optimum | None:
    """The best choice by floors, then served; None when no choice keeps the caps."""
    best: Optimum | None = None
    for choice in every_choice(problem):
        found = Optimum(
            # Rounded so that sums of equal fractions in another order compare as equal.
            shortfall=tuple(round(missed, 9) for missed in shortfall_of(problem, choice)),
            value=value_of(problem, choice),
            choice=choice,
        )
        is_better = best is None or (found.shortfall, -found.value) < (best.shortfall, -best.value)
        best = found if is_better else best
    return best


@strategies.composite
def small_problems(
    draw: Any,
    max_deployments: int = 3,
    max_options: int = 4,
    max_periods: int = 2,
    max_domains: int = 2,
) -> PlanningProblem:
    """Problems small enough to enumerate, with the corners that large ones seldom show.

    Caps are at times exactly what some choice draws; powers may be 0; tables of fixed
    deployments may fall with more replicas, those of ceilings do not.
    """
    deployments = draw(strategies.integers(1, max_deployments))
    periods = draw(strategies.integers(1, max_periods))
    domains = draw(strategies.integers(0, max_domains))
    zones = draw(strategies.integers(1, 2))
    seed = draw(strategies.integers(0, 2**32 - 1))
    is_feasible = draw(strategies.booleans())
    return random_problem(
        np.random.default_rng(seed),
        deployments=deployments,
        options=max_options,
        periods=periods,
        domains=domains,
        zones=zones,
        is_feasible=is_feasible,
    )


def random_problem(
    generator: np.random.Generator,
    *,
    deployments: int = 3,
    options: int = 4,
    periods: int = 1,
    domains: int = 1,
    zones: int = 1,
    is_feasible: bool = True,
) -> PlanningProblem:
    """One random problem; ``is_feasible`` makes every cap at least what one choice draws."""
    count = generator.integers(1, options + 1, deployments)
    real = np.arange(options) < count[:, None]
    steps = generator.integers(1, 3, (deployments, options))
    steps[:, 0] = generator.integers(0, 2, deployments)
    is_ceiling = generator.random(deployments) < 0.6
    shape = (deployments, periods, options)
    served = _table(generator, shape, is_ceiling, 40)
    draws = generator.random((domains, deployments, 1, 1)) < 0.8
    steps_up = generator.integers(0, 60, (domains, *shape)) * 5.0 * draws
    mask = real[:, None, :]
    upper: FloatArray = np.where(
        mask, np.where(is_ceiling[:, None, None], np.cumsum(steps_up, axis=-1), steps_up), 0.0
    ).astype(np.float64)
    base = (generator.integers(0, 3, (domains, periods)) * 50.0).astype(np.float64)
    overhead = generator.choice([1.0, 1.25, 1.5], domains)
    some_choice = (generator.random((deployments, periods)) * count[:, None]).astype(np.int64)
    drawn = picked(upper, some_choice).sum(axis=1)
    if not is_feasible:
        drawn = drawn * generator.choice([0.0, 0.3, 0.8, 1.0], (domains, periods))
    drawn = drawn + generator.choice([0.0, 2.5, 400.0], (domains, periods))
    return PlanningProblem(
        deployments=tuple(f"test/d{index}" for index in range(deployments)),
        domains=tuple(f"domain{index}" for index in range(domains)),
        zones=tuple(f"zone{index}" for index in range(zones)),
        period_seconds=generator.choice([60.0, 300.0, 900.0], periods),
        option_count=count,
        replicas=np.where(real, np.cumsum(steps, axis=1), 0),
        served_tps=np.where(mask, served, 0.0),
        power_watts=np.where(mask, _table(generator, shape, is_ceiling, 50), 0.0),
        upper_watts=upper,
        load_tps=(generator.integers(0, 60, (deployments, periods)) * 2.5).astype(np.float64),
        weight=generator.choice([0.5, 1.0, 3.0], deployments),
        priority=generator.integers(0, 3, deployments),
        min_replicas=generator.integers(0, 4, deployments),
        min_served_fraction=generator.choice([0.0, 0.3, 0.9], deployments),
        served_share=generator.choice([0.0, 0.9, 0.998, 1.0], (deployments, periods)),
        is_ceiling=is_ceiling,
        replicas_in_force=generator.integers(-1, 6, deployments),
        zone_index=generator.integers(0, zones, deployments),
        energy_weight=generator.choice([0.05, 1.0, 2.5], (zones, periods)),
        zone_base_watts=generator.choice([0.0, 20.0, 500.0], (zones, periods)),
        cap_watts=(drawn + base) * overhead[:, None] + 30.0,
        overhead_factor=overhead,
        fixed_overhead_watts=np.full(domains, 30.0),
        base_watts=base,
        unmanaged_watts=np.zeros((domains, periods)),
        fixed_watts=np.zeros((domains, periods)),
    )


def _table(
    generator: np.random.Generator,
    shape: tuple[int, int, int],
    is_ceiling: np.ndarray[Any, np.dtype[np.bool_]],
    high: int,
) -> FloatArray:
    table = generator.integers(0, high, shape) * 2.5
    rising = np.cumsum(table * (generator.random(shape) < 0.7), axis=2)
    mixed: FloatArray = np.where(is_ceiling[:, None, None], rising, table)
    return mixed
