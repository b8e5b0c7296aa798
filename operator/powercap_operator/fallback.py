"""What stays allowed when no fresh plan can be had: never more than before.

Until the plan in force expires its maxima hold. After that the stored safe maxima apply, those
that fit under the cap with nameplate watts alone, and never above what is allowed already.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from powercap_operator.ledger import Key
from powercap_operator.rollout import StepReason, Wish


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
