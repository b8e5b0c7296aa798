"""Tables on the screen; they take plain rows, so that plans and gRPC answers print alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from powercap_planner.observations import Finding
from powercap_planner.outcome import PlanOutcome
from powercap_solver.plan import PlanStatus

_REASON_WIDTH = 130
"""Columns from which the reasons fit beside the numbers."""
_FILE_WIDTH = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRow:
    """One deployment of a plan."""

    deployment: str
    gpus: str
    """For example ``2 x H100``, per replica."""
    load_tps: float
    replicas_now: int | None
    replicas_allowed: int
    planned_watts: float
    """Mean W above base."""
    charged_watts: float
    """Upper W above base."""
    served_tps: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CapRow:
    """One cap under a plan; W at GPUs and hosts unless said otherwise."""

    name: str
    cap_watts: float
    """At the meter."""
    charged_watts: float
    planned_watts: float
    base_watts: float
    unmanaged_watts: float
    headroom_watts: float
    shadow_price_low: float
    shadow_price_high: float
    is_binding: bool
    least_cap_watts: float | None
    """Least cap at the meter that keeps every floor, NaN when not known; None when all are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRows:
    """All that the screen shows of a plan."""

    targets: tuple[TargetRow, ...]
    caps: tuple[CapRow, ...]
    status: str
    rung: str
    gap: float
    """Largest relative gap of the stages that were proven or tried; NaN without any stage."""
    findings: tuple[str, ...] = ()


def screen() -> Console:
    """Return the console to print to; a pipe or file gets lines wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, _FILE_WIDTH))


def rows_of(outcome: PlanOutcome) -> PlanRows:
    """Return the rows of a plan."""
    return PlanRows(
        targets=tuple(
            TargetRow(
                deployment=f"{one.namespace}/{one.name}",
                gpus=gpus_text(one.gpus_per_replica, one.gpu_type),
                load_tps=one.load_tps,
                replicas_now=one.replicas_now,
                replicas_allowed=one.replicas,
                planned_watts=one.planned_watts,
                charged_watts=one.charged_watts,
                served_tps=one.served_tps,
                reason=one.reason,
            )
            for one in outcome.targets
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
                    one.least_cap_watts,
                    is_kept=outcome.plan.status is not PlanStatus.CAP_INFEASIBLE
                    and not outcome.plan.yielded_floors,
                ),
            )
            for one in outcome.caps
        ),
        status=outcome.plan.status.value,
        rung=outcome.plan.rung,
        gap=max((stage.gap for stage in outcome.plan.stages), default=math.nan),
        findings=finding_lines(outcome.findings),
    )


def shown_least_cap(watts: float | None, *, is_kept: bool) -> float | None:
    """Return what a row says of the least cap: nothing where every floor is kept."""
    if is_kept:
        return None
    return math.nan if watts is None else watts


def finding_lines(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return one line per thing found; what is said of several deployments is said once."""
    about: dict[tuple[str, str], list[str]] = {}
    for one in findings:
        names = about.setdefault((one.reason, one.message), [])
        if one.deployment and one.deployment not in names:
            names.append(one.deployment)
    return tuple(
        f"{reason}: {message}" + (f" ({', '.join(names)})" if names else "")
        for (reason, message), names in about.items()
    )


def gpus_text(gpus_per_replica: int, gpu_type: str) -> str:
    """Return the GPUs of a replica for a table."""
    count = str(gpus_per_replica) if gpus_per_replica else "?"
    return f"{count} x {gpu_type or 'unknown'}"


def print_plan(console: Console, rows: PlanRows, *, title: str = "Plan") -> None:
    """Print a plan: one line per deployment, totals, caps, certificate."""
    has_room = console.width >= _REASON_WIDTH
    table = Table(title=title, title_justify="left")
    table.add_column("deployment", overflow="fold")
    table.add_column("GPUs")
    table.add_column("load\ntok/s", justify="right")
    table.add_column("replicas\nnow → allowed", justify="right")
    for heading in ("mean W\nabove base", "upper W\nabove base", "served\ntok/s", "tok/s/W"):
        table.add_column(heading, justify="right")
    if has_room:
        table.add_column("reason", overflow="fold")
    for one in rows.targets:
        table.add_row(
            one.deployment,
            one.gpus,
            f"{one.load_tps:,.0f}",
            _replicas(one.replicas_now, one.replicas_allowed),
            f"{one.planned_watts:,.0f}",
            f"{one.charged_watts:,.0f}",
            f"{one.served_tps:,.0f}",
            _ratio(one.served_tps, one.planned_watts),
            *((one.reason,) if has_room else ()),
        )
    table.add_section()
    served = sum(one.served_tps for one in rows.targets)
    # Of the whole: parked GPUs, idle hosts and what is unmanaged draw for these tokens too.
    whole = rows.caps[0].planned_watts if rows.caps else 0.0
    table.add_row(
        "total",
        "",
        f"{sum(one.load_tps for one in rows.targets):,.0f}",
        _replicas(_sum_now(rows.targets), sum(one.replicas_allowed for one in rows.targets)),
        f"{sum(one.planned_watts for one in rows.targets):,.0f}",
        f"{sum(one.charged_watts for one in rows.targets):,.0f}",
        f"{served:,.0f}",
        _ratio(served, whole),
        *(("tok/s/W: over all watts, base included",) if has_room else ()),
        style="bold",
    )
    console.print(table)
    if not has_room:
        for one in rows.targets:
            console.print(f"{one.deployment}: {one.reason}", highlight=False, markup=False)
    for cap in rows.caps:
        console.print(_cap_text(cap), highlight=False, soft_wrap=True)
    gap = "no gap proven" if math.isnan(rows.gap) else f"proven gap {rows.gap:.2g}"
    console.print(f"{rows.status} by {rows.rung}, {gap}", highlight=False, soft_wrap=True)


def print_findings(console: Console, rows: PlanRows) -> None:
    """Print what was missing, doubtful or assumed."""
    for text in rows.findings:
        console.print(f"note: {text}", style="dim", highlight=False, markup=False, soft_wrap=True)


def print_difference(console: Console, before: PlanRows, after: PlanRows) -> None:
    """Print what a what-if changes against the unchanged plan."""
    table = Table(title="Difference from the unchanged plan", title_justify="left")
    table.add_column("deployment")
    for heading in ("allowed", "mean W", "served tok/s"):
        table.add_column(heading, justify="right")
        table.add_column("change", justify="right")
    old = {one.deployment: one for one in before.targets}
    for one in after.targets:
        was = old[one.deployment]
        table.add_row(
            one.deployment,
            *_change(was.replicas_allowed, one.replicas_allowed),
            *_change(was.planned_watts, one.planned_watts),
            *_change(was.served_tps, one.served_tps),
        )
    table.add_section()
    for name, values in (
        ("total", _totals(before.targets, after.targets)),
        ("cap W", _caps(before.caps, after.caps, "cap_watts")),
        ("charged W", _caps(before.caps, after.caps, "charged_watts")),
        ("headroom W", _caps(before.caps, after.caps, "headroom_watts")),
    ):
        table.add_row(name, *values)
    console.print(table)


def _totals(before: Sequence[TargetRow], after: Sequence[TargetRow]) -> tuple[str, ...]:
    return (
        *_change(
            sum(one.replicas_allowed for one in before), sum(one.replicas_allowed for one in after)
        ),
        *_change(sum(one.planned_watts for one in before), sum(one.planned_watts for one in after)),
        *_change(sum(one.served_tps for one in before), sum(one.served_tps for one in after)),
    )


def _caps(before: Sequence[CapRow], after: Sequence[CapRow], field: str) -> tuple[str, ...]:
    was, now = (float(sum(getattr(one, field) for one in caps)) for caps in (before, after))
    return ("", "", *_change(was, now), "", "")


def _change(was: float, now: float) -> tuple[str, str]:
    changed = round(now) - round(was)
    return f"{now:,.0f}", f"{changed:+,.0f}" if changed else "="


def _ratio(served_tps: float, watts: float) -> str:
    return f"{served_tps / watts:.2f}" if watts > 0 else "-"


def _sum_now(targets: Sequence[TargetRow]) -> int | None:
    known = [one.replicas_now for one in targets if one.replicas_now is not None]
    return sum(known) if known else None


def _replicas(now: int | None, allowed: int) -> str:
    return f"{'-' if now is None else now} → {allowed}"


def _cap_text(cap: CapRow) -> str:
    binding = "binding" if cap.is_binding else "not binding"
    return (
        f"cap {cap.name}: {cap.cap_watts:,.0f} W, {binding}; charged {cap.charged_watts:,.0f} W "
        f"(base {cap.base_watts:,.0f} W, unmanaged {cap.unmanaged_watts:,.0f} W), "
        f"headroom {cap.headroom_watts:,.0f} W; shadow price {_shadow_price(cap)}{_least_cap(cap)}"
    )


def _least_cap(cap: CapRow) -> str:
    if cap.least_cap_watts is None:
        return ""
    # Rounded up: a cap of the watts that are shown must do.
    known = not math.isnan(cap.least_cap_watts)
    shown = f"{math.ceil(cap.least_cap_watts):,} W" if known else "not known"
    return f"; least cap that keeps every floor {shown}"


def _shadow_price(cap: CapRow) -> str:
    low, high = cap.shadow_price_low, cap.shadow_price_high
    if math.isnan(low) or math.isnan(high):
        return "not known"
    shown = f"{high:.3g}" if high - low <= 1e-9 * max(high, 1.0) else f"{low:.3g} to {high:.3g}"
    return f"{shown} weighted tok/s per W"
