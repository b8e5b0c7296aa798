"""The plan of last resort: the lowest option of every deployment."""

from __future__ import annotations

import math

import numpy as np

from powercap_solver.plan import Plan, PlanStatus, YieldedFloor
from powercap_solver.problem import PlanningProblem

LOWEST = "lowest"


def lowest_plan(problem: PlanningProblem) -> Plan:
    """Return the plan that allows the fewest replicas there are options for.

    It claims nothing but its watts: no stage, no bound, no price. Whether it keeps the caps is
    its status.
    """
    shape = problem.load_tps.shape
    upper = np.array(
        [
            [math.fsum(problem.upper_watts[domain, :, period, 0]) for period in range(shape[1])]
            for domain in range(len(problem.domains))
        ]
    ).reshape(problem.cap_watts.shape)
    headroom = problem.available_watts - upper
    unknown = np.full(problem.cap_watts.shape, np.nan)
    fits = bool((headroom >= 0).all())
    return Plan(
        status=PlanStatus.FEASIBLE if fits else PlanStatus.CAP_INFEASIBLE,
        rung=LOWEST,
        choice=np.zeros(shape, dtype=np.int64),
        stages=(),
        upper_watts=upper + problem.base_watts + problem.unmanaged_watts + problem.fixed_watts,
        headroom_watts=headroom,
        shadow_price_low=unknown.copy(),
        shadow_price_high=unknown.copy(),
        yielded_floors=_yielded(problem),
        least_cap_watts=unknown.copy(),
        stage_choice=np.zeros((0, *shape), dtype=np.int64),
    )


def _yielded(problem: PlanningProblem) -> tuple[YieldedFloor, ...]:
    """Return the floors that the lowest options miss."""
    yielded = []
    for row, key in enumerate(problem.deployments):
        replicas = int(problem.replicas[row, 0])
        for period, load in enumerate(problem.load_tps[row]):
            least = int(problem.min_replicas[row])
            if replicas < least:
                yielded.append(_floor(key, period, "min_replicas", least, replicas))
            share = float(problem.min_served_fraction[row])
            served = float(problem.served_tps[row, period, 0]) / load if load > 0 else 1.0
            if served < share:
                yielded.append(_floor(key, period, "min_served_fraction", share, served))
    return tuple(yielded)


def _floor(key: str, period: int, kind: str, required: float, planned: float) -> YieldedFloor:
    return YieldedFloor(
        deployment=key, period=period, kind=kind, required=required, planned=planned
    )
