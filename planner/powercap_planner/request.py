"""What is asked of the planner: caps, targets and objective, whoever asks (gRPC or CLI)."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from powercap_planner.errors import RequestError
from powercap_planner.observations import ReplicaRule

CLUSTER = "cluster"
"""Name of the domain that is the whole cluster."""


def _check(field: str, value: float, is_accepted: bool, accepted: str) -> None:
    if not (math.isfinite(value) and is_accepted):
        raise RequestError(field, f"is {value}; accepted: {accepted}")


class ObjectiveKind(enum.StrEnum):
    """What is maximised after the floors."""

    THROUGHPUT_PER_WATT = "throughput_per_watt"
    THROUGHPUT = "throughput"


@dataclass(frozen=True, slots=True, kw_only=True)
class CapSpec:
    """One cap at its meter."""

    name: str = CLUSTER
    watts: float
    window_seconds: float = 60.0
    overhead_factor: float = 1.0
    """Meter W per W of GPUs and hosts."""
    fixed_overhead_watts: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RequestError: naming the field.
        """
        _check("watts", self.watts, self.watts > 0, "more than 0 W")
        _check("window_seconds", self.window_seconds, self.window_seconds > 0, "more than 0 s")
        _check("overhead_factor", self.overhead_factor, self.overhead_factor >= 1, "1 or more")
        _check(
            "fixed_overhead_watts",
            self.fixed_overhead_watts,
            self.fixed_overhead_watts >= 0,
            "0 W or more",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSpec:
    """The objective and the weights of price and carbon in it."""

    kind: ObjectiveKind = ObjectiveKind.THROUGHPUT_PER_WATT
    price_weight: float = 0.5
    carbon_weight: float = 0.5
    served_share_fraction: float | None = None
    """Share of the best served tokens that is kept; None follows the grid's stress."""
    stability_tolerance_fraction: float = 0.005
    """A raise worth less than this share of the plan's value waits."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RequestError: naming the field.
        """
        _check("price_weight", self.price_weight, self.price_weight >= 0, "0 or more")
        _check("carbon_weight", self.carbon_weight, self.carbon_weight >= 0, "0 or more")
        share = self.served_share_fraction
        if share is not None:
            _check("served_share_fraction", share, 0 <= share <= 1, "0 to 1")
        steady = self.stability_tolerance_fraction
        _check("stability_tolerance_fraction", steady, 0 <= steady <= 1, "0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """One deployment the plan is asked for; None means: what the metrics say."""

    namespace: str
    name: str
    min_replicas: int | None = None
    max_replicas: int | None = None
    weight: float = 1.0
    priority: int = 0
    min_served_fraction: float = 0.0
    replica_rule: ReplicaRule | None = None
    allowed_replicas: int | None = None
    present_replicas: int | None = None
    is_fixed_charge: bool = False
    """Cannot be changed: charged at the larger of allowed and present, not planned."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RequestError: naming the field.
        """
        if not self.name:
            raise RequestError("name", "is empty; accepted: the scaled workload's name")
        _check("weight", self.weight, self.weight > 0, "more than 0")
        fraction = self.min_served_fraction
        _check("min_served_fraction", fraction, 0 <= fraction <= 1, "0 to 1")
        for field in ("min_replicas", "allowed_replicas", "present_replicas"):
            count = getattr(self, field)
            if count is not None:
                _check(field, count, count >= 0, "0 or more")
        if self.max_replicas is not None:
            low = max(1, self.min_replicas or 0)
            accepted = f"{low} or more (min_replicas is {self.min_replicas})"
            _check("max_replicas", self.max_replicas, self.max_replicas >= low, accepted)

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """One request for a plan."""

    targets: tuple[TargetSpec, ...]
    caps: tuple[CapSpec, ...]
    objective: ObjectiveSpec = ObjectiveSpec()
    grid_zone: str = ""
    """Empty: the planner's default zone."""
    valid_seconds: float = 180.0

    def __post_init__(self) -> None:
        """Check what spans fields.

        Raises:
            RequestError: naming the field.
        """
        keys = [target.key for target in self.targets]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise RequestError(f"deployments[{index}]", f"{key} is asked for twice")
        for index, cap in enumerate(self.caps):
            if cap.name != CLUSTER:
                raise RequestError(
                    f"caps[{index}].name", f"is {cap.name!r}; accepted so far: {CLUSTER!r}"
                )
        if len(self.caps) != 1:
            raise RequestError("caps", f"holds {len(self.caps)}; accepted: one, of the cluster")
        valid = self.valid_seconds
        _check("valid_seconds", valid, valid > 0, "more than 0 s")
