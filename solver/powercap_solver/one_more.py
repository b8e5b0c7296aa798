"""What one more replica of a deployment would take, and from whom: stage 2 solved again with it.

For a deployment and a period, n its replicas in the plan, n' those of its next larger option:

    needs    what that option uses beyond the present one, of each cap and pool, and what is left
    lost     V* less the most that stage 2 is worth with n' or more replicas, all limits kept
    falls    who has fewer replicas than the plan, in the choice of that worth with the fewest such

Floors are kept as the plan keeps them. Where it cannot be, the reason says what stands against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, ChoiceSolver
from powercap_solver.links import Links
from powercap_solver.marginal import CHANGE, NO_STAGE, NOT_FOUND, check_period, place_of
from powercap_solver.plan import Plan, StoppedBy
from powercap_solver.problem import PlanningProblem
from powercap_solver.resolving import Resolver, Solved, resolver_of
from powercap_solver.settings import DEFAULT_SETTINGS, SolveSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What the larger option needs of one limit."""

    kind: str
    """``cap`` (W at GPUs and hosts) or ``pool`` (GPUs)."""
    name: str
    """The domain or the pool."""
    needed: float
    """Beyond what the present option uses."""
    left: float
    """What the plan leaves: of a cap its headroom."""

    @property
    def short(self) -> float:
        """What is missing, at least 0."""
        return max(0.0, self.needed - self.left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fall:
    """A deployment that would have fewer replicas than the plan gives it."""

    deployment: str
    period: int
    replicas: int
    """How many fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterfactual:
    """One more replica: what it needs, what it costs, who pays."""

    deployment: str
    period: int
    replicas: int
    """In the plan."""
    larger: int
    """Of the next larger option; that of the plan where there is none."""
    needs: tuple[Need, ...]
    """Of every cap and pool that the deployment uses."""
    binding: Need | None
    """Of these the one that is short by the largest share; None: it fits beside the plan."""
    lost_per_second: float
    """What stage 2 loses, per second of the period: weighted tokens/s, or the money or utility of
    the objective. NaN when it cannot be, or is not known."""
    lost_error_per_second: float
    """By how much the loss may be off, either way: what the two solves have not proven."""
    lost_tps: float
    """The tokens/s that all deployments together are served less, per second of the period;
    negative when more. NaN like ``lost_per_second``."""
    falls: tuple[Fall, ...]
    reason: str
    """Why it cannot be or is not known; empty when it can."""


def one_more_replica(
    problem: PlanningProblem,
    plan: Plan,
    *,
    deployment: str,
    period: int = 0,
    settings: SolveSettings = DEFAULT_SETTINGS,
    change: float = CHANGE,
    clock: Callable[[], float] | None = None,
    choice_solver: ChoiceSolver | None = None,
) -> Counterfactual:
    """Answer what one more replica of ``deployment`` in ``period`` needs and costs.

    Args:
        problem: What was planned.
        plan: Its plan.
        deployment: Which deployment.
        period: In which period.
        settings: Method and deadline; the gap follows from ``change``.
        change: Relative difference of stage-2 values that counts.
        clock: Monotonic seconds; default ``time.perf_counter``.
        choice_solver: Takes the place of the method that ``settings`` names.

    Raises:
        ProblemError: when there is no such deployment or period.
        SolverError: when the back end fails.
    """
    place = place_of(deployment, problem.deployments, "deployment")
    check_period(problem, period)
    now = int(plan.choice[place, period])
    result = Counterfactual(
        deployment=deployment,
        period=period,
        replicas=int(problem.replicas[place, now]),
        larger=int(problem.replicas[place, now]),
        needs=(),
        binding=None,
        lost_per_second=math.nan,
        lost_error_per_second=math.nan,
        lost_tps=math.nan,
        falls=(),
        reason="",
    )
    is_larger = problem.is_option[place] & (problem.replicas[place] > result.replicas)
    if not is_larger.any():
        return replace(result, reason=f"{deployment} has no option with more replicas")
    resolver = resolver_of(
        problem,
        plan,
        settings=settings,
        change=change,
        clock=clock,
        choice_solver=choice_solver,
    )
    if resolver is None:
        return replace(result, reason=NO_STAGE)
    group = place * len(problem.period_seconds) + period
    larger = _next_larger(resolver, group, is_larger)
    needs = _needs(resolver, plan, group, larger)
    result = replace(
        result,
        larger=int(problem.replicas[place, larger]),
        needs=needs,
        binding=_most_short(needs),
    )
    return _costed(result, resolver, plan, group)


def _next_larger(resolver: Resolver, group: int, is_larger: BoolArray) -> int:
    """The larger option of fewest replicas; of equal ones, that of least upper watts."""
    replicas, charge = resolver.measures.replicas[group], resolver.measures.charge[group]
    order = np.lexsort((charge, replicas))
    return int(order[is_larger[order]][0])


def _needs(resolver: Resolver, plan: Plan, group: int, larger: int) -> tuple[Need, ...]:
    problem = resolver.measures.problem
    choice = plan.choice.ravel()
    needs = []
    for row in resolver.measures.rows:
        at = np.flatnonzero(row.groups == group)
        if row.kind not in ("cap", "pool") or not len(at):
            continue
        uses = row.coefficient[at[0]]
        is_cap = row.kind == "cap"
        if is_cap:
            left = float(plan.headroom_watts[row.place])
        else:
            pools = problem.pools
            assert pools is not None
            left = float(pools.gpu_count[row.place]) - row.used(choice)
        names = problem.domains if problem.pools is None or is_cap else problem.pools.names
        needs.append(
            Need(
                kind=row.kind,
                name=names[row.place[0]],
                needed=float(uses[larger] - uses[choice[group]]),
                # What the cap's tolerance lets a plan exceed it by is nothing to give away.
                left=left if abs(left) > row.slack else 0.0,
            )
        )
    return tuple(needs)


def _most_short(needs: tuple[Need, ...]) -> Need | None:
    short = [need for need in needs if need.needed > 0 and need.short > 0]
    return max(short, key=lambda need: need.short / need.needed, default=None)


def _costed(result: Counterfactual, resolver: Resolver, plan: Plan, group: int) -> Counterfactual:
    measures = resolver.measures
    forced = resolver.kept.allowed.copy()
    forced[group] &= measures.replicas[group] >= result.larger
    solved = resolver.best(rows=resolver.kept.rows, allowed=forced)
    base = resolver.base
    if base.choice is None or (solved.choice is None and not solved.is_proven):
        return replace(result, reason=NOT_FOUND)
    if solved.choice is None:
        return replace(result, reason=_reason(resolver, group, result.larger))
    choice = _with_fewest_falls(resolver, plan, forced, solved, solved.choice)
    seconds = np.tile(measures.problem.period_seconds, measures.shape[0])
    before = measures.pick(measures.served, base.choice)
    tokens = math.fsum(seconds * (before - measures.pick(measures.served, choice)))
    per_second = float(measures.problem.period_seconds[result.period])
    return replace(
        result,
        lost_per_second=max(0.0, base.worth - solved.worth) / per_second,
        lost_error_per_second=max(base.bound - base.worth, solved.bound - solved.worth)
        / per_second,
        lost_tps=tokens / per_second,
        falls=_falls(resolver, plan, choice),
    )


def _fallen(resolver: Resolver, plan: Plan) -> FloatArray:
    """float64[group, option]: replicas fewer than the plan has."""
    replicas, choice = resolver.measures.replicas, plan.choice.ravel()
    planned = replicas[np.arange(len(choice)), choice]
    fallen: FloatArray = np.maximum(0, planned[:, None] - replicas).astype(np.float64)
    return fallen


def _with_fewest_falls(
    resolver: Resolver, plan: Plan, forced: BoolArray, solved: Solved, choice: IntArray
) -> IntArray:
    """int64[group]: of choices worth as much the one that takes fewest replicas from the plan."""
    if not resolver.is_worth_linear:
        return choice
    model = ChoiceModel(
        value=-_fallen(resolver, plan),
        allowed=forced,
        rows=(
            *resolver.kept.rows,
            resolver.worth_row(solved.worth - resolver.delta / 4, forced),
        ),
        hint=choice,
        links=resolver.measures.ramps,
    )
    answer = resolver.context.maximise(model)
    return choice if answer.choice is None else answer.choice


def _falls(resolver: Resolver, plan: Plan, choice: IntArray) -> tuple[Fall, ...]:
    problem = resolver.measures.problem
    fallen = resolver.measures.pick(_fallen(resolver, plan), choice).reshape(plan.choice.shape)
    return tuple(
        Fall(
            deployment=problem.deployments[place],
            period=period,
            replicas=int(fallen[place, period]),
        )
        for place, period in np.argwhere(fallen > 0).tolist()
    )


def _reason(resolver: Resolver, group: int, larger: int) -> str:
    """What stands against ``larger`` replicas: a floor, a ramp, one limit, or several together."""
    measures = resolver.measures
    allowed = measures.allowed.copy()
    allowed[group] &= measures.replicas[group] >= larger
    without_floors = _any_choice(resolver, allowed, measures.ramps)
    if without_floors.choice is not None:
        return "a floor would yield that holds now, or yield further"
    if without_floors.stopped_by is not StoppedBy.PROOF:
        return NOT_FOUND
    if measures.ramps is not None and _any_choice(resolver, allowed, None).choice is not None:
        return "a ramp does not allow it"
    problem = measures.problem
    names = {"pool": () if problem.pools is None else problem.pools.names, "budget": ("budget",)}
    for row in measures.rows:
        uses = np.where(allowed[row.groups], row.coefficient, np.inf)
        if math.fsum(uses.min(axis=1, initial=np.inf)) > row.limit + row.slack:
            if row.kind == "budget":
                return "a budget does not allow it, even with the least of everything else"
            name = names.get(row.kind, problem.domains)[row.place[0]]
            return f"the {row.kind} of {name} does not allow it, even with the least of all others"
    return "the limits do not allow it together"


def _any_choice(resolver: Resolver, allowed: BoolArray, links: Links | None) -> ChoiceAnswer:
    model = ChoiceModel(
        value=np.zeros(allowed.shape),
        allowed=allowed,
        rows=resolver.measures.rows,
        links=links,
    )
    return resolver.context.maximise(model)
