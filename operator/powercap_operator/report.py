"""The report of one cycle: conditions, totals and one entry per target. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from powercap_operator import conditions, status, times, verdicts
from powercap_operator.actuate import Outcome
from powercap_operator.conditions import Condition, ConditionType, Truth
from powercap_operator.convert import CLUSTER
from powercap_operator.decision import (
    Decision,
    Situation,
    reserved_watts,
    settling_after,
)
from powercap_operator.ledger import Key
from powercap_operator.plan import CapPlan, Measurement, PlanStatus, TargetPlan
from powercap_operator.policy import Rollout, read_governing
from powercap_operator.rollout import Step, StepReason
from powercap_operator.scaledobjects import effective_max
from powercap_operator.targets import Record, Target, TargetState
from powercap_operator.world import World, generation_of


def intent(world: World, situation: Situation, decision: Decision) -> dict[str, Any]:
    """Return the status to write before the steps: every user's maximum is safe in it."""
    steps = {step.key: step for step in decision.steps}
    before = dict(world.item.get("status") or {})
    return {
        **before,
        **_valid_spec(world),
        "targets": _targets(world, situation, decision, steps, {}),
    }


def final(
    world: World,
    situation: Situation,
    decision: Decision,
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """Return the status after a full cycle."""
    steps = {step.key: step for step in decision.steps}
    results = {outcome.step.key: outcome for outcome in outcomes}
    before: Mapping[str, Any] = world.item.get("status") or {}
    after = {
        **before,
        **_valid_spec(world),
        "observedGeneration": generation_of(world.item),
        "conditions": conditions.merge(
            before.get("conditions") or (),
            verdicts.of_cycle(world, situation, decision, outcomes),
            now=world.now,
            generation=generation_of(world.item),
        ),
        "lastCycle": {
            "time": times.to_text(world.now),
            "outcome": verdicts.outcome_word(situation, decision),
            "message": verdicts.message_of(world, situation, decision, outcomes),
        },
        "managedTargets": _managed(world),
        "targets": _targets(world, situation, decision, steps, results),
        **measured(situation.measurement),
    }
    if situation.plan is not None:
        after.pop("shadowPrice", None)
        after |= _plan_fields(situation.plan, situation, decision, results)
    return {**after, **lowered(situation, decision)}


def _valid_spec(world: World) -> dict[str, Any]:
    """Return what governs on when the spec turns invalid; by then ``item`` may be a newer one."""
    is_valid = not read_governing(world.item).refusal
    return {"lastValidSpec": world.item["spec"]} if is_valid else {}


def lowered(situation: Situation, decision: Decision) -> dict[str, Any]:
    """Return ``status.lastShed`` and ``status.settling`` after the steps of a decision."""
    fields = {}
    if decision.shed_watts > 0:
        fields["lastShed"] = status.watts_at(situation.now, decision.shed_watts)
    settling = settling_after(situation, decision.lowered_watts)
    if settling is not None:
        fields["settling"] = status.watts_at(settling.time, settling.watts)
    return fields


def feedback(item: Mapping[str, Any], situation: Situation) -> dict[str, Any]:
    """Return the status after a look at the meter between cycles."""
    before: Mapping[str, Any] = item.get("status") or {}
    found = [verdicts.planner_reachable(situation.failure), verdicts.cap_held(situation)]
    return {
        **before,
        "conditions": conditions.merge(
            before.get("conditions") or (),
            found,
            now=situation.now,
            generation=generation_of(item),
        ),
        **measured(situation.measurement),
    }


def refused(item: Mapping[str, Any], *, reason: str, message: str, now: Any) -> dict[str, Any]:
    """Return the status of a cycle that could not even begin; nothing was written."""
    before: Mapping[str, Any] = item.get("status") or {}
    found = [
        Condition(type=ConditionType.READY, status=Truth.FALSE, reason=reason, message=message)
    ]
    return {
        **before,
        "observedGeneration": generation_of(item),
        "conditions": conditions.merge(
            before.get("conditions") or (), found, now=now, generation=generation_of(item)
        ),
        "lastCycle": {"time": times.to_text(now), "outcome": reason, "message": message[:1024]},
    }


def measured(measurement: Measurement | None) -> dict[str, Any]:
    """Return ``status.measuredWatts``; the last one stays, with its time, when there is none."""
    if measurement is None or measurement.watts is None or measurement.measured_at is None:
        return {}
    return {
        "measuredWatts": {
            "watts": round(measurement.watts, 1),
            "time": times.to_text(measurement.measured_at),
            "source": measurement.source,
        }
    }


def _plan_fields(
    plan: CapPlan,
    situation: Situation,
    decision: Decision,
    results: Mapping[Key, Outcome],
) -> dict[str, Any]:
    cap = situation.spec.cap
    ledger = decision.ledger
    charged = plan.charged_watts
    if ledger is not None:
        for outcome in results.values():
            step = outcome.step
            # A lowering frees watts once the autoscaler has followed, which the next cycle sees.
            if outcome.is_applied and step.is_raise and step.key in ledger.entries:
                entry = ledger.entries[step.key]
                ledger = ledger.with_allowed(step.key, max(entry.allowed, step.after))
        fixed = plan.base_watts + plan.unmanaged_watts + plan.fixed_watts
        charged = fixed + ledger.charged_watts
    fields = {
        "plan": _known(
            {
                "id": plan.plan_id,
                "expiresAt": times.to_text(plan.expires_at),
                "gap": plan.gap,
                "rung": plan.rung,
                # Not rounded: a cap compared with a rounded one would seem lowered.
                "capWatts": cap.device_watts(cap.watts),
                "reservedWatts": reserved_watts(situation.targets, plan),
            }
        ),
        "plannedWatts": round(cap.meter_watts(plan.planned_watts), 1),
        "chargedWatts": round(cap.meter_watts(charged), 1),
        "headroomWatts": round(cap.watts - cap.meter_watts(plan.charged_watts), 1),
        "shadowPrice": plan.shadow_price,
        "bindingCap": CLUSTER if plan.is_binding else "",
    }
    return _known(fields)


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _targets(
    world: World,
    situation: Situation,
    decision: Decision,
    steps: Mapping[Key, Step],
    results: Mapping[Key, Outcome],
) -> list[dict[str, Any]]:
    entries = []
    for target in sorted(world.targets, key=lambda item: item.key):
        planned = situation.plan.targets.get(target.workload_key) if situation.plan else None
        step = steps.get(target.key)
        record = _record(target, planned, step, results.get(target.key))
        state = target.state
        if state is TargetState.MANAGED and situation.plan is not None:
            is_planned = planned is not None and planned.status is PlanStatus.PLANNED
            state = TargetState.MANAGED if is_planned else TargetState.HELD
        wanted = None
        if planned is not None and planned.status is not PlanStatus.CHARGED:
            wanted = target.clamp(planned.replicas)
        entries.append(
            status.target_status(
                target,
                record,
                state=state.value,
                planned=wanted,
                reason=_reason(target, planned, wanted, record, decision, situation),
            )
        )
    shown = {target.key for target in world.targets}
    for target in world.released:
        result = results.get(target.key)
        if target.key not in shown and not (result and result.is_applied):
            entries.append(
                status.remembered_status(
                    _record(target, None, steps.get(target.key), result),
                    reason="no longer selected; the user's maximum is being restored",
                )
            )
    return entries


def _record(
    target: Target, planned: TargetPlan | None, step: Step | None, outcome: Outcome | None
) -> Record:
    record = target.record
    if planned is not None and planned.status is PlanStatus.CHARGED:
        # The plan reserves its watts; kept here too they would be charged twice.
        record = replace(record, watts_per_replica=None)
    elif planned is not None:
        record = replace(
            record,
            safe_max=target.clamp(min(planned.safe_max, target.clamp(planned.replicas))),
            watts_per_replica=planned.watts_per_replica or None,
            mean_watts_per_replica=planned.mean_watts_per_replica(target.present) or None,
        )
    if step is None:
        return replace(record, allowed=target.current)
    if outcome is not None and outcome.is_applied:
        is_user_value = step.reason is StepReason.RESTORE or step.after >= effective_max(
            record.user_max
        )
        return replace(
            record,
            written=None if is_user_value else step.after,
            previous=None,
            allowed=step.after,
        )
    # Not written yet, or not known to be: both values are the operator's own until seen.
    return replace(
        record,
        written=step.after,
        previous=step.before,
        allowed=min(step.before, step.after),
    )


def _reason(
    target: Target,
    planned: TargetPlan | None,
    wanted: int | None,
    record: Record,
    decision: Decision,
    situation: Situation,
) -> str:
    parts = [target.reason] if target.reason else []
    if planned is not None and planned.reason:
        parts.append(planned.reason)
    elif target.is_writable and situation.plan is not None and planned is None:
        parts.append("the planner says nothing about it: left alone")
    if target.is_writable and situation.plan is None and situation.refusal:
        parts.append(f"no fresh plan: {verdicts.INVALID_SPEC}")
    elif target.is_writable and situation.plan is None and situation.failure is not None:
        parts.append(f"no fresh plan: {situation.failure.kind.value}")
    is_auto = situation.spec.rollout is Rollout.AUTO
    if is_auto and wanted is not None and record.allowed is not None and wanted > record.allowed:
        why = decision.no_raise_reason or "watts are not free yet"
        parts.append(f"waits to rise to {wanted}: {why}")
    if target.enforced > max(target.current, record.allowed or 0):
        parts.append(f"its autoscaler still enforces {target.enforced}")
    return "; ".join(parts)[: conditions.MESSAGE_CHARACTERS]


def _managed(world: World) -> str:
    managed = sum(target.is_writable for target in world.targets)
    return f"{managed}/{len(world.targets)}"
