"""Random small problems for tests, with every part that a problem may have.

Watts, tokens and limits are coarse numbers, so that ties, zeros and limits met exactly are
frequent. With ``is_feasible`` every limit is at least what one random choice uses: that choice
keeps them all.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.parts import MOST_VARIANTS, Dynamics, Expected, Grid, Labels, Pools
from powercap_solver.problem import PlanningProblem, Utility

PARTS = (
    "fair",
    "pools",
    "ramps",
    "switching",
    "late",
    "present",
    "rise",
    "fall",
    "grid",
    "budgets",
    "expected",
    "modes",
    "variants",
)
"""What ``random_problem`` can switch on, alone or together."""
_DYNAMICS = frozenset({"ramps", "switching", "late", "present", "rise", "fall"})


def random_problem(
    generator: np.random.Generator,
    *,
    deployments: int = 3,
    options: int = 4,
    periods: int = 1,
    domains: int = 1,
    zones: int = 1,
    is_feasible: bool = True,
    parts: Collection[str] = (),
) -> PlanningProblem:
    """One random problem; ``is_feasible`` makes every limit at least what one choice uses.

    Raises:
        ValueError: when ``parts`` holds a name that is not in ``PARTS``.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ValueError(f"parts holds {unknown[0]!r}; accepted: {', '.join(PARTS)}")
    count = generator.integers(1, options + 1, deployments)
    real = np.arange(options) < count[:, None]
    replicas = _replicas(generator, real, parts)
    is_ceiling = generator.random(deployments) < 0.6
    shape = (deployments, periods, options)
    mask = real[:, None, :]
    served = np.where(mask, _table(generator, shape, is_ceiling, 40), 0.0)
    draw_domain, draw_deployment, upper = _draws(generator, domains, shape, is_ceiling, real)
    power = np.where(mask, _table(generator, shape, is_ceiling, 50), 0.0)
    zone_index = generator.integers(0, zones, deployments)
    period_seconds = generator.choice([60.0, 300.0, 900.0], periods)
    zone_base = generator.choice([0.0, 20.0, 500.0], (zones, periods))
    some = (generator.random((deployments, periods)) * count[:, None]).astype(np.int64)

    expected = _expected(generator, upper, deployments) if "expected" in parts else None
    present = np.zeros((len(draw_domain), periods))
    if "present" in parts:
        present = generator.choice([0.0, 0.0, 60.0, 200.0], present.shape)
    charged = np.maximum(_charged(upper, expected, some[draw_deployment]), present)
    drawn = np.zeros((domains, periods))
    np.add.at(drawn, draw_domain, charged)
    dynamics = None
    if _DYNAMICS & set(parts):
        dynamics = _dynamics(
            generator,
            parts=parts,
            steps=np.take_along_axis(replicas, some, axis=1),
            drawn=drawn,
            present=present,
            is_feasible=is_feasible,
        )
    pools = None
    if "pools" in parts:
        pools = _pools(generator, replicas, some, is_feasible=is_feasible)
    grid = None
    if "grid" in parts or "budgets" in parts:
        grid = _grid(
            generator,
            parts=parts,
            power=np.take_along_axis(power, some[:, :, None], axis=2)[:, :, 0],
            zone_index=zone_index,
            zone_base=zone_base,
            period_seconds=period_seconds,
            is_feasible=is_feasible,
        )
    base: FloatArray = (generator.integers(0, 3, (domains, periods)) * 50.0).astype(np.float64)
    overhead = generator.choice([1.0, 1.25, 1.5], domains)
    if not is_feasible:
        drawn = drawn * generator.choice([0.0, 0.3, 0.8, 1.0], (domains, periods))
    drawn = drawn + generator.choice([0.0, 2.5, 400.0], (domains, periods))
    return PlanningProblem(
        deployments=tuple(f"test/d{index}" for index in range(deployments)),
        domains=tuple(f"domain{index}" for index in range(domains)),
        zones=tuple(f"zone{index}" for index in range(zones)),
        period_seconds=period_seconds,
        option_count=count,
        replicas=replicas,
        served_tps=served,
        power_watts=power,
        draw_domain=draw_domain,
        draw_deployment=draw_deployment,
        upper_watts=upper,
        load_tps=(generator.integers(0, 60, (deployments, periods)) * 2.5).astype(np.float64),
        weight=generator.choice([0.5, 1.0, 3.0], deployments),
        priority=generator.integers(0, 3, deployments),
        min_replicas=generator.integers(0, 4, deployments),
        min_served_fraction=generator.choice([0.0, 0.3, 0.9], deployments),
        served_share=generator.choice([0.0, 0.9, 0.998, 1.0], (deployments, periods)),
        is_ceiling=is_ceiling,
        replicas_in_force=generator.integers(-1, 6, deployments),
        zone_index=zone_index,
        energy_weight=generator.choice([0.05, 1.0, 2.5], (zones, periods)),
        zone_base_watts=zone_base,
        cap_watts=(drawn + base) * overhead[:, None] + 30.0,
        overhead_factor=overhead,
        fixed_overhead_watts=np.full(domains, 30.0),
        base_watts=base,
        unmanaged_watts=np.zeros((domains, periods)),
        fixed_watts=np.zeros((domains, periods)),
        utility=Utility.PROPORTIONAL_FAIR if "fair" in parts else Utility.LINEAR,
        pools=pools,
        dynamics=dynamics,
        grid=grid,
        expected=expected,
        labels=_labels(generator, replicas, real, parts) if _has_labels(parts) else None,
    )


def _has_labels(parts: Collection[str]) -> bool:
    return "modes" in parts or "variants" in parts


def _replicas(generator: np.random.Generator, real: BoolArray, parts: Collection[str]) -> IntArray:
    """int64[deployment, option], ascending; equal neighbours where labels tell them apart."""
    least = 0 if _has_labels(parts) else 1
    steps = generator.integers(least, 3, real.shape)
    steps[:, 0] = generator.integers(0, 2, len(real))
    replicas: IntArray = np.where(real, np.cumsum(steps, axis=1), 0)
    return replicas


def _draws(
    generator: np.random.Generator,
    domains: int,
    shape: tuple[int, int, int],
    is_ceiling: BoolArray,
    real: BoolArray,
) -> tuple[IntArray, IntArray, FloatArray]:
    """Draws of every domain and their upper watts; not everyone draws everywhere."""
    is_member = generator.random((domains, shape[0])) < 0.8
    domain, deployment = np.nonzero(is_member)
    steps = generator.integers(0, 60, (len(domain), *shape[1:])) * 5.0
    rising = is_ceiling[deployment][:, None, None]
    watts = np.where(rising, np.cumsum(steps, axis=-1), steps)
    upper: FloatArray = np.where(real[deployment][:, None, :], watts, 0.0)
    return domain, deployment, upper


def _table(
    generator: np.random.Generator, shape: tuple[int, int, int], is_ceiling: BoolArray, high: int
) -> FloatArray:
    table = generator.integers(0, high, shape) * 2.5
    rising = np.cumsum(table * (generator.random(shape) < 0.7), axis=2)
    mixed: FloatArray = np.where(is_ceiling[:, None, None], rising, table)
    return mixed


def _expected(generator: np.random.Generator, upper: FloatArray, deployments: int) -> Expected:
    samples = int(generator.integers(1, 30))
    return Expected(
        mean_watts=upper * generator.choice([0.0, 0.5, 0.75, 1.0], upper.shape),
        residual=generator.integers(-4, 5, (samples, deployments)) / 4.0,
        coverage=float(generator.choice([0.5, 0.9, 0.999])),
    )


def _charged(upper: FloatArray, expected: Expected | None, choice: IntArray) -> FloatArray:
    """float64[draw, period]: the most that ``choice`` (of draws) may be charged."""
    watts = np.take_along_axis(upper, choice[:, :, None], axis=2)[:, :, 0]
    if expected is None:
        return watts
    mean = np.take_along_axis(expected.mean_watts, choice[:, :, None], axis=2)[:, :, 0]
    most: FloatArray = mean + max(0.0, float(expected.residual.max())) * (watts - mean)
    return most


def _dynamics(
    generator: np.random.Generator,
    *,
    parts: Collection[str],
    steps: IntArray,
    drawn: FloatArray,
    present: FloatArray,
    is_feasible: bool,
) -> Dynamics:
    """Links; ``steps`` (int64[deployment, period]) are replicas that they must allow."""
    deployments, domains = len(steps), len(drawn)
    initial = generator.integers(-1, 5, deployments)
    known = np.where(initial < 0, steps[:, 0], initial)
    change = np.diff(steps, axis=1, prepend=known[:, None])
    up, down = change.max(axis=1, initial=0), (-change).max(axis=1, initial=0)
    raise_, lower = generator.integers(-1, 3, (2, deployments))
    before = generator.choice([0.0, 50.0, 300.0, np.nan], domains)
    rise = np.diff(drawn, axis=1, prepend=np.where(np.isnan(before), drawn[:, 0], before)[:, None])
    most_rise, most_fall = generator.choice([0.0, 40.0, 150.0, np.inf], (2, domains))
    if is_feasible:
        raise_ = np.where(raise_ < 0, -1, np.maximum(raise_, up))
        lower = np.where(lower < 0, -1, np.maximum(lower, down))
        most_rise = np.maximum(most_rise, rise.max(axis=1, initial=0.0))
        most_fall = np.maximum(most_fall, (-rise).max(axis=1, initial=0.0))
    none, unlimited = np.full(deployments, -1), np.full(domains, np.inf)
    is_late = generator.random(deployments) < 0.7
    cost = generator.choice([0.0, 500.0, 4000.0], deployments)
    return Dynamics(
        max_raise=raise_ if "ramps" in parts else none,
        max_lower=lower if "ramps" in parts else none.copy(),
        switching_cost=cost if "switching" in parts else np.zeros(deployments),
        starts_late=is_late if "late" in parts else np.zeros(deployments, dtype=bool),
        initial_replicas=initial,
        present_upper_watts=present,
        max_rise_watts=most_rise if "rise" in parts else unlimited,
        max_fall_watts=most_fall if "fall" in parts else unlimited.copy(),
        initial_upper_watts=before,
    )


def _pools(
    generator: np.random.Generator, replicas: IntArray, some: IntArray, *, is_feasible: bool
) -> Pools:
    pools = int(generator.integers(1, 3))
    each = generator.choice([0, 1, 2, 8], (pools, len(replicas)))
    gpus = each[:, :, None] * replicas
    used = np.stack([np.take_along_axis(table, some, axis=1).sum(axis=0) for table in gpus])
    if not is_feasible:
        used = (used * generator.choice([0.0, 0.5, 1.0], used.shape)).astype(np.int64)
    return Pools(
        names=tuple(f"pool{index}" for index in range(pools)),
        gpu_count=used + generator.choice([0, 1, 20], used.shape),
        gpus=gpus,
    )


def _grid(
    generator: np.random.Generator,
    *,
    parts: Collection[str],
    power: FloatArray,
    zone_index: IntArray,
    zone_base: FloatArray,
    period_seconds: FloatArray,
    is_feasible: bool,
) -> Grid:
    zones = zone_base.shape
    price = generator.choice([-40.0, 0.0, 30.0, 200.0], zones)
    carbon = generator.choice([0.0, 40.0, 600.0], zones)
    overhead = generator.choice([1.0, 1.3], zones[0])
    watts = zone_base.copy()
    np.add.at(watts, zone_index, power)
    joules = overhead[:, None] * period_seconds * watts
    budgets = {
        "energy_budget_joules": float(joules.sum()),
        "money_budget": float((joules / 3.6e9 * price).sum()),
        "carbon_budget_grams": float((joules / 3.6e6 * carbon).sum()),
    }
    for name, spent in budgets.items():
        share = 1.0 if is_feasible else generator.choice([0.0, 0.7, 1.0])
        spare = abs(spent) * generator.choice([0.0, 0.01, 0.5])
        is_asked = "budgets" in parts and generator.random() < 0.6
        budgets[name] = spent * share + spare if is_asked else math.inf
    tokens: Any = None
    if "grid" in parts:
        tokens = generator.choice([0.0, 0.2, 5.0], len(zone_index))
    return Grid(
        price_per_mwh=price,
        carbon_g_per_kwh=carbon,
        overhead_factor=overhead,
        carbon_price_per_tonne=float(generator.choice([0.0, 80.0])),
        token_price_per_million=tokens,
        **budgets,
    )


def _labels(
    generator: np.random.Generator, replicas: IntArray, real: BoolArray, parts: Collection[str]
) -> Labels:
    """Modes, and groups of up to four variants whose replicas are split at random."""
    modes = ("full", "eco") if "modes" in parts else ("full",)
    members = np.zeros(len(replicas), dtype=np.int64)
    if "variants" in parts:
        members = generator.integers(0, MOST_VARIANTS + 1, len(replicas))
    vectors = np.zeros((*replicas.shape, MOST_VARIANTS), dtype=np.int64)
    for deployment, option in np.argwhere(real).tolist():
        count = int(members[deployment])
        if count:
            share = np.full(count, 1 / count)
            split = generator.multinomial(int(replicas[deployment, option]), share)
            vectors[deployment, option, :count] = split
    return Labels(
        modes=modes,
        mode_index=generator.integers(0, len(modes), replicas.shape),
        variants=tuple(tuple(f"v{index}" for index in range(count)) for count in members.tolist()),
        variant_replicas=vectors,
    )
