"""What stays allowed when no fresh plan can be had: never more than before.

Until the plan in force expires its maxima hold. After that the stored safe maxima apply, those
that fit under the cap with nameplate watts alone, and never above what is allowed already. A cap
that is lowered meanwhile is obeyed with what the last plan charged, the least important first.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass

from powercap_operator.ledger import Key
from powercap_operator.rollout import Sheddable, Step, StepReason, Wish, shedding_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One target while no plan arrives."""

    key: Key
    current: int
    """The maximum written now."""
    in_force: int | None
    """The maximum the last plan set; None when none was ever set."""
    safe_max: int | None
    """Stored with the plan; None when it named none."""
    present: int | None
    floor: int
    """Never below: the ScaledObject's own minimum, at least 1."""
    soft_floor: int = 1
    """The policy's floor: gives way only after everything else."""
    watts_per_replica: float | None = None
    """Upper W of one replica as last charged; None when never charged."""
    priority: int = 0
    weight: float = 1.0


def reason_at(now: datetime.datetime, *, expires_at: datetime.datetime | None) -> StepReason | None:
    """Return which fallback applies at ``now``; None before there ever was a plan."""
    if expires_at is None:
        return None
    return StepReason.HOLD if now < expires_at else StepReason.FALLBACK


def wishes(holdings: Sequence[Holding], *, reason: StepReason) -> tuple[Wish, ...]:
    """Return what is wanted of each target; no wish is above its current maximum."""
    return tuple(
        Wish(key=item.key, current=item.current, desired=_desired(item, reason))
        for item in holdings
    )


def within_lowered_cap(
    holdings: Sequence[Holding], *, reason: StepReason, available_watts: float
) -> tuple[tuple[Step, ...], float]:
    """Return the lowerings that bring the charges under a cap that fell, and W that stay above it.

    Args:
        holdings: every target that may be written.
        reason: the fallback that applies; its own lowerings come first and are not repeated.
        available_watts: upper W above base that the targets may be charged in all.
    """
    charged = [item.watts_per_replica for item in holdings if item.watts_per_replica]
    if not charged:
        return (), max(0.0, -available_watts)
    candidates = []
    for item in holdings:
        allowed, watts = _desired(item, reason), item.watts_per_replica
        if not watts:
            # Never charged is not free: what runs may stay, at no less than the dearest known.
            watts = max(charged)
            allowed = min(allowed, max(item.floor, item.present or item.floor))
        candidates.append(
            Sheddable(
                key=item.key,
                current=allowed,
                present=allowed,
                floor=item.floor,
                soft_floor=item.soft_floor,
                watts_per_replica=watts,
                priority=item.priority,
                weight=item.weight,
            )
        )
    total = math.fsum(item.current * item.watts_per_replica for item in candidates)
    taken, taken_watts = shedding_steps(candidates, excess_watts=total - available_watts)
    after = {item.key: item.current for item in candidates} | {s.key: s.after for s in taken}
    steps = tuple(
        Step(key=item.key, before=item.current, after=after[item.key], reason=StepReason.CAP)
        for item in holdings
        if after[item.key] < _desired(item, reason)
    )
    return steps, max(0.0, total - available_watts - taken_watts)


def _desired(item: Holding, reason: StepReason) -> int:
    limits = [item.current]
    if item.in_force is not None:
        limits.append(item.in_force)
    if reason is StepReason.FALLBACK:
        if item.safe_max is not None:
            limits.append(item.safe_max)
        elif item.present is not None:
            # No safe maximum was ever computed: what runs may stay, nothing may grow.
            limits.append(item.present)
    return min(item.current, max(item.floor, min(limits)))
