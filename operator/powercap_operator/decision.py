"""The decision of one cycle: from what is known to the steps, with no input or output of its own.

Raises need everything at once: a fresh plan, a known charge for every target, fresh measured watts
under the cap, and no shedding still taking effect. Whatever fails, a lowering is still possible
and a raise is not.
"""

from __future__ import annotations

import datetime
import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from powercap_operator import fallback, rollout
from powercap_operator.ledger import Entry, Key, Ledger
from powercap_operator.plan import CapPlan, Measurement, PlanStatus, TargetPlan
from powercap_operator.policy import PowerCapSpec, Rollout
from powercap_operator.rollout import Step, StepReason, Wish
from powercap_operator.targets import Target


class FailureKind(enum.StrEnum):
    """Why there is no fresh plan; the words are reasons of conditions."""

    UNREACHABLE = "PlannerUnreachable"
    NOT_READY = "MetricsMissing"
    REFUSED = "RequestRefused"
    UNUSABLE = "AnswerUnusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The planner gave no plan that may be used."""

    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInForce:
    """What the status keeps of the last plan."""

    plan_id: str
    expires_at: datetime.datetime
    cap_watts: float | None = None
    """The cap it was made for, at GPUs and hosts; None when not remembered."""
    reserved_watts: float | None = None
    """What it left to no maximum, at GPUs and hosts: base, unmanaged, charges only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """Running watts that lowerings took off, which the meter may not show yet."""

    time: datetime.datetime
    watts: float
    """At GPUs and hosts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that one decision is made from."""

    spec: PowerCapSpec
    targets: tuple[Target, ...]
    plan: CapPlan | None
    """None: not asked, or failed."""
    failure: Failure | None
    measurement: Measurement | None
    in_force: PlanInForce | None
    last_shed_at: datetime.datetime | None
    settling: Settling | None
    now: datetime.datetime
    settle_seconds: float
    """From a lowering to the end of its pods and the next scrape, s."""
    refusal: str = ""
    """Why ``spec`` is not the one written in the PowerCap; empty when it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do, and what to say about it."""

    steps: tuple[Step, ...] = ()
    """In the order of writing: every lowering before the first raise."""
    shed_watts: float = 0.0
    lowered_watts: float = 0.0
    """Mean W of running replicas that the steps take off, shedding included."""
    no_raise_reason: str = ""
    """Why nothing may rise; empty when raises were free to happen."""
    fallback: StepReason | None = None
    over_watts: float = 0.0
    """Upper W at GPUs and hosts that floors keep above a cap lowered without a plan."""
    ledger: Ledger | None = None
    """Charges before the steps; None without a plan."""


def decide(situation: Situation) -> Decision:
    """Decide one full cycle."""
    ledger = None if situation.plan is None else _ledger(situation.targets, situation.plan)
    if situation.spec.rollout is not Rollout.AUTO:
        return Decision(no_raise_reason="the rollout is Advisory", ledger=ledger)
    steps: tuple[Step, ...] = ()
    reason, over_watts = None, 0.0
    if situation.plan is None or ledger is None:
        failed = situation.failure.message if situation.failure else "no fresh plan"
        blocked = situation.refusal or failed
        reason = fallback.reason_at(
            situation.now,
            expires_at=situation.in_force.expires_at if situation.in_force else None,
        )
        if reason is not None:
            steps, over_watts = _fallback_steps(situation, reason)
    else:
        blocked = _no_raise_reason(situation, situation.plan)
        wishes = _wishes(situation.targets, situation.plan)
        if blocked:
            steps = rollout.lowering_steps(wishes, reason=StepReason.PLAN)
        else:
            steps = rollout.plan_steps(wishes, ledger=ledger)
    shed_steps, shed_watts = _shed(situation, steps)
    steps = _merged(steps, shed_steps)
    return Decision(
        steps=steps,
        shed_watts=shed_watts,
        lowered_watts=_running_watts(situation, steps),
        no_raise_reason=blocked,
        fallback=reason,
        over_watts=over_watts,
        ledger=ledger,
    )


def decide_shedding(situation: Situation) -> Decision:
    """Decide between cycles: shed when measured watts pass the cap, and nothing else."""
    if situation.spec.rollout is not Rollout.AUTO:
        return Decision()
    steps, watts = _shed(situation, ())
    return Decision(steps=steps, shed_watts=watts, lowered_watts=_running_watts(situation, steps))


def settling_after(situation: Situation, lowered_watts: float) -> Settling | None:
    """Return what the meter may not show yet once ``lowered_watts`` more are on their way."""
    earlier = _unsettled_watts(situation)
    if lowered_watts <= 0:
        return situation.settling if earlier else None
    return Settling(time=situation.now, watts=earlier + lowered_watts)


def is_over_cap(situation: Situation) -> bool | None:
    """Tell whether fresh measured watts pass the cap; None when there are none."""
    measurement, cap = situation.measurement, situation.spec.cap
    if measurement is None or not measurement.is_fresh(cap=cap, now=situation.now):
        return None
    return measurement.watts is not None and measurement.watts > cap.watts


def _ledger(targets: tuple[Target, ...], plan: CapPlan) -> Ledger:
    entries: dict[Key, Entry] = {}
    for target in targets:
        planned = _planned(target, plan)
        # Held targets are in the plan's fixed watts, at what is allowed or present.
        is_planned = planned is not None and planned.status is PlanStatus.PLANNED
        if planned is None or not is_planned or planned.watts_per_replica <= 0:
            continue
        entries[target.key] = Entry(
            allowed=target.enforced,
            present=target.enforced if target.present is None else target.present,
            watts_per_replica=planned.watts_per_replica,
        )
    return Ledger(entries=entries, available_watts=plan.available_watts)


def _planned(target: Target, plan: CapPlan) -> TargetPlan | None:
    """Return the plan for a writable target; charges only are in the plan's fixed watts."""
    planned = plan.targets.get(target.workload_key)
    if not target.is_writable or planned is None or planned.status is PlanStatus.CHARGED:
        return None
    return planned


def _wishes(targets: tuple[Target, ...], plan: CapPlan) -> tuple[Wish, ...]:
    wishes = []
    for target in targets:
        planned = _planned(target, plan)
        if planned is None:
            continue
        desired = target.clamp(planned.replicas)
        if planned.status is PlanStatus.HELD:
            desired = min(desired, target.current)
        wishes.append(
            Wish(
                key=target.key,
                current=target.current,
                desired=desired,
                priority=target.policy.priority,
                weight=target.policy.weight,
            )
        )
    return tuple(wishes)


def _no_raise_reason(situation: Situation, plan: CapPlan) -> str:
    for target in situation.targets:
        why = _uncharged(target, plan) if target.is_writable else ""
        if why:
            return why
    is_over = is_over_cap(situation)
    if is_over is None:
        reason = situation.measurement.reason if situation.measurement else "no answer"
        return f"watts are not measured: {reason or 'too old'}"
    if is_over:
        return "measured watts are above the cap"
    shed_at = situation.last_shed_at
    if shed_at is not None and situation.now - shed_at < _lag(situation):
        return "shedding is still taking effect"
    return ""


def _uncharged(target: Target, plan: CapPlan) -> str:
    """Return why the plan does not charge a target for all it may run; empty when it does."""
    name = f"{target.key[0]}/{target.key[1]}"
    planned = plan.targets.get(target.workload_key)
    if planned is None or planned.watts_per_replica <= 0:
        return f"the charge of {name} is not known"
    most = max(planned.replicas, target.present or 0)
    if planned.status is PlanStatus.HELD and target.enforced > most:
        return f"{name} is held at {planned.replicas} and not lowered yet"
    return ""


def reserved_watts(targets: Sequence[Target], plan: CapPlan) -> float:
    """Return what a plan leaves to no maximum, W at GPUs and hosts: base, unmanaged, charges only.

    Held targets are among the plan's charges but may still be lowered.
    """
    planned = [_planned(target, plan) for target in targets]
    held = [item for item in planned if item is not None and item.status is PlanStatus.HELD]
    fixed = max(0.0, plan.fixed_watts - math.fsum(item.charged_watts for item in held))
    return plan.base_watts + plan.unmanaged_watts + fixed


def _fallback_steps(situation: Situation, reason: StepReason) -> tuple[tuple[Step, ...], float]:
    holdings = [
        fallback.Holding(
            key=target.key,
            current=target.current,
            in_force=target.record.allowed,
            safe_max=target.record.safe_max,
            present=target.present,
            floor=target.floor,
            soft_floor=target.soft_floor,
            watts_per_replica=target.record.watts_per_replica,
            priority=target.policy.priority,
            weight=target.policy.weight,
        )
        for target in situation.targets
        if target.is_writable
    ]
    steps = rollout.lowering_steps(fallback.wishes(holdings, reason=reason), reason=reason)
    available_watts = _available_under_lowered_cap(situation)
    if available_watts is None:
        return steps, 0.0
    lower, over_watts = fallback.within_lowered_cap(
        holdings, reason=reason, available_watts=available_watts
    )
    return _merged(steps, lower), over_watts


def _available_under_lowered_cap(situation: Situation) -> float | None:
    """Return the W above base that writable targets may be charged; None: the cap did not fall."""
    last, cap = situation.in_force, situation.spec.cap
    cap_watts = cap.device_watts(cap.watts)
    if last is None or last.cap_watts is None or last.reserved_watts is None:
        return None
    if cap_watts >= last.cap_watts:
        return None
    # Paused or taken over since the plan: not in what it reserved, and nothing to lower.
    lost = math.fsum(
        max(target.enforced, target.present or 0) * (target.record.watts_per_replica or 0.0)
        for target in situation.targets
        if not target.is_writable
    )
    return cap_watts - last.reserved_watts - lost


def _shed(situation: Situation, steps: tuple[Step, ...]) -> tuple[tuple[Step, ...], float]:
    """Return what must go on top of ``steps`` to bring measured watts under the cap."""
    measurement, cap = situation.measurement, situation.spec.cap
    if not is_over_cap(situation) or measurement is None or measurement.watts is None:
        return (), 0.0
    mean_watts = _mean_watts(situation)
    lowered = {step.key: step.after for step in steps if not step.is_raise}
    candidates = []
    leaving_watts = 0.0
    for target in situation.targets:
        watts = mean_watts.get(target.key)
        if not target.is_writable or watts is None or target.present is None:
            continue
        leaving_watts += max(0, target.present - target.current) * watts
        candidates.append(
            rollout.Sheddable(
                key=target.key,
                current=lowered.get(target.key, target.current),
                present=target.present,
                floor=target.floor,
                soft_floor=target.soft_floor,
                watts_per_replica=watts,
                priority=target.policy.priority,
                weight=target.policy.weight,
            )
        )
    # What was lowered a moment ago is still on the meter: pods end, the mean lags its window.
    on_its_way = max(leaving_watts, _unsettled_watts(situation))
    on_its_way += _running_watts(situation, steps)
    excess = (measurement.watts - cap.watts) / cap.overhead_factor
    return rollout.shedding_steps(candidates, excess_watts=excess - on_its_way)


def _unsettled_watts(situation: Situation) -> float:
    settling = situation.settling
    if settling is None or situation.now - settling.time >= _lag(situation):
        return 0.0
    return settling.watts


def _running_watts(situation: Situation, steps: tuple[Step, ...]) -> float:
    """Return the mean watts of running replicas that the lowerings among ``steps`` end."""
    mean_watts = _mean_watts(situation)
    lowered = {step.key: step.after for step in steps if not step.is_raise}
    return math.fsum(
        max(0, min(target.current, target.present or 0) - lowered[target.key])
        * mean_watts.get(target.key, 0.0)
        for target in situation.targets
        if target.key in lowered
    )


def _mean_watts(situation: Situation) -> Mapping[Key, float]:
    """Return what one replica less saves: by the fresh plan, else as remembered."""
    found: dict[Key, float] = {}
    for target in situation.targets:
        watts = target.record.mean_watts_per_replica
        if situation.plan is not None:
            planned = situation.plan.targets.get(target.workload_key)
            if planned is not None:
                watts = planned.mean_watts_per_replica(target.present)
        if watts is not None and math.isfinite(watts) and watts > 0:
            found[target.key] = watts
    return found


def _lag(situation: Situation) -> datetime.timedelta:
    return datetime.timedelta(seconds=situation.spec.cap.window_seconds + situation.settle_seconds)


def _merged(steps: tuple[Step, ...], shed: tuple[Step, ...]) -> tuple[Step, ...]:
    """Join two sets of steps; per target the lower maximum wins."""
    chosen = {step.key: step for step in steps}
    for step in shed:
        other = chosen.get(step.key)
        before = step.before if other is None else other.before
        chosen[step.key] = replace(step, before=before)
    lowered = [step for step in chosen.values() if not step.is_raise]
    return (*lowered, *(step for step in chosen.values() if step.is_raise))
