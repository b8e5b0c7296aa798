"""Steps from the maxima in force to the plan: lower first, raise only what the ledger leaves.

A raise is paid from what was free *before* the step's own lowerings: a lowered maximum frees watts
only once the autoscaler follows and the pods are gone, which the next cycle sees. A plan that must
lower one target to raise another is therefore reached over cycles.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from powercap_operator.ledger import Key, Ledger


class StepReason(enum.StrEnum):
    """Why a maximum is written."""

    PLAN = "Plan"
    SHED = "Shed"
    """Measured watts passed the cap."""
    HOLD = "Hold"
    """The planner does not answer; the plan in force is kept."""
    FALLBACK = "Fallback"
    """The plan in force expired; safe maxima apply."""
    CAP = "Cap"
    """The cap was lowered and no plan arrives."""
    RESTORE = "Restore"
    """The user's own maximum comes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One write of ``maxReplicaCount``."""

    key: Key
    before: int
    after: int
    reason: StepReason

    @property
    def is_raise(self) -> bool:
        """Tell whether the maximum rises."""
        return self.after > self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is wanted of one target."""

    key: Key
    current: int
    """The maximum written now."""
    desired: int
    priority: int = 0
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheddable:
    """A target that may be lowered below what runs."""

    key: Key
    current: int
    present: int
    floor: int
    """Never below, whatever is measured."""
    soft_floor: int
    """The policy's floor: gives way only after everything else."""
    watts_per_replica: float
    """Mean W that one replica less saves."""
    priority: int = 0
    weight: float = 1.0


def lowering_steps(wishes: Sequence[Wish], *, reason: StepReason) -> tuple[Step, ...]:
    """Return the lowerings among the wishes; raises are left out."""
    return tuple(
        Step(key=wish.key, before=wish.current, after=wish.desired, reason=reason)
        for wish in sorted(wishes, key=lambda wish: wish.key)
        if wish.desired < wish.current
    )


def raising_steps(wishes: Sequence[Wish], *, ledger: Ledger) -> tuple[Step, ...]:
    """Return the raises that the ledger's free watts pay for, in part where not in full.

    Important targets come first: by priority, then by weight. With nothing free there is no raise
    at all, not even up to what is present: its pods are meant to go.
    """
    free_watts = ledger.free_watts
    if free_watts < 0:
        return ()
    steps = []
    wanted = [wish for wish in wishes if wish.desired > wish.current]
    for wish in sorted(wanted, key=lambda wish: (-wish.priority, -wish.weight, wish.key)):
        entry = ledger.entries.get(wish.key)
        if entry is None:
            continue
        # The tolerance forgives the rounding of sums, never a replica.
        tolerance_watts = 1e-9 * max(1.0, abs(ledger.available_watts))
        affordable = math.floor((free_watts + tolerance_watts) / entry.watts_per_replica)
        after = min(wish.desired, entry.charged_replicas + affordable)
        if after <= wish.current:
            continue
        free_watts -= max(0, after - entry.charged_replicas) * entry.watts_per_replica
        steps.append(Step(key=wish.key, before=wish.current, after=after, reason=StepReason.PLAN))
    return tuple(steps)


def plan_steps(wishes: Sequence[Wish], *, ledger: Ledger) -> tuple[Step, ...]:
    """Return all steps of a fresh plan: every lowering, then the raises that fit."""
    return (
        *lowering_steps(wishes, reason=StepReason.PLAN),
        *raising_steps(wishes, ledger=ledger),
    )


def shedding_steps(
    candidates: Sequence[Sheddable], *, excess_watts: float
) -> tuple[tuple[Step, ...], float]:
    """Return the steps that take ``excess_watts`` off, and the watts they take.

    The least important target gives first, and down to its policy's floor before the next one is
    touched; only when that is not enough the floors give way, in the same order.
    """
    order = sorted(candidates, key=lambda item: (item.priority, item.weight, item.key))
    after = {item.key: min(item.current, item.present) for item in order}
    left_watts = excess_watts
    for floors in (
        {i.key: max(i.floor, i.soft_floor) for i in order},
        {i.key: i.floor for i in order},
    ):
        for item in order:
            if left_watts <= 0:
                break
            room = max(0, after[item.key] - floors[item.key])
            taken = min(room, math.ceil(left_watts / item.watts_per_replica))
            after[item.key] -= taken
            left_watts -= taken * item.watts_per_replica
    running: Mapping[Key, int] = {item.key: min(item.current, item.present) for item in order}
    steps = tuple(
        Step(key=item.key, before=item.current, after=after[item.key], reason=StepReason.SHED)
        for item in order
        if after[item.key] < running[item.key]
    )
    return steps, excess_watts - left_watts
