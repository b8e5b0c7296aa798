"""What is measured against each cap, and how the source and the models are."""

from __future__ import annotations

from dataclasses import dataclass

from powercap_planner.curves.model import DeploymentModel
from powercap_planner.observations import Finding
from powercap_planner.request import CapSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class CapMeasurement:
    """What is measured against one cap."""

    cap: CapSpec
    measured_watts: float | None
    """At the cap's meter, W; None with a reason."""
    measured_at_seconds: float | None
    age_seconds: float | None
    source: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerStatus:
    """What is measured, and how the source and the models are."""

    now_seconds: float
    caps: tuple[CapMeasurement, ...]
    source_name: str
    source_error: str
    """Empty when the last refresh worked."""
    observed_at_seconds: float | None
    models: dict[str, DeploymentModel]
    findings: tuple[Finding, ...] = ()
    """What the last observation lacks or assumes."""
