"""Problems made of a fleet: where deployments stand, caps that bind but can be kept, a near plan.

A *level* assigns every deployment to one domain (its rack, its row, the cluster). Caps are a
share, the *tightness*, of the watts that the deployments of a domain need to serve nearly all of
their load, and never less than what the floors need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.fleets import Fleet, Tables, tabulate
from powercap_solver.problem import PlanningProblem

OVERHEAD_FACTOR = 1.1
PARKED_WATTS = 140.0
"""Base of a deployment: its parked GPUs and its share of idle hosts."""
PERIOD_SECONDS = 300.0
_FLOOR_MARGIN = 1.05
_FIRST_PRICE = 1e-3
_RAISES = 40
_BISECTIONS = 24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """Which domains each deployment draws in."""

    domains: tuple[str, ...]
    levels: tuple[IntArray, ...]
    """int64[deployment] each, places in ``domains``; the cluster first, racks last."""

    @property
    def draws(self) -> tuple[IntArray, IntArray]:
        """Domain and deployment of every draw."""
        deployment = np.arange(len(self.levels[0]))
        return np.concatenate(self.levels), np.tile(deployment, len(self.levels))

    def total(self, watts: FloatArray) -> FloatArray:
        """float64[domain, period]: sums of float64[deployment, period]."""
        domain, deployment = self.draws
        return np.stack(
            [
                np.bincount(domain, weights=column[deployment], minlength=len(self.domains))
                for column in watts.T
            ],
            axis=1,
        )


def one_cap(size: int) -> Placement:
    """All deployments behind one feed."""
    return Placement(domains=("feed",), levels=(np.zeros(size, dtype=np.int64),))


def tree(generator: np.random.Generator, size: int, *, domains: int) -> Placement:
    """One cluster, about the root of ``domains`` rows, and racks: ``domains`` in all."""
    rows = max(1, round((domains - 1) ** 0.5))
    racks = domains - 1 - rows
    row_of_rack = np.arange(racks) % rows
    rack = generator.permutation(np.arange(size) % racks)
    return Placement(
        domains=(
            "cluster",
            *(f"row{row}" for row in range(rows)),
            *(f"row{row}-rack{place}" for place, row in enumerate(row_of_rack.tolist())),
        ),
        levels=(np.zeros(size, dtype=np.int64), 1 + row_of_rack[rack], 1 + rows + rack),
    )


def fleet_problem(
    generator: np.random.Generator,
    fleet: Fleet,
    placement: Placement,
    *,
    tightness: FloatArray,
    tables: Tables | None = None,
    min_replicas: IntArray | None = None,
    floor_margin: float = _FLOOR_MARGIN,
    zones: int = 1,
    **more: Any,
) -> PlanningProblem:
    """Put a problem together.

    Args:
        generator: Source of priorities, weights and energy weights.
        fleet: The deployments.
        placement: Their domains.
        tightness: float64[domain, period or 1], of what nearly all of the load needs.
        tables: Of the options; default those of the fleet.
        min_replicas: Floors; default 1 for every second deployment, else 0.
        floor_margin: Caps are at least this times what the floors need; 0: floors may not fit.
        zones: Grid zones, dealt out in turn.
        **more: Further fields of the problem; they replace what is chosen here.
    """
    size, periods = fleet.load_tps.shape
    tables = tabulate(fleet) if tables is None else tables
    floors = np.arange(size) % 2 if min_replicas is None else min_replicas
    base = placement.total(np.full((size, periods), PARKED_WATTS))
    needed = np.take_along_axis(
        tables.upper_watts, tables.knee(fleet.option_count)[:, :, None], axis=2
    )[:, :, 0]
    # Caps do not follow the load through the day: what is needed on average, at every time.
    available = placement.total(needed).mean(axis=1, keepdims=True) * tightness
    floor_option = np.argmax(fleet.replicas >= floors[:, None], axis=1)
    held = np.take_along_axis(tables.upper_watts, floor_option[:, None, None], axis=2)[:, :, 0]
    available = np.maximum(available, floor_margin * placement.total(held))
    draw_domain, draw_deployment = placement.draws
    domains = len(placement.domains)
    fields: dict[str, Any] = {
        "deployments": tuple(f"serving/model-{index:06d}" for index in range(size)),
        "domains": placement.domains,
        "zones": tuple(f"zone{index}" for index in range(zones)),
        "period_seconds": np.full(periods, PERIOD_SECONDS),
        "option_count": fleet.option_count,
        "replicas": fleet.replicas,
        "served_tps": tables.served_tps,
        "power_watts": tables.power_watts,
        "draw_domain": draw_domain,
        "draw_deployment": draw_deployment,
        "upper_watts": tables.upper_watts[draw_deployment],
        "load_tps": fleet.load_tps,
        "weight": fleet.weight * generator.choice([1.0, 2.0, 4.0], size),
        "priority": generator.integers(0, 3, size),
        "min_replicas": floors,
        "min_served_fraction": np.zeros(size),
        "served_share": np.full((size, periods), 0.998),
        "is_ceiling": fleet.is_ceiling,
        "replicas_in_force": np.full(size, -1),
        "zone_index": np.arange(size) % zones,
        "energy_weight": generator.uniform(0.6, 1.8, (zones, periods)),
        "zone_base_watts": np.full((zones, periods), PARKED_WATTS * size / zones),
        "cap_watts": OVERHEAD_FACTOR * (base + available),
        "overhead_factor": np.full(domains, OVERHEAD_FACTOR),
        "fixed_overhead_watts": np.zeros(domains),
        "base_watts": base,
        "unmanaged_watts": np.zeros((domains, periods)),
        "fixed_watts": np.zeros((domains, periods)),
    }
    return PlanningProblem(**{**fields, **more})


def near_replicas(problem: PlanningProblem, levels: tuple[IntArray, ...]) -> IntArray:
    """int64[deployment]: replicas of a good plan of the first period that keeps every cap.

    Racks first, then rows, then the cluster: each level adds the least price per watt at which
    the best options of its deployments fit, found by bisection in all of its domains at once.
    """
    draws = problem.upper_watts[: len(problem.deployments), 0]
    allowed = problem.is_option & (problem.replicas >= problem.min_replicas[:, None])
    value = np.where(allowed, problem.weight[:, None] * problem.served_tps[:, 0], -np.inf)
    available = problem.available_watts[:, 0]
    for level in reversed(levels):
        value = value - _level_price(value, draws, level, available)[level][:, None] * draws
    option = np.argmax(value, axis=1)
    replicas: IntArray = problem.replicas[np.arange(len(option)), option]
    return replicas


def _level_price(
    value: FloatArray, draws: FloatArray, level: IntArray, available: FloatArray
) -> FloatArray:
    """float64[domain]: prices per watt at which the best options fit each domain."""
    place = np.arange(len(level))
    low = np.zeros(len(available))
    high = np.full(len(available), _FIRST_PRICE)

    def fits(price: FloatArray) -> BoolArray:
        option = np.argmax(value - price[level][:, None] * draws, axis=1)
        used = np.bincount(level, weights=draws[place, option], minlength=len(available))
        kept: BoolArray = used <= available
        return kept

    for _ in range(_RAISES):
        ok = fits(high)
        if ok.all():
            break
        low, high = np.where(ok, low, high), np.where(ok, high, high * 4)
    # Where all fits at no price, halving leaves next to none.
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        ok = fits(middle)
        low, high = np.where(ok, low, middle), np.where(ok, middle, high)
    return high
