"""What ``solve`` shows beside the plan's table: periods, stages, what binds, what yielded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from powercap_planner.cli.plan_rows import price_unit
from powercap_planner.cli.questions import Answers, CapAnswer
from powercap_planner.cli.tables import interval_text, rounded_up
from powercap_planner.whatif import listed
from powercap_solver.plan import BindingRow, Plan, PlanStatus
from powercap_solver.problem import PlanningProblem

_MOST_LINES = 12
"""Lines of a list that a large problem would make endless."""
_MOST_CAPS_IN_A_PERIOD = 3
_UNITS = {"pool": "GPUs", "budget": ""}


def print_details(console: Console, problem: PlanningProblem, plan: Plan) -> None:
    """Print every period in a line, the stages, the limits that bind and the floors that gave."""
    if len(problem.period_seconds) > 1:
        console.print(_period_table(problem, plan))
    if plan.stages:
        console.print(_stage_table(plan))
    binding = [_binding_text(problem, plan, row) for row in plan.binding]
    _print_lines(console, binding, "binding limits")
    _print_lines(console, _floor_lines(plan), "yielded floors")
    if not math.isnan(plan.least_common_factor):
        factor = rounded_up(plan.least_common_factor, digits=4)
        _line(console, f"all caps times {factor:.4f} would keep every floor")
    if plan.status is PlanStatus.FEASIBLE:
        _line(console, f"not proven to the gap: {_unproven(plan)}")


def print_answers(console: Console, answers: Answers, *, unit: str) -> None:
    """Print what was asked about the plan."""
    if answers.rates is not None:
        _print_rates(console, answers.rates, unit)
    for one in answers.one_more:
        _line(console, one.sentence)


def period_title(problem: PlanningProblem) -> str:
    """Return what a title adds where a table shows the first period of several."""
    periods = len(problem.period_seconds)
    if periods == 1:
        return ""
    return f", period 0 of {periods} ({problem.period_seconds[0]:,.0f} s)"


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _print_lines(console: Console, lines: Sequence[str], what: str) -> None:
    for text in lines[:_MOST_LINES]:
        _line(console, text)
    if len(lines) > _MOST_LINES:
        _line(console, f"and {len(lines) - _MOST_LINES:,} more {what}")


def _period_table(problem: PlanningProblem, plan: Plan) -> Table:
    table = Table(title="Periods", title_justify="left")
    for heading in (
        "period",
        "s",
        "load\ntok/s",
        "served\ntok/s",
        "replicas",
        "mean W\nabove base",
    ):
        table.add_column(heading, justify="right")
    table.add_column("tightest caps: W charged/allowed (headroom)", overflow="fold")
    deployments = np.arange(len(problem.deployments))
    for period, seconds in enumerate(problem.period_seconds.tolist()):
        chosen = plan.choice[:, period]
        table.add_row(
            str(period),
            f"{seconds:,.0f}",
            f"{problem.load_tps[:, period].sum():,.0f}",
            f"{problem.served_tps[deployments, period, chosen].sum():,.0f}",
            f"{problem.replicas[deployments, chosen].sum():,}",
            f"{problem.power_watts[deployments, period, chosen].sum():,.0f}",
            _caps_text(problem, plan, period),
        )
    return table


def _caps_text(problem: PlanningProblem, plan: Plan, period: int) -> str:
    charged, headroom = plan.upper_watts[:, period], plan.headroom_watts[:, period]
    allowed = charged + headroom
    tightest = np.argsort(headroom / np.maximum(allowed, 1.0), kind="stable")
    texts = [
        f"{problem.domains[domain]} {charged[domain]:,.0f}/{allowed[domain]:,.0f} "
        f"({headroom[domain]:,.0f})"
        for domain in tightest[:_MOST_CAPS_IN_A_PERIOD].tolist()
    ]
    more = len(tightest) - _MOST_CAPS_IN_A_PERIOD
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def _stage_table(plan: Plan) -> Table:
    table = Table(title="Stages", title_justify="left")
    table.add_column("stage")
    for heading in ("objective", "bound", "gap"):
        table.add_column(heading, justify="right")
    table.add_column("method")
    table.add_column("time", justify="right")
    table.add_column("stopped by")
    for stage in plan.stages:
        table.add_row(
            stage.name,
            f"{stage.objective:,.8g}",
            f"{stage.bound:,.8g}",
            f"{stage.gap:.2g}",
            stage.method,
            f"{stage.seconds:.3f} s",
            stage.stopped_by.value,
        )
    return table


def _binding_text(problem: PlanningProblem, plan: Plan, row: BindingRow) -> str:
    unit = _UNITS.get(row.kind, "W")
    when = "" if row.kind == "budget" else f", period {row.period}"
    used = f"{row.used:,.6g} of {row.limit:,.6g} {unit}".rstrip()
    counted = price_unit(problem, plan)
    if row.kind == "cap":
        place = (problem.domains.index(row.name), row.period)
        low, high = float(plan.shadow_price_low[place]), float(plan.shadow_price_high[place])
        # At the meter, as in the other tables.
        price = f" above base; shadow price {interval_text(low, high)} {counted} per W"
    elif row.price > 0:
        price = f"; worth {row.price:.3g} {counted.removesuffix('/s')} per {unit or 'unit'}"
    else:
        price = ""
    return f"binding: {row.kind} {row.name}{when}: {used}{price}"


def _floor_lines(plan: Plan) -> list[str]:
    return [
        f"floor yielded: {one.deployment}, period {one.period}: {one.kind} {one.required:g} asked, "
        f"{one.planned:.4g} planned"
        for one in plan.yielded_floors
    ]


def _unproven(plan: Plan) -> str:
    stages = [
        f"{stage.name} stopped by {stage.stopped_by.value} at gap {stage.gap:.2g}"
        for stage in plan.stages
        if stage.stopped_by.value != "proof"
    ]
    return "; ".join(stages) or f"the plan is the {plan.rung} one"


def _print_rates(console: Console, rates: Sequence[CapAnswer], unit: str) -> None:
    if not rates:
        _line(console, "rates: no cap binds, so none is worth more")
        return
    table = Table(title=f"Rates of caps, {unit} per W at the meter", title_justify="left")
    table.add_column("cap", overflow="fold")
    for heading in (
        "period",
        "cap W",
        "shadow\nprice",
        "rate up",
        "to cap W",
        "rate down",
        "to cap W",
        "free down\nto cap W",
    ):
        table.add_column(heading, justify="right")
    for one in rates:
        found = one.measured
        cells = ["-"] * 5
        if found is not None:
            up, down = found.is_up_proven, found.is_down_proven
            cells = [
                _measured(found.rate_up, f"{found.rate_up:.3g}", is_proven=up),
                _cap(found.larger_cap_watts, is_proven=up),
                _measured(found.rate_down, f"{found.rate_down:.3g}", is_proven=down),
                _cap(found.smaller_cap_watts, is_proven=down),
                _cap(found.kept_cap_watts, is_proven=down),
            ]
        table.add_row(
            one.domain,
            str(one.period),
            f"{one.cap_watts:,.1f}",
            interval_text(one.shadow_price_low, one.shadow_price_high),
            *cells,
        )
    console.print(table)
    if any(one.measured and not _is_proven(one) for one in rates):
        _line(console, "~: not proven, a nearer or better cap may exist")
    _print_lines(console, _rate_reasons(rates), "reasons")


def _is_proven(one: CapAnswer) -> bool:
    found = one.measured
    return found is not None and found.is_up_proven and found.is_down_proven


def _rate_reasons(rates: Sequence[CapAnswer]) -> list[str]:
    about: dict[str, list[str]] = {}
    for one in rates:
        found = one.measured
        reasons = (one.failure,) if found is None else (found.up_reason, found.down_reason)
        # Both directions can have the same one.
        for reason in dict.fromkeys(reason for reason in reasons if reason):
            about.setdefault(reason, []).append(f"{one.domain}, period {one.period}")
    return [f"{reason} ({listed(places)})" for reason, places in about.items()]


def _cap(watts: float, *, is_proven: bool) -> str:
    shown = "" if math.isnan(watts) else f"{rounded_up(watts, digits=1):,.1f}"
    return _measured(watts, shown, is_proven=is_proven)


def _measured(value: float, shown: str, *, is_proven: bool) -> str:
    if math.isnan(value):
        return "-"
    return shown if is_proven else f"~{shown}"
