"""The policy a PowerCap states: its spec as typed values, checked.

The API server checks the same rules (``deploy/crd.yaml``). They are repeated here because a server
may hold an older schema, and because a bad value must end as a condition, never as a raised
maximum.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from powercap_operator.errors import PolicyError

MAX_INTERVAL_SECONDS = 3600


class Rollout(enum.StrEnum):
    """Whether the plan is written."""

    ADVISORY = "Advisory"
    """Plan and report; write nothing."""
    AUTO = "Auto"


class ReplicaRule(enum.StrEnum):
    """What runs below the allowed replicas."""

    CEILING = "Ceiling"
    """The autoscaler runs what the load needs, up to the allowed replicas."""
    FIXED = "Fixed"
    """All allowed replicas run."""


class ObjectiveType(enum.StrEnum):
    """What the watts are spent on."""

    THROUGHPUT_PER_WATT = "ThroughputPerWatt"
    THROUGHPUT = "Throughput"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """The cap of the cluster at its meter."""

    watts: float
    """Infinite only where an invalid spec holds no cap that can be read."""
    window_seconds: float = 60.0
    overhead_factor: float = 1.0
    """Meter W per W of GPUs and hosts."""
    fixed_overhead_watts: float = 0.0

    def device_watts(self, meter_watts: float) -> float:
        """Return the watts of GPUs and hosts behind ``meter_watts``."""
        return (meter_watts - self.fixed_overhead_watts) / self.overhead_factor

    def meter_watts(self, device_watts: float) -> float:
        """Return what the meter shows for ``device_watts`` of GPUs and hosts."""
        return device_watts * self.overhead_factor + self.fixed_overhead_watts


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which ScaledObjects the cap governs."""

    namespaces: tuple[str, ...] = ()
    """Empty: all."""
    match_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels a ScaledObject must carry; empty: all."""

    def matches(self, *, namespace: str, labels: Mapping[str, str]) -> bool:
        """Tell whether a ScaledObject with these labels is governed."""
        if self.namespaces and namespace not in self.namespaces:
            return False
        return all(labels.get(key) == value for key, value in self.match_labels.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPolicy:
    """What the policy says about one ScaledObject."""

    min_replicas: int = 1
    max_replicas: int | None = None
    """Never allow more, even where the user's own maximum is higher."""
    min_served_fraction: float = 0.0
    weight: float = 1.0
    priority: int = 0
    replica_rule: ReplicaRule = ReplicaRule.CEILING


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is maximised, and how much price and carbon count."""

    type: ObjectiveType = ObjectiveType.THROUGHPUT_PER_WATT
    price_weight: float = 0.5
    carbon_weight: float = 0.5
    served_share_fraction: float | None = None
    stability_tolerance_fraction: float = 0.005
    """None follows the grid's stress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerCapSpec:
    """One PowerCap's spec, valid by construction of ``parse_spec``."""

    cap: Cap
    selector: Selector = Selector()
    default_policy: TargetPolicy = TargetPolicy()
    overrides: Mapping[tuple[str, str], TargetPolicy] = field(default_factory=dict)
    """By namespace and name of the ScaledObject."""
    objective: Objective = Objective()
    grid_zone: str = ""
    rollout: Rollout = Rollout.ADVISORY
    interval_seconds: float = 60.0
    feedback_interval_seconds: float = 15.0

    def policy_of(self, namespace: str, name: str) -> TargetPolicy:
        """Return what the policy says about one ScaledObject."""
        return self.overrides.get((namespace, name), self.default_policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Governing:
    """What governs one PowerCap now: its spec, or what is left of an earlier one."""

    spec: PowerCapSpec
    refusal: str = ""
    """Why the spec as written is not used; empty when it is. Then nothing may rise."""


def read_governing(powercap: Mapping[str, Any]) -> Governing:
    """Read what governs a PowerCap: its spec, else its last valid one, else its cap alone.

    An invalid spec must not end what keeps the cap: measured watts are still compared with it and
    the plan in force still expires. Without any cap that can be read only the latter is left.
    """
    raw = powercap.get("spec") or {}
    try:
        return Governing(spec=parse_spec(raw))
    except PolicyError as error:
        refusal = str(error)
    spec = last_valid_spec(powercap) or _cap_alone(raw)
    return Governing(spec=spec, refusal=refusal)


def last_valid_spec(powercap: Mapping[str, Any]) -> PowerCapSpec | None:
    """Return the spec that its status remembers; None when there is none, or none valid today."""
    try:
        return parse_spec((powercap.get("status") or {}).get("lastValidSpec"))
    except PolicyError:
        return None


def _cap_alone(raw: Mapping[str, Any]) -> PowerCapSpec:
    rollout = Rollout.AUTO if raw.get("rollout") == Rollout.AUTO else Rollout.ADVISORY
    cap = raw.get("cap")
    watts = cap.get("watts") if isinstance(cap, Mapping) else None
    try:
        return replace(parse_spec({"cap": {"watts": watts}}), rollout=rollout)
    except PolicyError:
        return PowerCapSpec(cap=Cap(watts=math.inf), rollout=rollout)


def parse_spec(spec: object) -> PowerCapSpec:
    """Read a PowerCap's ``spec``.

    Raises:
        PolicyError: naming the first field that breaks a rule.
    """
    root = _Reader(spec, "spec")
    floors = root.child("floors")
    default = TargetPolicy(
        min_replicas=floors.integer("minReplicas", default=1, low=1),
        min_served_fraction=floors.number("minServedFraction", default=0.0, low=0.0, high=1.0),
    )
    interval = root.number("intervalSeconds", default=60.0, low=1.0, high=MAX_INTERVAL_SECONDS)
    # The default of feedback follows a short interval down, or setting one field would break two.
    feedback = root.number(
        "feedbackIntervalSeconds", default=min(15.0, interval), low=1.0, high=interval
    )
    return PowerCapSpec(
        cap=_parse_cap(root.child("cap")),
        selector=_parse_selector(root.child("selector")),
        default_policy=default,
        overrides=_parse_overrides(root, default),
        objective=_parse_objective(root.child("objective")),
        grid_zone=root.child("grid").text("zone", default=""),
        rollout=Rollout(root.choice("rollout", Rollout, default=Rollout.ADVISORY)),
        interval_seconds=interval,
        feedback_interval_seconds=feedback,
    )


def _parse_cap(cap: _Reader) -> Cap:
    watts = cap.number("watts", low=0.0, is_low_excluded=True)
    fixed = cap.number("fixedOverheadWatts", default=0.0, low=0.0)
    if fixed >= watts:
        raise PolicyError(
            "spec.cap.fixedOverheadWatts", f"is {fixed:g} W; accepted: less than watts ({watts:g})"
        )
    return Cap(
        watts=watts,
        window_seconds=cap.number("windowSeconds", default=60.0, low=1.0),
        overhead_factor=cap.number("overheadFactor", default=1.0, low=1.0),
        fixed_overhead_watts=fixed,
    )


def _parse_selector(selector: _Reader) -> Selector:
    namespaces = selector.items("namespaces")
    labels = selector.child("matchLabels")
    return Selector(
        namespaces=tuple(str(namespace) for namespace in namespaces),
        match_labels={key: labels.text(key) for key in labels.keys},
    )


def _parse_objective(objective: _Reader) -> Objective:
    share = None
    if "servedShareFraction" in objective.keys:
        share = objective.number("servedShareFraction", low=0.0, high=1.0)
    default = ObjectiveType.THROUGHPUT_PER_WATT
    return Objective(
        type=ObjectiveType(objective.choice("type", ObjectiveType, default=default)),
        price_weight=objective.number("priceWeight", default=0.5, low=0.0),
        carbon_weight=objective.number("carbonWeight", default=0.5, low=0.0),
        served_share_fraction=share,
        stability_tolerance_fraction=objective.number(
            "stabilityToleranceFraction", default=0.005, low=0.0, high=1.0
        ),
    )


def _parse_overrides(
    root: _Reader, default: TargetPolicy
) -> Mapping[tuple[str, str], TargetPolicy]:
    overrides: dict[tuple[str, str], TargetPolicy] = {}
    for index, item in enumerate(root.items("targets")):
        path = f"spec.targets[{index}]"
        target = _Reader(item, path)
        key = (target.text("namespace"), target.text("name"))
        if key in overrides:
            raise PolicyError(path, f"names {key[0]}/{key[1]} again; accepted: once")
        overrides[key] = _parse_target(target, default)
    return overrides


def _parse_target(target: _Reader, default: TargetPolicy) -> TargetPolicy:
    least = target.integer("minReplicas", default=default.min_replicas, low=1)
    most = None
    if "maxReplicas" in target.keys:
        most = target.integer("maxReplicas", default=1, low=1)
        if most < least:
            raise PolicyError(
                f"{target.path}.maxReplicas",
                f"is {most}; accepted: {least} or more (minReplicas is {least})",
            )
    return TargetPolicy(
        min_replicas=least,
        max_replicas=most,
        min_served_fraction=target.number(
            "minServedFraction", default=default.min_served_fraction, low=0.0, high=1.0
        ),
        weight=target.number("weight", default=1.0, low=0.0, is_low_excluded=True),
        priority=target.integer("priority", default=0, low=-1000, high=1000),
        replica_rule=ReplicaRule(
            target.choice("replicas", ReplicaRule, default=ReplicaRule.CEILING)
        ),
    )


class _Reader:
    """Reads one object of the spec and names the field in every refusal."""

    def __init__(self, values: object, path: str) -> None:
        if not isinstance(values, Mapping):
            raise PolicyError(path, f"is {values!r}; accepted: an object")
        self.values = values
        self.path = path
        self.keys = values.keys()

    def child(self, key: str) -> _Reader:
        return _Reader(self.values.get(key) or {}, f"{self.path}.{key}")

    def items(self, key: str) -> Sequence[Any]:
        value = self.values.get(key) or ()
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise PolicyError(f"{self.path}.{key}", f"is {value!r}; accepted: a list")
        return value

    def number(
        self,
        key: str,
        *,
        default: float | None = None,
        low: float,
        high: float = math.inf,
        is_low_excluded: bool = False,
    ) -> float:
        value = self.values.get(key, default)
        accepted = f"more than {low:g}" if is_low_excluded else f"{low:g} or more"
        if high < math.inf:
            accepted = f"{low:g} to {high:g}"
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or value is None or not math.isfinite(value):
            raise PolicyError(f"{self.path}.{key}", f"is {value!r}; accepted: {accepted}")
        if value < low or value > high or (is_low_excluded and value == low):
            raise PolicyError(f"{self.path}.{key}", f"is {value:g}; accepted: {accepted}")
        return float(value)

    def integer(self, key: str, *, default: int, low: int, high: int = 2**31 - 1) -> int:
        value = self.number(key, default=default, low=low, high=high)
        if value != int(value):
            raise PolicyError(f"{self.path}.{key}", f"is {value:g}; accepted: a whole number")
        return int(value)

    def text(self, key: str, *, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise PolicyError(f"{self.path}.{key}", f"is {value!r}; accepted: text")
        return value

    def choice(self, key: str, choices: type[enum.StrEnum], *, default: enum.StrEnum) -> str:
        value = self.values.get(key, default.value)
        accepted = [choice.value for choice in choices]
        if value not in accepted:
            raise PolicyError(
                f"{self.path}.{key}", f"is {value!r}; accepted: {' or '.join(accepted)}"
            )
        return str(value)
