"""Assurance Expected: how much of upper - mean the rows charge.

The caps are to hold for the aggregate bound of the plan: with w = upper - mean of its options,
``sum mean + Q(sum over d of residual[s,d] * w[d])``, Q the quantile over the samples s at the
asked coverage. That is no linear row, so the rows charge ``sum mean + kappa * sum w`` with kappa
of a domain and period, first as large as the bound of average options asks, then raised to what
the plan found asks until the plan keeps its own aggregate bound. With kappa at the largest
residual of any sample every plan does.
"""

from __future__ import annotations

import math

import numpy as np

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.measures import CAP_TOLERANCE, Measures
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem

_STEP = 1.001
"""Kappa grows at least by this factor, so that rounds are few."""
_ALMOST_MOST = 0.999


def starting_kappa(problem: PlanningProblem) -> FloatArray | None:
    """float64[domain, period]: kappa of average options; None with assurance Guaranteed."""
    expected = problem.expected
    if expected is None:
        return None
    real = problem.is_option[problem.draw_deployment][:, None, :]
    w = np.where(real, problem.upper_watts - expected.mean_watts, 0.0)
    average = w.sum(axis=2) / np.maximum(real.sum(axis=2), 1)
    return _needed(problem, average)


def is_expected_kept(measures: Measures, plan: Plan) -> bool:
    """Whether the aggregate bound of ``plan`` keeps every cap that its least draw keeps."""
    problem = measures.problem
    expected = problem.expected
    assert expected is not None
    mean, w = _chosen(problem, plan.choice)
    needed = _quantiles(problem, w)
    total = _by_domain(problem, mean) + needed
    over = total > measures.available + CAP_TOLERANCE * problem.cap_watts
    return not over.any()


def raised_kappa(measures: Measures, plan: Plan) -> FloatArray:
    """float64[domain, period]: kappa raised where the plan's aggregate bound asks for more."""
    problem = measures.problem
    asked = _needed(problem, _chosen(problem, plan.choice)[1])
    before = measures.kappa
    most = _most(problem)
    raised = np.where(asked > before, np.maximum(asked, before * _STEP), before)
    result: FloatArray = np.minimum(np.where(raised > _ALMOST_MOST * most, most, raised), most)
    return result


def _most(problem: PlanningProblem) -> float:
    expected = problem.expected
    assert expected is not None
    return max(0.0, float(expected.residual.max()))


def _needed(problem: PlanningProblem, w: FloatArray) -> FloatArray:
    """float64[domain, period]: the quantile as a share of the sum of ``w``."""
    total = _by_domain(problem, w)
    quantile = _quantiles(problem, w)
    needed: FloatArray = np.where(total > 0, quantile / np.where(total > 0, total, 1.0), 0.0)
    return np.maximum(needed, 0.0)


def _chosen(problem: PlanningProblem, choice: IntArray) -> tuple[FloatArray, FloatArray]:
    """Mean and upper - mean of the chosen options, float64[draw, period] each."""
    expected = problem.expected
    assert expected is not None
    taken = choice[problem.draw_deployment]
    draws, periods = np.indices(taken.shape)
    mean = expected.mean_watts[draws, periods, taken]
    return mean, problem.upper_watts[draws, periods, taken] - mean


def _by_domain(problem: PlanningProblem, watts: FloatArray) -> FloatArray:
    total = np.zeros(problem.cap_watts.shape)
    np.add.at(total, problem.draw_domain, watts)
    return total


def _quantiles(problem: PlanningProblem, w: FloatArray) -> FloatArray:
    """float64[domain, period]: the quantile at the coverage of the samples' sums."""
    expected = problem.expected
    assert expected is not None
    samples = len(expected.residual)
    place = min(samples, math.ceil(expected.coverage * samples - 1e-12)) - 1
    quantile = np.zeros(problem.cap_watts.shape)
    for domain in range(len(problem.domains)):
        draws = np.flatnonzero(problem.draw_domain == domain)
        sums = expected.residual[:, problem.draw_deployment[draws]] @ w[draws]
        quantile[domain] = np.sort(sums, axis=0)[place]
    return quantile
