"""What the benchmark crosses: families and their sizes, seeds, and methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from powercap_solver.instances import FAMILIES
from powercap_solver.ladder import solve, solve_greedy
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import Backend, SolveSettings

REFERENCE = "exact"
DEADLINE_SECONDS = 20.0
"""The same for every method."""

Method = Callable[[PlanningProblem], Plan]


def _exact(backend: Backend) -> Method:
    settings = SolveSettings(backend=backend, deadline_seconds=DEADLINE_SECONDS)
    return lambda problem: solve(problem, settings=settings)


METHODS: dict[str, Method] = {
    REFERENCE: _exact(Backend.KNAPSACK),
    "exact-highs": _exact(Backend.HIGHS),
    "exact-scip": _exact(Backend.SCIP),
    "greedy": lambda problem: solve_greedy(problem),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One solve to measure."""

    family: str
    size: int
    seed: int
    method: str


def cases(*, most: int, seeds: int, methods: tuple[str, ...]) -> list[Case]:
    """Every family in its sizes up to ``most`` (its smallest always), by seed and method."""
    found = []
    for family in FAMILIES.values():
        sizes = [size for size in family.sizes if size <= most] or [family.sizes[0]]
        found += [
            Case(family=family.name, size=size, seed=seed, method=method)
            for size in sizes
            for seed in range(seeds)
            for method in methods
        ]
    return found


def smoke() -> list[Case]:
    """Every family once, in its smallest size."""
    return [
        Case(family=family.name, size=family.sizes[0], seed=0, method=REFERENCE)
        for family in FAMILIES.values()
    ]


def quick() -> list[Case]:
    """Small sizes, two seeds, the reference and greedy: well under a minute."""
    return cases(most=50, seeds=2, methods=(REFERENCE, "greedy"))


def full() -> list[Case]:
    """Everything: some minutes."""
    return cases(most=1000, seeds=3, methods=tuple(METHODS))
