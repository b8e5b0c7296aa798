"""Conditions of a PowerCap: few, each with a reason, each with the time it last turned."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from powercap_operator import times

MESSAGE_CHARACTERS = 1024


class ConditionType(enum.StrEnum):
    """What a PowerCap tells about itself."""

    READY = "Ready"
    """The last cycle planned and, where it may, acted."""
    PLANNER_REACHABLE = "PlannerReachable"
    METRICS_HEALTHY = "MetricsHealthy"
    """Measured watts are there and fresh, and no target lacks data."""
    CAP_HELD = "CapHeld"
    """Measured watts are at or under the cap."""
    CAP_FEASIBLE = "CapFeasible"
    """The cap and all floors can hold together."""


class Truth(enum.StrEnum):
    """A condition's status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition as found in this cycle."""

    type: ConditionType
    status: Truth
    reason: str
    message: str = ""


def merge(
    before: Sequence[Mapping[str, Any]],
    found: Iterable[Condition],
    *,
    now: datetime.datetime,
    generation: int,
) -> list[dict[str, Any]]:
    """Return the list for the status; the time of transition moves only when the status turns."""
    old = {item.get("type"): item for item in before}
    merged = {kind: dict(item) for kind, item in old.items()}
    for condition in found:
        last = old.get(condition.type.value, {})
        turned_at = last.get("lastTransitionTime")
        if last.get("status") != condition.status.value or not turned_at:
            turned_at = times.to_text(now)
        merged[condition.type.value] = {
            "type": condition.type.value,
            "status": condition.status.value,
            "reason": condition.reason,
            "message": condition.message[:MESSAGE_CHARACTERS],
            "lastTransitionTime": turned_at,
            "observedGeneration": generation,
        }
    order = [kind.value for kind in ConditionType]
    return sorted(merged.values(), key=lambda item: _rank(order, str(item.get("type"))))


def _rank(order: Sequence[str], kind: str) -> tuple[int, str]:
    return (order.index(kind) if kind in order else len(order), kind)
