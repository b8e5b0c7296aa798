"""The explained plan: what the gRPC answer, the CLI's table and its JSON are made of."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from powercap_planner.observations import Finding
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem


class TargetStatus(enum.StrEnum):
    """What the answer for one target means."""

    PLANNED = "planned"
    HELD = "held"
    """Data is missing: never above what is allowed or present now."""
    CHARGED = "charged"
    """A charge only: leave it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOutcome:
    """The plan for one target; watts above base, at GPUs and hosts."""

    namespace: str
    name: str
    status: TargetStatus
    replicas: int
    """Allowed by the plan."""
    replicas_now: int | None
    """Present now; None when not measured."""
    reason: str
    planned_watts: float
    charged_watts: float
    charged_watts_per_replica: float
    load_tps: float
    served_tps: float
    safe_max_replicas: int
    gpus_per_replica: int
    gpu_type: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CapOutcome:
    """What one cap holds under the plan; W at GPUs and hosts unless said otherwise."""

    name: str
    cap_watts: float
    """At the meter."""
    charged_watts: float
    planned_watts: float
    base_watts: float
    unmanaged_watts: float
    fixed_watts: float
    available_watts: float
    headroom_watts: float
    shadow_price_low: float
    shadow_price_high: float
    is_binding: bool
    least_cap_watts: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanOutcome:
    """The answer to one request, with the problem and plan it came from."""

    plan_id: str
    planned_at_seconds: float
    """Unix time, s."""
    expires_at_seconds: float
    targets: tuple[TargetOutcome, ...]
    caps: tuple[CapOutcome, ...]
    findings: tuple[Finding, ...]
    problem: PlanningProblem
    plan: Plan
