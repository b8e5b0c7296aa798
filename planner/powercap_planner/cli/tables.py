"""Tables on the screen; they take plain rows, so that plans and gRPC answers print alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from powercap_planner.observations import Finding
from powercap_planner.outcome import PlanOutcome
from powercap_solver.measures import CAP_TOLERANCE
from powercap_solver.plan import PlanStatus

_REASON_WIDTH = 130
"""Columns from which the reasons fit beside the numbers."""
_FILE_WIDTH = 150
MOST_CAPS = 20
"""Lines of a table of caps; those with the least headroom are shown."""


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
    option: str = ""
    """Mode and variants of what was chosen, where options have such."""


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
    price_unit: str = "weighted tok/s"
    """What the shadow price counts, per W."""

    @property
    def share(self) -> float:
        """Watts at GPUs and hosts that the cap leaves, for comparing headrooms; more than 0."""
        return max(self.charged_watts + self.headroom_watts, 1.0)


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
    whole_watts: float | None = None
    """Mean W of everything, base included; None: of the first cap."""


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


def print_plan(
    console: Console, rows: PlanRows, *, title: str = "Plan", most_rows: int | None = None
) -> None:
    """Print a plan: one line per deployment, totals, caps, certificate.

    Args:
        console: Where to.
        rows: What.
        title: Above the table.
        most_rows: Deployments that are shown; the totals are always of all. None: all.
    """
    shown = rows.targets[:most_rows]
    is_described = any(one.option for one in rows.targets)
    has_gpus = any(one.gpus for one in rows.targets)
    has_reasons = any(one.reason for one in rows.targets)
    has_room = has_reasons and console.width >= _REASON_WIDTH
    table = Table(title=title, title_justify="left")
    table.add_column("deployment", overflow="fold")
    if has_gpus:
        table.add_column("GPUs")
    table.add_column("load\ntok/s", justify="right")
    table.add_column("replicas\nnow → allowed", justify="right")
    if is_described:
        table.add_column("mode, variants", overflow="fold")
    for heading in ("mean W\nabove base", "upper W\nabove base", "served\ntok/s", "tok/s/W"):
        table.add_column(heading, justify="right")
    if has_room:
        table.add_column("reason", overflow="fold")
    for one in shown:
        table.add_row(
            one.deployment,
            *((one.gpus,) if has_gpus else ()),
            f"{one.load_tps:,.0f}",
            _replicas(one.replicas_now, one.replicas_allowed),
            *((one.option,) if is_described else ()),
            f"{one.planned_watts:,.0f}",
            f"{one.charged_watts:,.0f}",
            f"{one.served_tps:,.0f}",
            _ratio(one.served_tps, one.planned_watts),
            *((one.reason,) if has_room else ()),
        )
    if len(shown) < len(rows.targets):
        table.add_row(f"and {len(rows.targets) - len(shown):,} more")
    table.add_section()
    served = sum(one.served_tps for one in rows.targets)
    # Of the whole: parked GPUs, idle hosts and what is unmanaged draw for these tokens too.
    whole = rows.whole_watts
    if whole is None:
        whole = rows.caps[0].planned_watts if rows.caps else 0.0
    table.add_row(
        "total",
        *(("",) if has_gpus else ()),
        f"{sum(one.load_tps for one in rows.targets):,.0f}",
        _replicas(_sum_now(rows.targets), sum(one.replicas_allowed for one in rows.targets)),
        *(("",) if is_described else ()),
        f"{sum(one.planned_watts for one in rows.targets):,.0f}",
        f"{sum(one.charged_watts for one in rows.targets):,.0f}",
        f"{served:,.0f}",
        _ratio(served, whole),
        *(("tok/s/W: over all watts, base included",) if has_room else ()),
        style="bold",
    )
    console.print(table)
    if has_reasons and not has_room:
        for one in shown:
            console.print(f"{one.deployment}: {one.reason}", highlight=False, markup=False)
    if len(rows.caps) > 1:
        console.print(_cap_table(rows.caps))
    for cap in rows.caps if len(rows.caps) == 1 else ():
        console.print(_cap_text(cap), highlight=False, markup=False, soft_wrap=True)
    gap = "no gap proven" if math.isnan(rows.gap) else f"proven gap {rows.gap:.2g}"
    console.print(f"{rows.status} by {rows.rung}, {gap}", highlight=False, soft_wrap=True)


def print_findings(console: Console, rows: PlanRows) -> None:
    """Print what was missing, doubtful or assumed."""
    for text in rows.findings:
        console.print(f"note: {text}", style="dim", highlight=False, markup=False, soft_wrap=True)


def _ratio(served_tps: float, watts: float) -> str:
    return f"{served_tps / watts:.2f}" if watts > 0 else "-"


def _sum_now(targets: Sequence[TargetRow]) -> int | None:
    known = [one.replicas_now for one in targets if one.replicas_now is not None]
    return sum(known) if known else None


def _replicas(now: int | None, allowed: int) -> str:
    return f"{'-' if now is None else now} → {allowed}"


def _cap_table(caps: Sequence[CapRow]) -> Table:
    """Several caps, those with the least headroom for their size where they are many."""
    table = Table(title="Caps", title_justify="left")
    table.add_column("cap", overflow="fold")
    for heading in ("cap W\nat the meter", "charged W", "headroom W"):
        table.add_column(heading, justify="right")
    table.add_column("binding")
    table.add_column("shadow price\nper W", justify="right")
    has_least = any(one.least_cap_watts is not None for one in caps)
    if has_least:
        table.add_column("least cap W that\nkeeps every floor", justify="right")
    shown = set(range(len(caps)))
    if len(caps) > MOST_CAPS:
        tightest = sorted(shown, key=lambda place: caps[place].headroom_watts / caps[place].share)
        shown = set(tightest[:MOST_CAPS])
    for one in (cap for place, cap in enumerate(caps) if place in shown):
        table.add_row(
            one.name,
            f"{one.cap_watts:,.0f}",
            f"{one.charged_watts:,.0f}",
            f"{one.headroom_watts:,.0f}",
            "yes" if one.is_binding else "no",
            interval_text(one.shadow_price_low, one.shadow_price_high),
            *((_least_watts(one),) if has_least else ()),
        )
    if len(shown) < len(caps):
        table.add_row(f"and {len(caps) - len(shown):,} more")
    return table


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
    unit = "" if math.isnan(cap.least_cap_watts) else " W"
    return f"; least cap that keeps every floor {_least_watts(cap)}{unit}"


def _least_watts(cap: CapRow) -> str:
    if cap.least_cap_watts is None:
        return ""
    known = not math.isnan(cap.least_cap_watts)
    return f"{rounded_up(cap.least_cap_watts, digits=0):,.0f}" if known else "not known"


def rounded_up(value: float, *, digits: int) -> float:
    """Return a least cap or factor as it is shown: what is shown must do."""
    # Computed with a margin within the tolerance of caps, which would show as one more.
    return float(math.ceil(value * (1 - CAP_TOLERANCE) * 10**digits) / 10**digits)


def _shadow_price(cap: CapRow) -> str:
    shown = interval_text(cap.shadow_price_low, cap.shadow_price_high)
    return shown if shown == "not known" else f"{shown} {cap.price_unit} per W"


def interval_text(low: float, high: float) -> str:
    """Return an interval of prices; one number where its ends are alike."""
    if math.isnan(low) or math.isnan(high):
        return "not known"
    return f"{high:.3g}" if high - low <= 1e-9 * max(high, 1.0) else f"{low:.3g} to {high:.3g}"
