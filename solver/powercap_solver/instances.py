"""Seeded instance families, measured instances, and slightly changed ones: one place to ask.

``FAMILIES["fleet_tree"].make(size=1000, seed=3)``. For benchmarks, tests and trials; adding a
family is adding one function to one of the modules ``families_*``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powercap_solver import families_features, families_fleet, families_hard, families_odd
from powercap_solver.families import REGISTRY, Family, Kind
from powercap_solver.families_measured import measured
from powercap_solver.problem import PlanningProblem

__all__ = ["FAMILIES", "Family", "Kind", "changed", "measured"]

_MODULES = (families_fleet, families_features, families_hard, families_odd)
"""Importing them registers their families."""

FAMILIES: dict[str, Family] = REGISTRY

_CHANGE = 0.03
"""Most by which a number of a changed table moves, as a share."""


def changed(problem: PlanningProblem, *, fraction: float, seed: int) -> PlanningProblem:
    """The problem a minute later: new tables for a few deployments, all else as it was.

    Load, served and mean power of a changed deployment move together by up to 3 %, its upper
    watts by up to 3 % on their own; at least one deployment changes.

    Args:
        problem: The problem before.
        fraction: Share of the deployments that change, 0 to 1.
        seed: Equal arguments give equal problems.
    """
    generator = np.random.default_rng([seed, 1])
    size = len(problem.deployments)
    count = min(size, max(1, round(fraction * size)))
    moved = generator.choice(size, count, replace=False)
    load, upper = np.ones(size), np.ones(size)
    load[moved] += generator.uniform(-_CHANGE, _CHANGE, count)
    upper[moved] += generator.uniform(-_CHANGE, _CHANGE, count)
    of_draw = upper[problem.draw_deployment][:, None, None]
    expected = problem.expected
    if expected is not None:
        expected = replace(expected, mean_watts=expected.mean_watts * of_draw)
    return replace(
        problem,
        load_tps=problem.load_tps * load[:, None],
        served_tps=problem.served_tps * load[:, None, None],
        power_watts=problem.power_watts * load[:, None, None],
        upper_watts=problem.upper_watts * of_draw,
        expected=expected,
    )
