"""The planner's answers as values: the plan, and what is measured against the cap."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping
from dataclasses import dataclass

from powercap_operator.policy import Cap

WorkloadKey = tuple[str, str]
"""Namespace and name of a scaled workload, which is how the planner names targets."""


class PlanStatus(enum.StrEnum):
    """What the planner says about one target."""

    PLANNED = "Planned"
    HELD = "Held"
    """Data is missing: never a raise."""
    CHARGED = "Charged"
    """A charge only: leave it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPlan:
    """The plan for one target; watts above base, at GPUs and hosts."""

    status: PlanStatus
    replicas: int
    safe_max: int
    watts_per_replica: float
    """Upper W charged for each allowed or present replica; 0 when the planner named none."""
    planned_watts: float
    """Mean W expected."""
    reason: str
    charged_watts: float = 0.0
    """Upper W charged for all its replicas."""

    def mean_watts_per_replica(self, present: int | None) -> float:
        """Return what one replica less is expected to save, W; at most the upper watts.

        The planner tells the mean of all replicas that run. A quarter of the upper watts is the
        least believed: parked and loaded GPUs draw more than that.
        """
        running = min(self.replicas, present) if present else self.replicas
        mean = self.planned_watts / max(1, running)
        return min(self.watts_per_replica, max(mean, 0.25 * self.watts_per_replica))


@dataclass(frozen=True, slots=True, kw_only=True)
class CapPlan:
    """One plan under one cap; watts at GPUs and hosts."""

    plan_id: str
    expires_at: datetime.datetime
    targets: Mapping[WorkloadKey, TargetPlan]
    base_watts: float
    unmanaged_watts: float
    fixed_watts: float
    """Charge of targets that cannot be changed, above base."""
    available_watts: float
    """Above base, for targets that can be changed."""
    planned_watts: float
    """Mean expected, base and unmanaged included."""
    charged_watts: float
    """Upper watts of the plan once reached, base, unmanaged and fixed included."""
    shadow_price: float | None
    """Weighted tokens/s per extra W at the meter; None where the planner has none."""
    is_binding: bool
    is_feasible: bool
    """False: caps and floors cannot all hold; floors yielded."""
    least_cap_watts: float | None
    """Least cap at the meter that keeps every floor; None when none yielded."""
    gap: float | None
    """The worst proven relative gap of the plan's stages; None where one is not proven."""
    rung: str
    findings: tuple[tuple[str, str], ...] = ()
    """Reason and message of what was missing, doubtful or assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What the planner measures against the cap, at the meter."""

    watts: float | None
    """Mean over the cap's window; None when not measured."""
    measured_at: datetime.datetime | None
    source: str
    reason: str
    """Why watts are missing or doubtful."""

    def is_fresh(self, *, cap: Cap, now: datetime.datetime) -> bool:
        """Tell whether the watts may be acted on: measured, and not older than three windows."""
        if self.watts is None or self.measured_at is None:
            return False
        limit = datetime.timedelta(seconds=max(60.0, 3 * cap.window_seconds))
        return now - self.measured_at <= limit
