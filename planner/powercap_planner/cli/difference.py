"""The table of what a what-if changes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from powercap_planner.cli.tables import MOST_CAPS, CapRow, PlanRows, TargetRow


def print_difference(
    console: Console, before: PlanRows, after: PlanRows, *, most_rows: int | None = None
) -> None:
    """Print what a what-if changes against the unchanged plan.

    Args:
        console: Where to.
        before: The unchanged plan.
        after: The plan as asked.
        most_rows: Above so many deployments only changed ones are shown, at most so many.
    """
    table = Table(title="Difference from the unchanged plan", title_justify="left")
    table.add_column("deployment")
    for heading in ("allowed", "mean W", "served tok/s"):
        table.add_column(heading, justify="right")
        table.add_column("change", justify="right")
    old = {one.deployment: one for one in before.targets}
    shown = after.targets
    if most_rows is not None and len(shown) > most_rows:
        changed = [one for one in shown if _is_changed(old[one.deployment], one)]
        shown = tuple(changed[:most_rows])
    for one in shown:
        was = old[one.deployment]
        table.add_row(
            one.deployment,
            *_change(was.replicas_allowed, one.replicas_allowed),
            *_change(was.planned_watts, one.planned_watts),
            *_change(was.served_tps, one.served_tps),
        )
    if len(shown) < len(after.targets):
        table.add_row(f"and {len(after.targets) - len(shown):,} others")
    table.add_section()
    table.add_row("total", *_totals(before.targets, after.targets))
    for was_cap, cap in _shown_caps(before.caps, after.caps):
        # Caps may stand within each other: their sum would be of nothing.
        name = f" {cap.name}" if len(after.caps) > 1 else ""
        for what, field in (
            ("cap W", "cap_watts"),
            ("charged W", "charged_watts"),
            ("headroom W", "headroom_watts"),
        ):
            change = _change(float(getattr(was_cap, field)), float(getattr(cap, field)))
            table.add_row(what + name, "", "", *change, "", "")
    console.print(table)


def _is_changed(before: TargetRow, after: TargetRow) -> bool:
    return any(
        getattr(before, field) != getattr(after, field)
        for field in ("replicas_allowed", "planned_watts", "served_tps", "option")
    )


def _shown_caps(
    before: Sequence[CapRow], after: Sequence[CapRow]
) -> Sequence[tuple[CapRow, CapRow]]:
    """The only cap, or of several the first that changed."""
    pairs = list(zip(before, after, strict=True))
    if len(pairs) == 1:
        return pairs
    changed = [
        (was, now)
        for was, now in pairs
        if was.cap_watts != now.cap_watts or was.charged_watts != now.charged_watts
    ]
    return changed[:MOST_CAPS]


def _totals(before: Sequence[TargetRow], after: Sequence[TargetRow]) -> tuple[str, ...]:
    return (
        *_change(
            sum(one.replicas_allowed for one in before), sum(one.replicas_allowed for one in after)
        ),
        *_change(sum(one.planned_watts for one in before), sum(one.planned_watts for one in after)),
        *_change(sum(one.served_tps for one in before), sum(one.served_tps for one in after)),
    )


def _change(was: float, now: float) -> tuple[str, str]:
    changed = round(now) - round(was)
    return f"{now:,.0f}", f"{changed:+,.0f}" if changed else "="
