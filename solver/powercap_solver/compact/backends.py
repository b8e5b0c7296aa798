"""The back end that a setting names."""

from __future__ import annotations

from powercap_solver.compact.knapsack import knapsack_solver
from powercap_solver.compact.mathopt import mathopt_solver
from powercap_solver.compact.model import ChoiceSolver
from powercap_solver.settings import Backend


def backend_solver(backend: Backend) -> ChoiceSolver:
    """Return the back end as a function of model and limits."""
    if backend is Backend.KNAPSACK:
        return knapsack_solver(mathopt_solver(Backend.HIGHS))
    return mathopt_solver(backend)
