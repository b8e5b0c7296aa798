"""Registry of the seeded instance families: one function each, with the sizes worth measuring.

The families themselves are in the modules ``families_*``; ``instances`` gathers them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import Objective

Build = Callable[[np.random.Generator, int], PlanningProblem]


class Kind(enum.StrEnum):
    """What a family is for."""

    FLEET = "fleet"
    """Sizes and shapes of real fleets: speed is measured on these."""
    SMALL = "small"
    """One difficulty of planning at a time, small enough for any method."""
    FEATURE = "feature"
    """Budgets, start-up, fairness, assurance Expected, modes and variants."""
    HARD = "hard"
    """Correlated multiple-choice knapsacks from the literature."""
    ODD = "odd"
    """What breaks careless code: ties, zeros, exact sums, a billion to one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family of problems."""

    name: str
    kind: Kind
    sizes: tuple[int, ...]
    """Numbers of deployments worth measuring, ascending."""
    build: Build
    objective: Objective = Objective.THROUGHPUT_PER_WATT
    """What its problems are meant to be solved for."""

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.build.__doc__ or "").strip().partition("\n")[0]

    def make(self, *, size: int, seed: int) -> PlanningProblem:
        """Build one problem of ``size`` deployments; equal arguments give equal problems."""
        return self.build(np.random.default_rng([seed, size]), size)


REGISTRY: dict[str, Family] = {}
"""By name, in the order of registration."""


def family(
    kind: Kind,
    *,
    sizes: tuple[int, ...],
    objective: Objective = Objective.THROUGHPUT_PER_WATT,
) -> Callable[[Build], Build]:
    """Register the function under its own name."""

    def register(build: Build) -> Build:
        name = build.__name__
        REGISTRY[name] = Family(name=name, kind=kind, sizes=sizes, build=build, objective=objective)
        return build

    return register
