"""What a cycle found, as conditions and words: each names its reason. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from powercap_operator import conditions, times
from powercap_operator.actuate import Outcome
from powercap_operator.conditions import Condition, ConditionType, Truth
from powercap_operator.decision import Decision, Failure, FailureKind, Situation, is_over_cap
from powercap_operator.plan import CapPlan, PlanStatus
from powercap_operator.policy import Cap, Rollout
from powercap_operator.rollout import StepReason
from powercap_operator.world import World

INVALID_SPEC = "InvalidSpec"
"""Reason and outcome of a cycle whose PowerCap breaks a rule."""


def of_cycle(
    world: World, situation: Situation, decision: Decision, outcomes: Sequence[Outcome]
) -> list[Condition]:
    """Return every condition of a full cycle."""
    found = [
        _ready(world, situation, decision, outcomes),
        planner_reachable(situation.failure),
        _metrics_healthy(situation),
        cap_held(situation),
    ]
    if situation.plan is not None:
        found.append(_cap_feasible(situation.plan, situation.spec.cap))
    elif decision.over_watts > 0:
        found.append(_lowered_cap_infeasible(decision.over_watts, situation.spec.cap))
    return found


def _ready(
    world: World, situation: Situation, decision: Decision, outcomes: Sequence[Outcome]
) -> Condition:
    message = message_of(world, situation, decision, outcomes)
    is_true, reason = True, "PlanInForce"
    if situation.refusal:
        is_true, reason = False, INVALID_SPEC
    elif situation.failure is not None:
        is_true, reason = False, situation.failure.kind.value
    elif not world.targets:
        is_true, reason = False, "NoTargets"
    elif any(not outcome.is_applied for outcome in outcomes):
        is_true, reason = False, "WriteFailed"
    elif world.problems:
        is_true, reason = False, "ScaledObjectUnreadable"
    elif situation.spec.rollout is not Rollout.AUTO:
        reason = "Advised"
    elif outcomes or _waiting(world, situation):
        reason = "Converging"
    return Condition(
        type=ConditionType.READY,
        status=Truth.TRUE if is_true else Truth.FALSE,
        reason=reason,
        message=message,
    )


def planner_reachable(failure: Failure | None) -> Condition:
    """Tell whether the planner answers; the time it turned is the start of an outage."""
    if failure is not None and failure.kind is FailureKind.UNREACHABLE:
        return Condition(
            type=ConditionType.PLANNER_REACHABLE,
            status=Truth.FALSE,
            reason=failure.kind.value,
            message=f"{failure.message}; measured watts are not seen either, nothing may rise",
        )
    return Condition(type=ConditionType.PLANNER_REACHABLE, status=Truth.TRUE, reason="Answered")


def _metrics_healthy(situation: Situation) -> Condition:
    kind = ConditionType.METRICS_HEALTHY
    failure = situation.failure
    if failure is not None and failure.kind is FailureKind.UNREACHABLE:
        return Condition(type=kind, status=Truth.UNKNOWN, reason=failure.kind.value)
    if failure is not None and failure.kind is FailureKind.NOT_READY:
        return Condition(
            type=kind, status=Truth.FALSE, reason=failure.kind.value, message=failure.message
        )
    if is_over_cap(situation) is None:
        why = situation.measurement.reason if situation.measurement else "no answer"
        return Condition(
            type=kind,
            status=Truth.FALSE,
            reason="PowerNotMeasured",
            message=f"watts against the cap: {why or 'the last measurement is too old'}",
        )
    plan = situation.plan
    held = [
        f"{namespace}/{name}: {target.reason}"
        for (namespace, name), target in (plan.targets.items() if plan else ())
        if target.status is PlanStatus.HELD
    ]
    if held:
        return Condition(
            type=kind, status=Truth.FALSE, reason="TargetsHeld", message="; ".join(held)
        )
    findings = "; ".join(f"{reason}: {text}" for reason, text in (plan.findings if plan else ()))
    return Condition(type=kind, status=Truth.TRUE, reason="Measured", message=findings)


def cap_held(situation: Situation) -> Condition:
    """Tell whether measured watts are under the cap."""
    kind, cap = ConditionType.CAP_HELD, situation.spec.cap
    is_over = is_over_cap(situation)
    if is_over is None or situation.measurement is None:
        return Condition(type=kind, status=Truth.UNKNOWN, reason="PowerNotMeasured")
    text = f"{situation.measurement.watts:.0f} W measured, cap {cap.watts:.0f} W"
    if is_over:
        return Condition(type=kind, status=Truth.FALSE, reason="AboveCap", message=text)
    return Condition(type=kind, status=Truth.TRUE, reason="UnderCap", message=text)


def _cap_feasible(plan: CapPlan, cap: Cap) -> Condition:
    kind = ConditionType.CAP_FEASIBLE
    if plan.is_feasible:
        return Condition(type=kind, status=Truth.TRUE, reason="FloorsFit")
    least = ""
    if plan.least_cap_watts is not None:
        least = f"; least cap that keeps them: {plan.least_cap_watts:.0f} W"
    return Condition(
        type=kind,
        status=Truth.FALSE,
        reason="CapInfeasible",
        message=f"the cap of {cap.watts:.0f} W and the floors cannot hold together: floors yield"
        + least,
    )


def _lowered_cap_infeasible(over_watts: float, cap: Cap) -> Condition:
    return Condition(
        type=ConditionType.CAP_FEASIBLE,
        status=Truth.FALSE,
        reason="CapInfeasible",
        message=f"the cap was lowered to {cap.watts:.0f} W and no plan arrives: at their least the "
        f"targets may draw {over_watts * cap.overhead_factor:.0f} W more",
    )


def outcome_word(situation: Situation, decision: Decision) -> str:
    """Return how the cycle ended, in one word."""
    if not situation.targets:
        return INVALID_SPEC if situation.refusal else "NoTargets"
    if situation.plan is not None:
        return "Planned" if situation.spec.rollout is Rollout.AUTO else "Advised"
    if decision.fallback is StepReason.FALLBACK:
        return "SafeMaxima"
    if decision.fallback is StepReason.HOLD:
        return "PlanHeld"
    return INVALID_SPEC if situation.refusal else "NoPlan"


def message_of(
    world: World, situation: Situation, decision: Decision, outcomes: Sequence[Outcome]
) -> str:
    """Return what the cycle did and what is in its way, for people."""
    parts = [situation.refusal] if situation.refusal else []
    if situation.failure is not None:
        parts.append(situation.failure.message)
    if situation.failure is not None or situation.refusal:
        if decision.fallback is StepReason.HOLD and situation.in_force is not None:
            expiry = times.to_text(situation.in_force.expires_at)
            parts.append(f"the plan in force is kept until {expiry}")
        if decision.fallback is StepReason.FALLBACK and situation.in_force is not None:
            expiry = times.to_text(situation.in_force.expires_at)
            parts.append(f"the plan expired at {expiry}: safe maxima apply")
        if any(step.reason is StepReason.CAP for step in decision.steps):
            parts.append(
                f"the cap was lowered to {situation.spec.cap.watts:.0f} W: maxima are lowered by "
                "priority within it"
            )
    lowered = sum(not o.step.is_raise for o in outcomes if o.is_applied)
    raised = sum(o.step.is_raise for o in outcomes if o.is_applied)
    if outcomes:
        parts.append(f"{lowered} lowered, {raised} raised")
    parts += [
        f"{o.step.key[0]}/{o.step.key[1]} not written: {o.error}" for o in outcomes if o.error
    ]
    parts += world.problems
    if not world.targets and not situation.refusal:
        parts.append("no ScaledObject matches spec.selector")
    if not parts:
        parts.append("nothing to change")
    return "; ".join(parts)[: conditions.MESSAGE_CHARACTERS]


def _waiting(world: World, situation: Situation) -> bool:
    if situation.plan is None:
        return False
    for target in world.targets:
        planned = situation.plan.targets.get(target.workload_key)
        is_planned = planned is not None and planned.status is PlanStatus.PLANNED
        if planned is not None and target.is_writable and is_planned:
            reached = target.clamp(planned.replicas) == target.current
            if not reached:
                return True
    return False
