"""Kubernetes Events of the operator: what was done to whom, and why."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from powercap_operator.decision import Decision
from powercap_operator.ledger import Key
from powercap_operator.rollout import Step, StepReason
from powercap_operator.targets import Target

COMPONENT = "powercap-operator"


class EventType(enum.StrEnum):
    """How loud an Event is."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The object an Event is about."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""
    uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One Event."""

    subject: Subject
    type: EventType
    reason: str
    message: str


_STEP_TYPES = {
    StepReason.SHED: EventType.WARNING,
    StepReason.HOLD: EventType.WARNING,
    StepReason.FALLBACK: EventType.WARNING,
    StepReason.CAP: EventType.WARNING,
}
_STEP_CAUSES = {
    StepReason.PLAN: "the plan under the cap",
    StepReason.SHED: "measured watts are above the cap",
    StepReason.HOLD: "the planner does not answer; the plan in force is kept",
    StepReason.FALLBACK: "the plan in force expired without another; safe maxima apply",
    StepReason.CAP: "the cap was lowered and no plan arrives; by priority within it",
    StepReason.RESTORE: "the power cap no longer governs it",
}


def of_scaled_object(target: Target) -> Subject:
    """Return the ScaledObject as a subject."""
    item = target.scaled_object
    return Subject(
        api_version="keda.sh/v1alpha1",
        kind="ScaledObject",
        name=item.name,
        namespace=item.namespace,
        uid=item.uid,
    )


def of_steps(
    powercap: Subject, steps: Sequence[Step], subjects: Mapping[Key, Subject]
) -> tuple[Event, ...]:
    """Return an Event for each ScaledObject written, and one that sums them up."""
    events = []
    for step in steps:
        subject = subjects.get(step.key)
        if subject is None:
            continue
        verb = "raised" if step.is_raise else "lowered"
        reason = "MaximumRaised" if step.is_raise else "MaximumLowered"
        if step.reason is StepReason.RESTORE:
            reason = "MaximumRestored"
        events.append(
            Event(
                subject=subject,
                type=_STEP_TYPES.get(step.reason, EventType.NORMAL),
                reason=reason,
                message=f"PowerCap {powercap.name} {verb} maxReplicaCount from {step.before} to "
                f"{step.after}: {_STEP_CAUSES[step.reason]}",
            )
        )
    return (*events, *_summaries(powercap, steps))


def of_foreign_changes(powercap: Subject, targets: Sequence[Target]) -> tuple[Event, ...]:
    """Return an Event for each ScaledObject that someone else changed."""
    return tuple(
        Event(
            subject=of_scaled_object(target),
            type=EventType.NORMAL,
            reason="ForeignChange",
            message=f"maxReplicaCount was set to {target.current} by someone else: PowerCap "
            f"{powercap.name} remembers it as the user's own and plans within it",
        )
        for target in targets
        if target.is_foreign_change
    )


def of_shedding(powercap: Subject, decision: Decision, *, measured: float, cap: float) -> Event:
    """Return the Event that tells of shedding."""
    lowered = ", ".join(
        f"{step.key[0]}/{step.key[1]} {step.before} -> {step.after}"
        for step in decision.steps
        if step.reason is StepReason.SHED
    )
    return Event(
        subject=powercap,
        type=EventType.WARNING,
        reason="Shed",
        message=f"measured {measured:.0f} W are above the cap of {cap:.0f} W: "
        f"{decision.shed_watts:.0f} W taken off: {lowered}",
    )


_SUMMARY_REASONS = {
    StepReason.PLAN: "PlanApplied",
    StepReason.HOLD: "PlanHeld",
    StepReason.FALLBACK: "SafeMaximaApplied",
    StepReason.CAP: "LoweredCapObeyed",
    StepReason.RESTORE: "Restored",
}


def _summaries(powercap: Subject, steps: Sequence[Step]) -> tuple[Event, ...]:
    events = []
    for cause, reason in _SUMMARY_REASONS.items():
        mine = [step for step in steps if step.reason is cause]
        if not mine:
            continue
        changes = ", ".join(
            f"{step.key[0]}/{step.key[1]} {step.before} -> {step.after}" for step in mine
        )
        events.append(
            Event(
                subject=powercap,
                type=_STEP_TYPES.get(cause, EventType.NORMAL),
                reason=reason,
                message=f"{_STEP_CAUSES[cause]}: {changes}",
            )
        )
    return tuple(events)
