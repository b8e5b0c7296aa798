"""The ladder: exact, else greedy, else the lowest draw; always a plan that keeps what can be kept.

Caps that even the lowest options exceed make the plan ``CAP_INFEASIBLE``: those caps are replaced
by the lowest possible draw, and everything else is planned under that.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import numpy as np

from powercap_solver.compact.backends import backend_solver
from powercap_solver.compact.model import ChoiceSolver
from powercap_solver.context import Context, Stopwatch
from powercap_solver.duals import shadow_prices
from powercap_solver.errors import SolverError
from powercap_solver.fallback import solve_greedily
from powercap_solver.floors import least_caps, lowest_choice, yielded_floors
from powercap_solver.lexicographic import Outcome, solve_stages
from powercap_solver.measures import Measures, measure
from powercap_solver.plan import Plan, PlanStatus, StageResult, StoppedBy, YieldedFloor
from powercap_solver.problem import FloatArray, IntArray, PlanningProblem
from powercap_solver.settings import DEFAULT_SETTINGS, SolveSettings

_LOGGER = logging.getLogger(__name__)

EXACT, GREEDY, LOWEST = "exact", "greedy", "lowest"


def solve(
    problem: PlanningProblem,
    *,
    settings: SolveSettings = DEFAULT_SETTINGS,
    clock: Callable[[], float] | None = None,
    choice_solver: ChoiceSolver | None = None,
) -> Plan:
    """Plan ``problem``; an infeasible cap is a status, never an exception.

    Equal input gives equal choices, objectives and bounds unless a stage says it was stopped by
    the deadline; only ``seconds`` differ.

    Args:
        problem: What to plan.
        settings: Objective, tolerances, deadline, back end.
        clock: Monotonic seconds, for timings and the deadline; default ``time.perf_counter``.
        choice_solver: Takes the place of the back end that ``settings`` names.
    """
    measures = measure(problem)
    context = Context(
        measures=measures,
        settings=settings,
        stopwatch=Stopwatch(
            clock=time.perf_counter if clock is None else clock,
            deadline_seconds=settings.deadline_seconds,
        ),
        solver=choice_solver or backend_solver(settings.backend),
    )
    rung, outcome = EXACT, None
    try:
        outcome = solve_stages(context)
    except SolverError as error:
        _LOGGER.warning("the exact method failed (%s); planning greedily", error)
        rung, outcome = GREEDY, solve_greedily(context)
    if outcome is None:
        return _lowest_plan(measures)
    if measures.is_exceeded.any():
        rung = LOWEST
    return _plan(context, outcome, rung)


def solve_greedy(
    problem: PlanningProblem,
    *,
    settings: SolveSettings = DEFAULT_SETTINGS,
    clock: Callable[[], float] | None = None,
) -> Plan:
    """Plan with the greedy rung alone: the reference that exact methods are compared with."""
    measures = measure(problem)
    watch = Stopwatch(clock=time.perf_counter if clock is None else clock, deadline_seconds=None)
    context = Context(
        measures=measures,
        settings=settings,
        stopwatch=watch,
        solver=backend_solver(settings.backend),
    )
    outcome = solve_greedily(context)
    if outcome is None:
        return _lowest_plan(measures)
    return _plan(context, outcome, LOWEST if measures.is_exceeded.any() else GREEDY)


def _plan(context: Context, outcome: Outcome, rung: str) -> Plan:
    measures = context.measures
    yielded = yielded_floors(measures, outcome.choice)
    low, high = shadow_prices(measures, outcome.kept)
    return _assemble(
        measures,
        choice=outcome.choice,
        status=_status(context, outcome),
        rung=rung,
        stages=tuple(stage.result for stage in outcome.stages),
        stage_choice=np.stack([stage.choice for stage in outcome.stages]),
        prices=(low, high),
        yielded=yielded,
        least_cap_watts=_least_caps(context, yielded),
    )


def _least_caps(context: Context, yielded: tuple[YieldedFloor, ...]) -> FloatArray:
    try:
        return least_caps(context, yielded)
    except SolverError as error:
        _LOGGER.warning("least caps are not known: %s", error)
        return np.full(context.measures.problem.cap_watts.shape, np.nan)


def _status(context: Context, outcome: Outcome) -> PlanStatus:
    if context.measures.is_exceeded.any():
        return PlanStatus.CAP_INFEASIBLE
    gap = context.settings.relative_gap
    results = [stage.result for stage in outcome.stages]
    # A give-back held at the plan in force states by how much it stays below the best.
    is_proven = all(
        result.stopped_by is StoppedBy.PROOF
        and (result.gap <= 1.01 * max(gap, 1e-9) or result.name in ("least_change", "give_back"))
        for result in results
    )
    return PlanStatus.OPTIMAL if is_proven else PlanStatus.FEASIBLE


def _lowest_plan(measures: Measures) -> Plan:
    """Caps that cannot hold together: the lowest draw summed over the domains."""
    choice = lowest_choice(measures)
    _LOGGER.warning("caps %s cannot hold together: lowest draw", measures.problem.domains)
    nothing = np.full(measures.available.shape, np.nan)
    return _assemble(
        measures,
        choice=choice,
        status=PlanStatus.CAP_INFEASIBLE,
        rung=LOWEST,
        stages=(),
        stage_choice=np.zeros((0, len(choice)), dtype=np.int64),
        prices=(nothing, nothing.copy()),
        yielded=yielded_floors(measures, choice),
        least_cap_watts=nothing.copy(),
    )


def _assemble(
    measures: Measures,
    *,
    choice: IntArray,
    status: PlanStatus,
    rung: str,
    stages: tuple[StageResult, ...],
    stage_choice: IntArray,
    prices: tuple[FloatArray, FloatArray],
    yielded: tuple[YieldedFloor, ...],
    least_cap_watts: FloatArray,
) -> Plan:
    problem = measures.problem
    upper = np.zeros(problem.cap_watts.shape)
    for domain, period in np.ndindex(*upper.shape):
        groups = np.nonzero(measures.period == period)[0]
        upper[domain, period] = math.fsum(measures.upper[domain, groups, choice[groups]])
    above_base = problem.base_watts + problem.unmanaged_watts + problem.fixed_watts
    return Plan(
        status=status,
        rung=rung,
        choice=choice.reshape(measures.shape),
        stages=stages,
        upper_watts=upper + above_base,
        headroom_watts=problem.available_watts - upper,
        shadow_price_low=prices[0],
        shadow_price_high=prices[1],
        yielded_floors=yielded,
        least_cap_watts=least_cap_watts,
        stage_choice=stage_choice.reshape((len(stages), *measures.shape)),
    )
