"""Hard multiple-choice knapsacks from the literature, in whole numbers.

After Pisinger, *A minimal algorithm for the multiple-choice knapsack problem* (1995), and
Kellerer, Pferschy, Pisinger, *Knapsack Problems* (2004), section 11: R is the range, the capacity
is halfway between the sums of the lightest and the heaviest items. Weights are watts, profits
tokens/s; a period lasts 1 s, so the value of stage 2 is the whole profit.

Departing from them, ``uncorrelated`` has a quarter in place of half: with ten items to a class
the most profitable ones weigh half the range on average, and half the time nothing would bind.
"""

from __future__ import annotations

import numpy as np

from powercap_solver.arrays import IntArray
from powercap_solver.families import Kind, family
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import Objective

_ITEMS = 10
_RANGE = 1_000
_SIZES = (10, 100, 1_000)


@family(Kind.HARD, sizes=_SIZES, objective=Objective.THROUGHPUT)
def uncorrelated(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Weights and profits uniform in 1 to R, a quarter of the way from lightest to heaviest."""
    weight = generator.integers(1, _RANGE + 1, (size, _ITEMS))
    profit = generator.integers(1, _RANGE + 1, (size, _ITEMS))
    return knapsack(weight, profit, capacity=_capacity(weight, quarters=1))


@family(Kind.HARD, sizes=_SIZES, objective=Objective.THROUGHPUT)
def weakly_correlated(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Weights uniform, profits within 10 of the weight."""
    weight = generator.integers(1, _RANGE + 1, (size, _ITEMS))
    off = generator.integers(-10, 11, (size, _ITEMS))
    return knapsack(weight, np.maximum(weight + off, 1))


@family(Kind.HARD, sizes=_SIZES, objective=Objective.THROUGHPUT)
def strongly_correlated(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Running sums of ascending (w, w + 10): nothing is dominated, the hull is all there is."""
    step = np.sort(generator.integers(1, _RANGE + 1, (size, _ITEMS)), axis=1)
    return knapsack(np.cumsum(step, axis=1), np.cumsum(step + 10, axis=1))


@family(Kind.HARD, sizes=_SIZES, objective=Objective.THROUGHPUT)
def subset_sum(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Profit is weight: no price tells items apart, only the exact sum counts."""
    weight = generator.integers(1, _RANGE + 1, (size, _ITEMS))
    return knapsack(weight, weight)


@family(Kind.HARD, sizes=_SIZES, objective=Objective.THROUGHPUT)
def zig_zag(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Weights and profits uniform and both ascending (Sinha and Zoltners): none dominated."""
    weight = np.sort(generator.integers(1, _RANGE + 1, (size, _ITEMS)), axis=1)
    return knapsack(weight, np.sort(generator.integers(1, _RANGE + 1, (size, _ITEMS)), axis=1))


@family(Kind.HARD, sizes=_SIZES, objective=Objective.THROUGHPUT)
def even_weights(generator: np.random.Generator, size: int) -> PlanningProblem:
    """Even weights, an odd capacity, profit is weight: the last unit can never be filled."""
    weight = 2 * generator.integers(1, _RANGE // 2 + 1, (size, _ITEMS))
    return knapsack(weight, weight, capacity=_capacity(weight) // 2 * 2 + 1)


def _capacity(weight: IntArray, *, quarters: int = 2) -> int:
    lightest, heaviest = int(weight.min(axis=1).sum()), int(weight.max(axis=1).sum())
    return ((4 - quarters) * lightest + quarters * heaviest) // 4


def knapsack(weight: IntArray, profit: IntArray, *, capacity: int | None = None) -> PlanningProblem:
    """A multiple-choice knapsack as a planning problem.

    Args:
        weight: int64[class, item], 0 or more.
        profit: int64[class, item], 0 or more.
        capacity: Of the knapsack; default halfway between lightest and heaviest.
    """
    size, items = weight.shape
    limit = _capacity(weight) if capacity is None else capacity
    watts = weight.astype(np.float64)[:, None, :]
    served = profit.astype(np.float64)[:, None, :]
    return PlanningProblem(
        deployments=tuple(f"knapsack/class-{index:05d}" for index in range(size)),
        domains=("knapsack",),
        zones=("zone",),
        period_seconds=np.ones(1),
        option_count=np.full(size, items),
        replicas=np.tile(np.arange(items), (size, 1)),
        served_tps=served,
        power_watts=watts,
        draw_domain=np.zeros(size, dtype=np.int64),
        draw_deployment=np.arange(size),
        upper_watts=watts.copy(),
        load_tps=served.max(axis=2),
        weight=np.ones(size),
        priority=np.zeros(size, dtype=np.int64),
        min_replicas=np.zeros(size, dtype=np.int64),
        min_served_fraction=np.zeros(size),
        served_share=np.ones((size, 1)),
        is_ceiling=np.zeros(size, dtype=bool),
        replicas_in_force=np.full(size, -1),
        zone_index=np.zeros(size, dtype=np.int64),
        energy_weight=np.ones((1, 1)),
        zone_base_watts=np.ones((1, 1)),
        cap_watts=np.full((1, 1), float(limit)),
        overhead_factor=np.ones(1),
        fixed_overhead_watts=np.zeros(1),
        base_watts=np.zeros((1, 1)),
        unmanaged_watts=np.zeros((1, 1)),
        fixed_watts=np.zeros((1, 1)),
    )
