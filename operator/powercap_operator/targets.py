"""Targets: a ScaledObject, what runs behind it, and what the operator remembers about it.

The user's own maximum is remembered in the PowerCap's status before the first write. From then on
a maximum that is neither what was written nor what is being replaced was set by someone else: it
becomes the new original.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace

from powercap_operator.ledger import Key
from powercap_operator.policy import TargetPolicy
from powercap_operator.scaledobjects import ScaledObject, Workload, effective_max

MINUTE = datetime.timedelta(seconds=60)
CONTENTION_PAUSE = datetime.timedelta(seconds=600)
"""How long a target that someone keeps changing back is left alone."""
WRITE_BACKS_BEFORE_CONTENTION = 2


class TargetState(enum.StrEnum):
    """Whether the operator may write a target, and if not, why."""

    MANAGED = "Managed"
    HELD = "Held"
    """Data is missing: lowered if need be, never raised."""
    OWNED_ELSEWHERE = "OwnedElsewhere"
    """A controller owns the ScaledObject and would revert a patch."""
    PAUSED = "Paused"
    """KEDA is told not to scale it."""
    CONTENDED = "Contended"
    """Someone keeps changing it back."""
    CONTESTED = "Contested"
    """Another PowerCap governs it."""
    UNSUPPORTED = "Unsupported"
    """It scales something else than a Deployment, or one that is not there."""
    INVALID = "Invalid"
    """Its own minimum is above its maximum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is remembered of one target between cycles; lives in the PowerCap's status."""

    key: Key
    user_max: int | None = None
    """The user's own ``maxReplicaCount``; None: unset."""
    written: int | None = None
    """The maximum written last and still in force; None: the user's own is."""
    previous: int | None = None
    """While a write may or may not have landed: the maximum before it."""
    allowed: int | None = None
    """The maximum in force at the end of the last cycle."""
    safe_max: int | None = None
    watts_per_replica: float | None = None
    mean_watts_per_replica: float | None = None
    written_back_at: tuple[datetime.datetime, ...] = ()
    """When foreign changes were answered, last ones only."""
    contended_since: datetime.datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One selected ScaledObject in one cycle."""

    scaled_object: ScaledObject
    workload: Workload | None
    hpa_max: int | None
    """What the autoscaler enforces; None when it has none or it cannot be read."""
    policy: TargetPolicy
    record: Record
    state: TargetState
    reason: str = ""
    is_foreign_change: bool = False

    @property
    def key(self) -> Key:
        """Namespace and name of the ScaledObject."""
        return self.scaled_object.key

    @property
    def workload_key(self) -> tuple[str, str]:
        """Namespace and name of what it scales."""
        return (self.scaled_object.namespace, self.scaled_object.target_name)

    @property
    def current(self) -> int:
        """The maximum written in the ScaledObject now."""
        return self.scaled_object.effective_max_replicas

    @property
    def enforced(self) -> int:
        """The most replicas the autoscaler may make now: it may not have followed yet."""
        return max(self.current, self.hpa_max or 0)

    @property
    def present(self) -> int | None:
        """Replicas that exist; None when not known."""
        return None if self.workload is None else self.workload.present

    @property
    def user_max(self) -> int:
        """The user's own maximum, KEDA's default where unset."""
        return effective_max(self.record.user_max)

    @property
    def floor(self) -> int:
        """The ScaledObject's own minimum, at least 1: KEDA refuses a maximum below it."""
        return max(1, self.scaled_object.min_replicas)

    @property
    def ceiling(self) -> int:
        """The most that may be allowed: the user's maximum, or less where the policy says so."""
        limit = self.user_max
        if self.policy.max_replicas is not None:
            limit = min(limit, self.policy.max_replicas)
        return max(self.floor, limit)

    @property
    def soft_floor(self) -> int:
        """The policy's floor, inside what the user allows."""
        return min(self.ceiling, max(self.floor, self.policy.min_replicas))

    @property
    def is_writable(self) -> bool:
        """Tell whether the operator may write it."""
        return self.state is TargetState.MANAGED

    @property
    def is_fixed_charge(self) -> bool:
        """Tell whether it is charged but not planned."""
        return self.state is not TargetState.MANAGED

    def clamp(self, replicas: int) -> int:
        """Return ``replicas`` inside what KEDA accepts and the user allows."""
        return max(self.floor, min(self.ceiling, replicas))

    def raw_max(self, replicas: int) -> int | None:
        """Return what to write for ``replicas``: the user's own value, unset too, if it is that."""
        return self.record.user_max if replicas >= self.user_max else replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What another PowerCap's status states of a target in its care."""

    key: Key
    workload_key: tuple[str, str]
    allowed: int
    present: int | None
    """None when not stated; then the planner counts what it sees."""
    watts_per_replica: float | None
    """Upper W above base; None when not stated; then the planner's own count."""

    @property
    def watts(self) -> float:
        """Upper W above base of all that is allowed or present, as far as stated."""
        return max(self.allowed, self.present or 0) * (self.watts_per_replica or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What another PowerCap says about a ScaledObject."""

    powercap: str
    record: Record | None


def recognise(
    scaled_object: ScaledObject,
    record: Record | None,
    *,
    now: datetime.datetime,
    contention_window: datetime.timedelta = MINUTE,
) -> tuple[Record, bool]:
    """Tell the operator's own writes from others'.

    Returns:
        The record brought up to date, and whether someone else changed the maximum since.
    """
    written = scaled_object.max_replicas
    if record is None:
        return Record(key=scaled_object.key, user_max=written), False
    if record.contended_since and now - record.contended_since >= CONTENTION_PAUSE:
        record = replace(record, contended_since=None, written_back_at=())
    if record.written is None:
        return replace(record, user_max=written, previous=None), False
    current = scaled_object.effective_max_replicas
    if current == record.written:
        return replace(record, previous=None), False
    if current == record.previous:
        # The last write did not land: what was in force before it still is.
        is_user_value = current == effective_max(record.user_max)
        return replace(record, written=None if is_user_value else current, previous=None), False
    recent = [at for at in record.written_back_at if now - at <= contention_window]
    is_contended = len(recent) >= WRITE_BACKS_BEFORE_CONTENTION
    return (
        replace(
            record,
            user_max=written,
            written=None,
            previous=None,
            written_back_at=(*record.written_back_at, now)[-WRITE_BACKS_BEFORE_CONTENTION:],
            contended_since=now if is_contended else None,
        ),
        True,
    )


def inherited(claims: Iterable[Claim]) -> Record | None:
    """Return what another PowerCap wrote, so that its value is not taken for the user's."""
    for claim in claims:
        if claim.record is not None and claim.record.written is not None:
            kept = claim.record
            return Record(
                key=kept.key,
                user_max=kept.user_max,
                written=kept.written,
                previous=kept.previous,
            )
    return None


def build_target(
    scaled_object: ScaledObject,
    *,
    workload: Workload | None,
    hpa_max: int | None,
    policy: TargetPolicy,
    record: Record | None,
    rivals: tuple[str, ...] = (),
    powercap: str = "",
    now: datetime.datetime,
    contention_window: datetime.timedelta = MINUTE,
) -> Target:
    """Put together one target and decide whether it may be written.

    Args:
        scaled_object: as read in this cycle.
        workload: what it scales; None when not found or not readable.
        hpa_max: maximum of its autoscaler; None when there is none.
        policy: what the PowerCap says about it.
        record: what is remembered; None for a new target.
        rivals: names of other PowerCaps that would write it.
        powercap: name of this PowerCap.
        now: time of the cycle.
        contention_window: foreign changes within it count together.
    """
    known, is_foreign_change = recognise(
        scaled_object, record, now=now, contention_window=contention_window
    )
    target = Target(
        scaled_object=scaled_object,
        workload=workload,
        hpa_max=hpa_max,
        policy=policy,
        record=known,
        state=TargetState.MANAGED,
        is_foreign_change=is_foreign_change,
    )
    state, reason = _state(target, rivals=rivals, powercap=powercap)
    return replace(target, state=state, reason=reason)


def _state(target: Target, *, rivals: tuple[str, ...], powercap: str) -> tuple[TargetState, str]:
    item = target.scaled_object
    winner = min((*rivals, powercap))
    if winner != powercap:
        return TargetState.CONTESTED, f"PowerCap {winner} governs it: the lower name wins"
    if item.owner:
        return TargetState.OWNED_ELSEWHERE, f"{item.owner} owns it and would revert a patch"
    if item.pause:
        return TargetState.PAUSED, f"the annotation {item.pause} stops KEDA"
    if not item.is_deployment:
        kind = f"{item.target_api_version} {item.target_kind}"
        return TargetState.UNSUPPORTED, f"it scales {kind}; supported: apps/v1 Deployment"
    if target.workload is None:
        return TargetState.UNSUPPORTED, f"Deployment {item.target_name} is not there"
    if item.min_replicas > target.user_max:
        return (
            TargetState.INVALID,
            f"minReplicaCount is {item.min_replicas}; accepted: at most maxReplicaCount "
            f"({target.user_max})",
        )
    if target.record.contended_since:
        return TargetState.CONTENDED, "someone keeps changing maxReplicaCount back"
    won = f"also selected by PowerCap {', '.join(sorted(rivals))}: the lower name wins"
    return TargetState.MANAGED, won if rivals else ""
