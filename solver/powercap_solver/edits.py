"""Problems made from problems: what if a deployment had one option, or a cap another height."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from powercap_solver.arrays import IntArray
from powercap_solver.errors import ProblemError
from powercap_solver.problem import PlanningProblem


def with_only_option(problem: PlanningProblem, *, deployment: int, option: int) -> PlanningProblem:
    """Return the problem with one option left for a deployment, and that as its floor."""
    return _with_options(problem, deployment, np.array([option]))


def with_only_replicas(
    problem: PlanningProblem, *, deployment: int, replicas: int
) -> PlanningProblem:
    """Return the problem with one replica count left for a deployment, in every mode it has.

    Raises:
        ProblemError: when no option has that many.
    """
    counts = problem.replicas[deployment, : problem.option_count[deployment]]
    options = np.flatnonzero(counts == replicas)
    if not len(options):
        accepted = ", ".join(str(count) for count in np.unique(counts).tolist())
        raise ProblemError(
            f"replicas of {problem.deployments[deployment]!r} is {replicas}; accepted, as the "
            f"problem offers: {accepted}"
        )
    return _with_options(problem, deployment, options)


def _with_options(problem: PlanningProblem, deployment: int, options: IntArray) -> PlanningProblem:
    """The problem with ``options`` alone for a deployment, the least replicas of them its floor."""
    counts, floors = np.array(problem.option_count), np.array(problem.min_replicas)
    counts[deployment] = len(options)
    floors[deployment] = problem.replicas[deployment, options].min()
    rows = np.arange(len(problem.deployments)) == deployment
    draws = problem.draw_deployment == deployment
    pools, expected, labels = problem.pools, problem.expected, problem.labels
    if pools is not None:
        gpus = np.array([_options_first(table, rows, options) for table in pools.gpus])
        pools = replace(pools, gpus=gpus.reshape(pools.gpus.shape))
    if expected is not None:
        expected = replace(expected, mean_watts=_options_first(expected.mean_watts, draws, options))
    if labels is not None:
        vectors = np.moveaxis(labels.variant_replicas, 2, 1)
        vectors = np.moveaxis(_options_first(vectors, rows, options), 1, 2)
        labels = replace(
            labels,
            mode_index=_options_first(labels.mode_index, rows, options),
            variant_replicas=np.ascontiguousarray(vectors),
        )
    return replace(
        problem,
        option_count=counts,
        min_replicas=floors,
        replicas=_options_first(problem.replicas, rows, options),
        served_tps=_options_first(problem.served_tps, rows, options),
        power_watts=_options_first(problem.power_watts, rows, options),
        upper_watts=_options_first(problem.upper_watts, draws, options),
        pools=pools,
        expected=expected,
        labels=labels,
    )


def with_cap(problem: PlanningProblem, cap_watts: float, *, domain: int) -> PlanningProblem:
    """Return the problem with another cap for one domain, in every period."""
    caps = np.array(problem.cap_watts)
    caps[domain] = cap_watts
    return replace(problem, cap_watts=caps)


def _options_first(table: Any, rows: Any, options: IntArray) -> Any:
    """[..., option] with ``options`` of ``rows`` moved to the front, zeros behind."""
    result = np.array(table)
    moved = np.zeros_like(result[rows])
    moved[..., : len(options)] = result[rows][..., options]
    result[rows] = moved
    return result
