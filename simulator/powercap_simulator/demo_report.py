"""What the demo prints of plans, models and the day."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from powercap_planner.cli.tables import (
    CapRow,
    PlanRows,
    TargetRow,
    gpus_text,
    shown_least_cap,
)
from powercap_proto.v1 import planner_pb2 as pb
from powercap_simulator.control import CapSchedule, PlannedCycle
from powercap_simulator.outcome import Amounts, Course, amounts_of, worst_excess_watts

_KILOWATT_HOUR_JOULES = 3.6e6


def plan_rows(cycle: PlannedCycle) -> PlanRows:
    """Return the rows of a plan that came over gRPC."""
    present = {(one.namespace, one.name): one.present_replicas for one in cycle.request.deployments}
    response = cycle.response
    return PlanRows(
        targets=tuple(
            TargetRow(
                deployment=f"{one.namespace}/{one.name}",
                gpus=gpus_text(one.gpus_per_replica, one.gpu_type),
                load_tps=one.load_tps,
                replicas_now=present[one.namespace, one.name],
                replicas_allowed=one.optimal_replicas,
                planned_watts=one.planned_watts,
                charged_watts=one.charged_watts,
                served_tps=one.served_tps,
                reason=one.reason,
            )
            for one in response.deployment_replicas
        ),
        caps=tuple(
            CapRow(
                name=one.name,
                cap_watts=one.cap_watts,
                charged_watts=one.charged_watts,
                planned_watts=one.planned_watts,
                base_watts=one.base_watts,
                unmanaged_watts=one.unmanaged_watts,
                headroom_watts=one.headroom_watts,
                shadow_price_low=one.shadow_price_low,
                shadow_price_high=one.shadow_price_high,
                is_binding=one.is_binding,
                least_cap_watts=shown_least_cap(
                    one.least_cap_watts or None,
                    is_kept=response.status != "cap_infeasible" and not response.yielded_floors,
                ),
            )
            for one in response.caps
        ),
        status=response.status,
        rung=response.rung,
        gap=max((stage.gap for stage in response.stages), default=math.nan),
    )


def print_models(console: Console, status: pb.GetStatusResponse) -> None:
    """Print how well the planner's power curves fit."""
    table = Table(title="Power curves the planner learned", title_justify="left")
    table.add_column("deployment")
    table.add_column("curve")
    for heading in ("windows", "error on held-out windows", "load seen per replica, tok/s"):
        table.add_column(heading, justify="right")
    for one in status.models:
        table.add_row(
            one.deployment,
            one.kind,
            str(one.samples),
            f"{one.error_fraction:.1%}",
            f"{one.support_low_tps:,.0f} to {one.support_high_tps:,.0f}",
        )
    console.print(table)


def print_course(console: Console, *, capped: Course, free: Course, schedule: CapSchedule) -> None:
    """Print what the day amounted to, by spans of one cap."""
    table = Table(title="The day under its cap, and without", title_justify="left")
    table.add_column("span")
    for heading in (
        "cap W",
        "most W (60 s)",
        "over the cap",
        "asked Mtok",
        "served Mtok",
        "served",
        "energy kWh",
        "tok/J",
        "without cap: most W",
        "served Mtok",
        "tok/J",
    ):
        table.add_column(heading, justify="right")
    for name, start, end in _spans(capped, schedule):
        part = capped.between(start, end)
        table.add_row(
            name,
            f"{schedule.at(start):,.0f}",
            *_amounts(part, schedule),
            *_without(amounts_of(free.between(start, end))),
        )
    table.add_section()
    table.add_row(
        "whole day", "", *_amounts(capped, schedule), *_without(amounts_of(free)), style="bold"
    )
    console.print()
    console.print(table)


def _spans(course: Course, schedule: CapSchedule) -> list[tuple[str, float, float]]:
    begin, end = float(course.time_seconds[0]) - 60.0, float(course.time_seconds[-1])
    spans = []
    for event in schedule.events:
        spans.append(("before the event", begin, event.start_seconds))
        spans.append(("event", event.start_seconds, event.end_seconds))
        begin = event.end_seconds
    spans.append(("after the event", begin, end))
    return [span for span in spans if span[2] > span[1]]


def _amounts(course: Course, schedule: CapSchedule) -> tuple[str, ...]:
    amounts = amounts_of(course)
    excess = worst_excess_watts(course, schedule)
    return (
        f"{amounts.most_watts:,.0f}",
        f"{excess:,.0f} W" if excess > 0 else "never",
        f"{amounts.asked_tokens / 1e6:,.1f}",
        f"{amounts.served_tokens / 1e6:,.1f}",
        f"{amounts.served_fraction:.1%}",
        f"{amounts.energy_joules / _KILOWATT_HOUR_JOULES:,.1f}",
        f"{amounts.tokens_per_joule:.3f}",
    )


def _without(amounts: Amounts) -> tuple[str, ...]:
    return (
        f"{amounts.most_watts:,.0f}",
        f"{amounts.served_tokens / 1e6:,.1f}",
        f"{amounts.tokens_per_joule:.3f}",
    )
