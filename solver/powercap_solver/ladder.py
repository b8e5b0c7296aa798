"""The ladder: fast, else compact, else greedy, else the plan in force, else the lowest draw.

Every plan is checked (``certificate.verify``) before it leaves; one that fails the check, like a
method that fails, gives way to the next rung. Limits that even the lowest options exceed make the
plan ``CAP_INFEASIBLE``: they are replaced by the lowest possible use, and everything else is
planned under that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from powercap_solver.certificate import verify
from powercap_solver.compact.model import ChoiceSolver
from powercap_solver.context import Context, Stopwatch
from powercap_solver.errors import SolverError
from powercap_solver.kappa import is_expected_kept, raised_kappa, starting_kappa
from powercap_solver.measures import Measures, measure
from powercap_solver.methods import method_solver
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem
from powercap_solver.rungs import COMPACT, FAST, GREEDY, lowest_plan, plan_in_force, solve_rung
from powercap_solver.settings import DEFAULT_SETTINGS, Method, SolveSettings
from powercap_solver.warm import WarmStart, usable

_LOGGER = logging.getLogger(__name__)

_FIRST_SHARE = 0.6
"""Of the deadline, what the first method may use when another can follow."""
_KAPPA_ROUNDS = 8


def solve(
    problem: PlanningProblem,
    *,
    settings: SolveSettings = DEFAULT_SETTINGS,
    clock: Callable[[], float] | None = None,
    method_of: Callable[[Method], ChoiceSolver] = method_solver,
    warm: WarmStart | None = None,
) -> Plan:
    """Plan ``problem``; an infeasible cap is a status, never an exception.

    Equal input gives equal choices, objectives and bounds unless a stage says it was stopped by
    the deadline; only ``seconds`` differ.

    Args:
        problem: What to plan.
        settings: Objective, tolerances, deadline, method.
        clock: Monotonic seconds, for timings and the deadline; default ``time.perf_counter``.
        method_of: Gives the solver of a method; for tests of what happens when one fails.
        warm: Where to start from (``warm.warm_start_of`` the last plan); changes no bound.

    Raises:
        ProblemError: when the problem lacks what the objective needs.
    """
    watch = Stopwatch(
        clock=time.perf_counter if clock is None else clock,
        deadline_seconds=settings.deadline_seconds,
    )
    measures = measure(problem, settings.objective, kappa=starting_kappa(problem))
    for rung, solver, share in _methods(settings, method_of):
        context = _context(measures, settings, watch, solver, share, warm)
        plan = _verified(problem, rung, partial(_planned, context, rung))
        if plan is not None:
            return plan
    context = _context(measures, settings, watch, method_of(Method.GREEDY), 1.0, None)
    plan = _verified(problem, "in force", lambda: plan_in_force(context))
    if plan is not None:
        return plan
    plan = lowest_plan(context)
    for sentence in verify(problem, plan):
        # Nothing draws less: the plan stands, but nobody shall think it was checked and good.
        _LOGGER.error("the lowest draw is not what it claims: %s", sentence)
    return plan


def solve_greedy(
    problem: PlanningProblem,
    *,
    settings: SolveSettings = DEFAULT_SETTINGS,
    clock: Callable[[], float] | None = None,
) -> Plan:
    """Plan with the greedy rung first: the reference that exact methods are compared with."""
    return solve(problem, settings=replace(settings, method=Method.GREEDY), clock=clock)


def solve_lowest(problem: PlanningProblem) -> Plan:
    """Plan the lowest draw of every deployment: it claims nothing but its watts."""
    watch = Stopwatch(clock=time.perf_counter, deadline_seconds=None)
    solver = method_solver(Method.GREEDY)
    return lowest_plan(_context(measure(problem), DEFAULT_SETTINGS, watch, solver, 1.0, None))


def _methods(
    settings: SolveSettings, method_of: Callable[[Method], ChoiceSolver]
) -> Iterator[tuple[str, ChoiceSolver, float]]:
    """Rungs with their method and the share of the deadline each may use."""
    if settings.method is Method.GREEDY:
        yield GREEDY, method_of(Method.GREEDY), 1.0
        return
    first = COMPACT if settings.method is not Method.FAST else FAST
    yield first, method_of(settings.method), _FIRST_SHARE
    if settings.method is Method.FAST:
        yield COMPACT, method_of(Method.HIGHS), 1.0
    yield GREEDY, method_of(Method.GREEDY), 1.0


def _context(
    measures: Measures,
    settings: SolveSettings,
    watch: Stopwatch,
    solver: ChoiceSolver,
    share: float,
    warm: WarmStart | None,
) -> Context:
    deadline = settings.deadline_seconds
    if deadline is not None:
        now = watch.seconds()
        deadline = now + share * max(0.0, deadline - now)
    part = Stopwatch(clock=watch.clock, deadline_seconds=deadline)
    part.started = watch.started
    return Context(
        measures=measures,
        settings=settings,
        stopwatch=part,
        solver=solver,
        warm=usable(warm, measures.problem, len(measures.rows)),
    )


def _verified(
    problem: PlanningProblem, rung: str, attempt: Callable[[], Plan | None]
) -> Plan | None:
    """The plan of a rung; None when it fails or its plan is not what it claims."""
    try:
        plan = attempt()
    except SolverError as error:
        _LOGGER.warning("rung %s failed (%s); trying the next", rung, error)
        return None
    except (ArithmeticError, MemoryError) as error:
        _LOGGER.warning("rung %s broke down (%s); trying the next", rung, error)
        return None
    if plan is None:
        return None
    wrong = verify(problem, plan)
    if wrong:
        _LOGGER.error("rung %s gave a plan that is wrong (%s); trying the next", rung, wrong[0])
        return None
    return plan


def _planned(context: Context, rung: str) -> Plan | None:
    """All stages; with assurance Expected again until the aggregate bound of the plan holds."""
    plan = _one(context, rung)
    if context.measures.problem.expected is None:
        return plan
    for _ in range(_KAPPA_ROUNDS):
        if plan.stages == () or is_expected_kept(context.measures, plan):
            return plan
        kappa = raised_kappa(context.measures, plan)
        _LOGGER.info("the aggregate bound is over a cap: kappa up to %.4g", kappa.max())
        measures = measure(context.measures.problem, context.measures.objective, kappa=kappa)
        context = replace(context, measures=measures, warm=None)
        plan = _one(context, rung)
    raise SolverError("the aggregate bound of assurance Expected was not reached")


def _one(context: Context, rung: str) -> Plan:
    plan = solve_rung(context, rung)
    return lowest_plan(context) if plan is None else plan
