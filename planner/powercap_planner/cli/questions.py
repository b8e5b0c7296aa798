"""What ``solve --rates`` and ``--one-more`` ask about a plan, within a time for all of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress

from powercap_planner.cli.outcome_json import without_nan
from powercap_planner.cli.plan_rows import price_unit
from powercap_solver.errors import SolverError
from powercap_solver.marginal import CHANGE, CapRates, cap_rates
from powercap_solver.one_more import Counterfactual, Need, one_more_replica
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import SolveSettings

USUAL_SECONDS = 60.0
"""Time for all questions together where no time limit is given."""
_LEAST_SECONDS = 0.2
_MANY_GROUPS = 100
"""Deployments times periods above which the finest differences say nothing (``docs/solver.md``)."""
_COARSE_CHANGE = 1e-4
_MOST_FALLS = 6

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class CapAnswer:
    """Dual and measured rates of a cap that binds."""

    domain: str
    period: int
    cap_watts: float
    shadow_price_low: float
    shadow_price_high: float
    measured: CapRates | None
    failure: str
    """Why nothing could be measured; empty when it could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneMoreAnswer:
    """What one more replica of a deployment needs and costs, in a sentence and in numbers."""

    deployment: str
    sentence: str
    measured: Counterfactual | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """All that was asked."""

    rates: tuple[CapAnswer, ...] | None
    """None where not asked; empty where no cap binds."""
    one_more: tuple[OneMoreAnswer, ...]


def ask(
    problem: PlanningProblem,
    plan: Plan,
    *,
    with_rates: bool,
    one_more: tuple[str, ...],
    settings: SolveSettings,
) -> Answers:
    """Measure the rates of every cap that binds, and what one more replica of some would cost.

    Args:
        problem: What was planned.
        plan: Its plan.
        with_rates: Whether the rates are asked for.
        one_more: Deployments asked about, in the first period.
        settings: The method; its deadline, or a minute, is shared by all questions.
    """
    binding = [
        (problem.domains.index(row.name), row.period) for row in plan.binding if row.kind == "cap"
    ]
    caps = binding if with_rates else []
    change = _COARSE_CHANGE if plan.choice.size > _MANY_GROUPS else CHANGE
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("asking", total=len(caps) + len(one_more))
        limits = _limits(len(caps) + len(one_more), settings)
        rates, more = [], []
        for domain, period in caps:
            name = problem.domains[domain]
            progress.update(task, description=f"rates of {name}, period {period}")
            limit = next(limits)
            asked = partial(cap_rates, domain=name, period=period, settings=limit, change=change)
            measured, failure = _tried(partial(asked, problem, plan))
            rates.append(
                CapAnswer(
                    domain=name,
                    period=period,
                    cap_watts=float(problem.cap_watts[domain, period]),
                    shadow_price_low=float(plan.shadow_price_low[domain, period]),
                    shadow_price_high=float(plan.shadow_price_high[domain, period]),
                    measured=measured,
                    failure=failure,
                )
            )
            progress.advance(task)
        for key in one_more:
            progress.update(task, description=f"one more replica of {key}")
            limit = next(limits)
            more_of = partial(one_more_replica, deployment=key, settings=limit, change=change)
            found, failure = _tried(partial(more_of, problem, plan))
            said = f"one more replica of {key}: not known: {failure}"
            more.append(
                OneMoreAnswer(
                    deployment=key,
                    sentence=said if found is None else sentence(problem, plan, found),
                    measured=found,
                )
            )
            progress.advance(task)
    return Answers(rates=tuple(rates) if with_rates else None, one_more=tuple(more))


def _limits(count: int, settings: SolveSettings) -> Iterator[SolveSettings]:
    """The settings of each question: an equal part of the time that is left."""
    ends_at = time.monotonic() + (settings.deadline_seconds or USUAL_SECONDS)
    for asked in range(count):
        seconds = (ends_at - time.monotonic()) / (count - asked)
        yield replace(settings, deadline_seconds=max(seconds, _LEAST_SECONDS))


def _tried(question: Callable[[], _Answer]) -> tuple[_Answer | None, str]:
    """The answer, or why there is none: the plan is not lost for it."""
    try:
        return question(), ""
    except SolverError as error:
        return None, str(error)


def sentence(problem: PlanningProblem, plan: Plan, found: Counterfactual) -> str:
    """Return what one more replica needs, what it costs and who pays."""
    start = f"one more replica of {found.deployment} ({found.replicas} to {found.larger})"
    if found.larger == found.replicas:
        return f"one more replica of {found.deployment}: {found.reason}"
    needs = _needs_text(found)
    start = f"{start} needs {needs}" if needs else f"{start} needs nothing that is limited"
    if found.reason:
        return f"{start}; it cannot be, or is not known: {found.reason}"
    costs = _cost_text(problem, plan, found)
    if found.binding is None:
        return f"{start}: it fits beside the plan and costs {costs}"
    return f"{start}; the cheapest way to free them costs {costs}: {_falls_text(found)}"


def _needs_text(found: Counterfactual) -> str:
    short = [need for need in found.needs if need.short > 0]
    # Where nothing is short, the limit that would be filled the most.
    wanted = [need for need in found.needs if need.needed > 0]
    widest = sorted(wanted, key=lambda need: need.needed / max(need.left, 1e-9))[-1:]
    return " and ".join(_need_text(need) for need in short or widest)


def _need_text(need: Need) -> str:
    # Watts of curves have decimals that nobody reads; GPUs are whole.
    needed, left = f"{need.needed:,.0f}", f"{max(need.left, 0.0):,.0f}"
    if need.kind == "cap":
        return f"{needed} W of {need.name}, {left} W remain"
    return f"{needed} GPU{'' if needed == '1' else 's'} of {need.name}, {left} remain"


def _cost_text(problem: PlanningProblem, plan: Plan, found: Counterfactual) -> str:
    unit = price_unit(problem, plan)
    error = found.lost_error_per_second
    is_sure = error <= 1e-6 * max(abs(found.lost_per_second), 1.0)
    spread = "" if is_sure else f" (to within {error:,.4g})"
    tokens = f"{found.lost_tps:,.0f} tokens/s"
    if unit == "weighted tok/s" and math.isclose(
        found.lost_per_second, found.lost_tps, rel_tol=1e-6, abs_tol=1e-6
    ):
        return tokens + spread
    # Weights or prices count here: what it costs, and what that is in tokens.
    more = "more" if found.lost_tps < 0 else "fewer"
    tokens = f"{abs(found.lost_tps):,.0f} {more} tokens/s served"
    return f"{found.lost_per_second:,.4g} {unit}{spread}, {tokens}"


def _falls_text(found: Counterfactual) -> str:
    if not found.falls:
        return "nobody has fewer replicas"
    # Who falls in the period asked about comes first.
    falls = sorted(found.falls, key=lambda fall: fall.period != found.period)
    texts = [
        f"{fall.deployment} falls by {fall.replicas}"
        + ("" if fall.period == found.period else f" in period {fall.period}")
        for fall in falls[:_MOST_FALLS]
    ]
    more = len(falls) - _MOST_FALLS
    return ", ".join(texts) + (f" and {more} more fall" if more > 0 else "")


def answers_to_dict(answers: Answers) -> dict[str, Any]:
    """Return the answers as JSON values; what is not known is None."""
    document: dict[str, Any] = {}
    if answers.rates is not None:
        document["rates"] = [asdict(one) for one in answers.rates]
    if answers.one_more:
        document["one_more"] = [asdict(one) for one in answers.one_more]
    return dict(without_nan(document))
