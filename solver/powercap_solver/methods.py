"""The method that a setting names."""

from __future__ import annotations

from powercap_solver.compact.cbc import cbc_solver
from powercap_solver.compact.cp_sat import cp_sat_solver
from powercap_solver.compact.mathopt import mathopt_solver
from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, ChoiceSolver, SolveLimits
from powercap_solver.fast.solver import fast_solver
from powercap_solver.greedy import greedy_solver
from powercap_solver.settings import Method

_SMALL_CORE = 100
"""Groups with a choice left up to which CP-SAT proves a core sooner than HiGHS."""


def core_solver() -> ChoiceSolver:
    """Return what solves the cores of the fast path: CP-SAT small ones, HiGHS large ones."""
    small, large = cp_sat_solver(), mathopt_solver(Method.HIGHS)

    def solve(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
        is_small = int((model.allowed.sum(axis=1) > 1).sum()) <= _SMALL_CORE
        return (small if is_small else large)(model, limits)

    return solve


def method_solver(method: Method) -> ChoiceSolver:
    """Return the method as a function of model and limits."""
    if method is Method.FAST:
        return fast_solver(core_solver())
    if method is Method.CP_SAT:
        return cp_sat_solver()
    if method is Method.CBC:
        return cbc_solver()
    if method is Method.GREEDY:
        return greedy_solver()
    return mathopt_solver(method)
