"""Oracles and inputs for tests: hypothesis strategies, and optima by full enumeration.

Needs the extra ``test``. The enumeration reads the problem's own tables and shares nothing with
the methods it checks, nor with the certificate: it goes over every choice at once, deployment by
deployment and period by period.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from hypothesis import strategies

from powercap_solver.enumeration import (
    Optimum,
    attainable,
    energy_of,
    enumerate_optimum,
    every_choice,
    keeps_caps,
    keeps_limits,
    picked,
    shortfall_of,
    value_of,
    worth_of,
)
from powercap_solver.problem import PlanningProblem
from powercap_solver.random_problems import PARTS, random_problem

__all__ = [
    "PARTS",
    "Optimum",
    "attainable",
    "energy_of",
    "enumerate_optimum",
    "every_choice",
    "keeps_caps",
    "keeps_limits",
    "mixed_problems",
    "picked",
    "problems_with",
    "random_problem",
    "shortfall_of",
    "small_problems",
    "value_of",
    "worth_of",
]


@strategies.composite
def small_problems(
    draw: Any,
    max_deployments: int = 3,
    max_options: int = 4,
    max_periods: int = 2,
    max_domains: int = 2,
    parts: Collection[str] = (),
) -> PlanningProblem:
    """Problems small enough to enumerate, with the corners that large ones seldom show.

    Caps are at times exactly what some choice draws; powers may be 0; tables of fixed
    deployments may fall with more replicas, those of ceilings do not.

    Args:
        draw: Given by hypothesis.
        max_deployments: Most deployments.
        max_options: Most options of a deployment.
        max_periods: Most periods.
        max_domains: Most domains; there may be none.
        parts: Those of ``PARTS`` that every problem has.
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
        parts=parts,
    )


def problems_with(part: str, **sizes: int) -> strategies.SearchStrategy[PlanningProblem]:
    """Small problems with one of ``PARTS`` switched on alone."""
    return small_problems(parts=(part,), **sizes)


def mixed_problems(**sizes: int) -> strategies.SearchStrategy[PlanningProblem]:
    """Small problems with any of ``PARTS`` together."""
    some = strategies.sets(strategies.sampled_from(PARTS))
    return some.flatmap(lambda parts: small_problems(parts=tuple(sorted(parts)), **sizes))
