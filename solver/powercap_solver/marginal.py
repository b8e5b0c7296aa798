"""What the next caps are worth at which stage 2 changes, measured by solving it there.

For a domain c and a period t, with V(b) the most that stage 2 is worth when the options may
use b watts of c in t, everything else as given, V* that of the plan, and M(b) the cap at the meter
that leaves b watts:

    next larger     b1 = least use of the row with value > V*
                    rate up = (V(b1) - V*) / (M(b1) - cap)
    kept            b0 = least use of the row with value >= V*: below it V* is lost
    next smaller    V2 = V(less than b0), b2 = least use of the row with value >= V2
                    rate down = (V* - V2) / (cap - M(b2))

V is a staircase: b1, b0 and b2 are the left ends of its next, its present and its last step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from powercap_solver.compact.model import ChoiceSolver
from powercap_solver.errors import ProblemError
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem
from powercap_solver.resolving import Resolver, Solved, meter_watts, resolver_of
from powercap_solver.settings import DEFAULT_SETTINGS, SolveSettings

CHANGE = 1e-6
"""Relative difference of stage-2 values that counts as a change. With hundreds of deployments
some choice nearly always differs by less than that: ask for 1e-4 there."""
NO_STAGE = "the plan has no stage 'served': its limits cannot hold together, or nothing solved it"
NOT_FOUND = "nothing was found: the time or the method's effort ended before"
_MOST_REBASED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CapRates:
    """What the next larger and smaller cap of a domain in a period are worth to stage 2.

    Watts are caps at the meter. Values are of stage 2 per second of the period: weighted
    tokens/s, or the money or utility of the objective. What is not known is NaN, with the reason.
    """

    domain: str
    period: int
    cap_watts: float
    value_per_second: float
    """V*, of all periods."""
    larger_cap_watts: float
    """The least cap at which stage 2 is worth more."""
    larger_value_per_second: float
    rate_up: float
    """Value per second and watt from the cap to the larger one."""
    is_up_proven: bool
    """That no cap between the present one and the larger (any, where it is NaN) is worth more;
    else one may be."""
    up_reason: str
    """Why the numbers are NaN; empty when they are not."""
    kept_cap_watts: float
    """The least cap with which the value stays: between it and the cap watts are free."""
    smaller_cap_watts: float
    """The least cap at which stage 2 is worth the next smaller value."""
    smaller_value_per_second: float
    """Of every cap from there to just below ``kept_cap_watts``."""
    rate_down: float
    """Value per second and watt from the smaller cap to the cap."""
    is_down_proven: bool
    """That both caps are the least such, and the value the best there; else they may be lower."""
    down_reason: str
    """Why the last three numbers are NaN; empty when they are not."""


def cap_rates(
    problem: PlanningProblem,
    plan: Plan,
    *,
    domain: str,
    period: int = 0,
    settings: SolveSettings = DEFAULT_SETTINGS,
    change: float = CHANGE,
    clock: Callable[[], float] | None = None,
    choice_solver: ChoiceSolver | None = None,
) -> CapRates:
    """Measure what the next caps at which the value of stage 2 changes are worth.

    Floors are kept as ``plan`` keeps them; with assurance Expected so is kappa.

    Args:
        problem: What was planned.
        plan: Its plan.
        domain: Whose cap.
        period: In which period.
        settings: Method and deadline; the gap follows from ``change``.
        change: Relative difference of values that counts as a change.
        clock: Monotonic seconds; default ``time.perf_counter``.
        choice_solver: Takes the place of the method that ``settings`` names.

    Raises:
        ProblemError: when there is no such domain or period.
        SolverError: when the back end fails.
    """
    row = place_of(domain, problem.domains, "domain")
    check_period(problem, period)
    resolver = resolver_of(
        problem, plan, settings=settings, change=change, clock=clock, choice_solver=choice_solver
    )
    rates = _unknown(problem, domain, row, period)
    if resolver is None:
        return replace(rates, up_reason=NO_STAGE, down_reason=NO_STAGE)
    if resolver.base.choice is None:
        return replace(rates, up_reason=NOT_FOUND, down_reason=NOT_FOUND)
    hard_row = row * len(problem.period_seconds) + period
    seconds = float(problem.period_seconds[period])
    resolver, larger = _larger(resolver, hard_row)
    rates = replace(rates, value_per_second=resolver.base.worth / seconds)
    rates = _upwards(rates, resolver, hard_row, larger, seconds)
    return _downwards(rates, resolver, hard_row, seconds)


def _larger(resolver: Resolver, place: int) -> tuple[Resolver, Solved]:
    """The least use of the row that is worth more, and stage 2 as that leaves it."""
    row = resolver.kept.rows[place]
    for _ in range(_MOST_REBASED):
        found = resolver.least_used(place, at_least=resolver.base.worth + resolver.delta)
        if found.choice is None or not row.holds(found.choice):
            return resolver, found
        # It keeps the cap as it is, within the slack that methods use a part of only: what was
        # taken for the best was not.
        bound = max(found.worth, resolver.base.bound)
        resolver = replace(resolver, base=replace(found, bound=bound))
    return resolver, replace(found, choice=None, is_proven=False)


def _upwards(
    rates: CapRates, resolver: Resolver, place: int, found: Solved, seconds: float
) -> CapRates:
    row = resolver.kept.rows[place]
    if found.choice is None:
        reason = f"no larger cap of {rates.domain} is worth more, the other limits as given"
        if not found.is_proven:
            return replace(rates, up_reason=NOT_FOUND)
        return replace(rates, up_reason=reason, is_up_proven=True)
    used = row.used(found.choice)
    there = resolver.with_limit(place, used)
    worth = max(there.worth, found.worth)
    cap = meter_watts(resolver.measures.problem, *_at(row.place), used)
    return replace(
        rates,
        larger_cap_watts=cap,
        larger_value_per_second=worth / seconds,
        rate_up=(worth - resolver.base.worth) / seconds / (cap - rates.cap_watts),
        is_up_proven=resolver.base.is_proven and found.is_proven and there.is_proven,
    )


def _downwards(rates: CapRates, resolver: Resolver, place: int, seconds: float) -> CapRates:
    problem = resolver.measures.problem
    row = resolver.kept.rows[place]
    base = resolver.base.worth
    kept = resolver.least_used(place, at_least=base - resolver.delta / 4)
    now = resolver.base.choice
    if kept.choice is None or (now is not None and row.used(now) < row.used(kept.choice)):
        # Stage 2 itself is worth that: only time can be the reason for not finding as little.
        kept = replace(resolver.base, is_proven=False)
    if kept.choice is None:
        return replace(rates, down_reason=NOT_FOUND)
    used = row.used(kept.choice)
    rates = replace(rates, kept_cap_watts=meter_watts(problem, *_at(row.place), used))
    below = resolver.with_limit(place, used - resolver.margin(place))
    if below.choice is None:
        reason = (
            f"no plan with less of {rates.domain} keeps the other limits and the floors that hold"
        )
        if not below.is_proven:
            return replace(rates, down_reason=NOT_FOUND)
        return replace(rates, down_reason=reason, is_down_proven=kept.is_proven)
    smaller = resolver.least_used(place, at_least=below.worth - resolver.delta / 4)
    if smaller.choice is None:
        return replace(rates, down_reason=NOT_FOUND)
    cap = meter_watts(problem, *_at(row.place), row.used(smaller.choice))
    solves = (resolver.base, kept, below, smaller)
    return replace(
        rates,
        smaller_cap_watts=cap,
        smaller_value_per_second=below.worth / seconds,
        rate_down=(base - below.worth) / seconds / (rates.cap_watts - cap),
        is_down_proven=all(each.is_proven for each in solves),
    )


def place_of(name: str, names: tuple[str, ...], kind: str) -> int:
    """Return the place of ``name``.

    Raises:
        ProblemError: when it is not there.
    """
    if name not in names:
        raise ProblemError(f"{kind} {name!r} is not in the problem; it has {', '.join(names)}")
    return names.index(name)


def check_period(problem: PlanningProblem, period: int) -> None:
    """Refuse a period that does not exist.

    Raises:
        ProblemError: naming it.
    """
    periods = len(problem.period_seconds)
    if not 0 <= period < periods:
        raise ProblemError(f"period is {period}; accepted: 0 to {periods - 1}")


def _at(place: tuple[int, ...]) -> tuple[int, int]:
    return place[0], place[1]


def _unknown(problem: PlanningProblem, domain: str, row: int, period: int) -> CapRates:
    return CapRates(
        domain=domain,
        period=period,
        cap_watts=float(problem.cap_watts[row, period]),
        value_per_second=math.nan,
        larger_cap_watts=math.nan,
        larger_value_per_second=math.nan,
        rate_up=math.nan,
        is_up_proven=False,
        up_reason="",
        kept_cap_watts=math.nan,
        smaller_cap_watts=math.nan,
        smaller_value_per_second=math.nan,
        rate_down=math.nan,
        is_down_proven=False,
        down_reason="",
    )
