"""All that one plan is made of, after curves, forecasts and grid have been learned or read.

Between observation and problem: what-ifs change these values, files carry them, and
``assemble`` tabulates them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powercap_planner.curves.model import DeploymentModel
from powercap_planner.forecast.load import LoadForecast
from powercap_planner.grid.weight import GridConditions
from powercap_planner.observations import Finding, ReplicaRule
from powercap_planner.outcome import TargetStatus
from powercap_planner.request import CapSpec, ObjectiveSpec
from powercap_solver.problem import IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningSettings:
    """What planning assumes; none of it is asked for in a request."""

    period_seconds: float = 300.0
    """Length of the planned period, s; default 300."""
    target_utilisation_fraction: float = 0.7
    """Share of capacity at which the autoscaler adds a replica; default 0.7, assumed."""
    max_age_seconds: float = 300.0
    """Measurements older than this count as missing, s; default 300."""
    unmanaged_seconds: float = 3600.0
    """Unmanaged watts are the most seen within this span, s; default 3600."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TargetInputs:
    """One deployment of the request with what is known of it."""

    namespace: str
    name: str
    status: TargetStatus
    note: str
    """Why it is held or charged; empty when planned."""
    model: DeploymentModel
    forecast: LoadForecast | None
    """None unless planned."""
    replica_rule: ReplicaRule
    min_replicas: int
    """Floor."""
    running_min_replicas: int
    """Replicas the autoscaler keeps at no load."""
    max_replicas: int
    """The user's own maximum."""
    weight: float
    priority: int
    min_served_fraction: float
    allowed_replicas: int | None
    present_replicas: int | None
    pinned_replicas: int | None = None
    """Exactly this many, for what-ifs."""

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def options(self) -> IntArray:
        """int64[option]: replicas that may be allowed, ascending.

        Floors are not left out here: where the cap is too low they must be able to yield.
        """
        if self.pinned_replicas is not None:
            return np.array([self.pinned_replicas], dtype=np.int64)
        # KEDA accepts no maximum of 0.
        can_be_none = self.replica_rule is ReplicaRule.FIXED and self.min_replicas == 0
        return np.arange(0 if can_be_none else 1, self.max_replicas + 1, dtype=np.int64)

    @property
    def charged_replicas(self) -> int:
        """Replicas charged when nothing may be changed: the larger of allowed and present."""
        return max(self.allowed_replicas or 0, self.present_replicas or 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanningInputs:
    """Everything the plan follows from."""

    targets: tuple[TargetInputs, ...]
    cap: CapSpec
    objective: ObjectiveSpec
    base_watts: float
    unmanaged_watts: float
    grid: GridConditions
    settings: PlanningSettings = PlanningSettings()
    findings: tuple[Finding, ...] = ()

    @property
    def planned(self) -> tuple[TargetInputs, ...]:
        """Targets the plan chooses for, in the order of the problem."""
        return tuple(one for one in self.targets if one.status is TargetStatus.PLANNED)

    @property
    def unplanned(self) -> tuple[TargetInputs, ...]:
        """Targets that are charged as they are."""
        return tuple(one for one in self.targets if one.status is not TargetStatus.PLANNED)
