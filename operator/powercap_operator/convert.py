"""Between the operator's values and the planner's messages; a bad answer stops here."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from powercap_operator.errors import PlanError
from powercap_operator.plan import CapPlan, Measurement, PlanStatus, TargetPlan, WorkloadKey
from powercap_operator.policy import Cap, ObjectiveType, PowerCapSpec, ReplicaRule
from powercap_operator.targets import Charge, Target
from powercap_proto.v1 import planner_pb2

CLUSTER = "cluster"
"""Name of the one domain served so far."""
CYCLES_VALID = 3
"""A plan stays in force for this many cycles without another."""

_KINDS = {
    ObjectiveType.THROUGHPUT_PER_WATT: planner_pb2.Objective.KIND_THROUGHPUT_PER_WATT,
    ObjectiveType.THROUGHPUT: planner_pb2.Objective.KIND_THROUGHPUT,
}
_RULES = {
    ReplicaRule.CEILING: planner_pb2.Deployment.REPLICA_RULE_CEILING,
    ReplicaRule.FIXED: planner_pb2.Deployment.REPLICA_RULE_FIXED,
}
_STATUSES = {
    planner_pb2.DeploymentReplicas.STATUS_PLANNED: PlanStatus.PLANNED,
    planner_pb2.DeploymentReplicas.STATUS_HELD: PlanStatus.HELD,
    planner_pb2.DeploymentReplicas.STATUS_CHARGED: PlanStatus.CHARGED,
}


def plan_request(
    spec: PowerCapSpec,
    targets: Iterable[Target],
    *,
    charges: Iterable[Charge] = (),
    is_plan_in_force: bool,
) -> planner_pb2.CalculateOptimalReplicasRequest:
    """Ask for a plan of the targets; what another PowerCap governs is charged, not planned."""
    objective = planner_pb2.Objective(
        kind=_KINDS[spec.objective.type],
        price_weight=spec.objective.price_weight,
        carbon_weight=spec.objective.carbon_weight,
        stability_tolerance_fraction=spec.objective.stability_tolerance_fraction,
    )
    if spec.objective.served_share_fraction is not None:
        objective.served_share_fraction = spec.objective.served_share_fraction
    asked = [_deployment(target, is_plan_in_force=is_plan_in_force) for target in targets]
    return planner_pb2.CalculateOptimalReplicasRequest(
        deployments=_with_charges(asked, charges),
        caps=[_cap(spec.cap)],
        objective=objective,
        grid_zone=spec.grid_zone,
        valid_seconds=CYCLES_VALID * spec.interval_seconds,
    )


def status_request(cap: Cap) -> planner_pb2.GetStatusRequest:
    """Ask what is measured against the cap."""
    return planner_pb2.GetStatusRequest(caps=[_cap(cap)])


def _cap(cap: Cap) -> planner_pb2.Cap:
    return planner_pb2.Cap(
        name=CLUSTER,
        watts=cap.watts,
        window_seconds=cap.window_seconds,
        overhead_factor=cap.overhead_factor,
        fixed_overhead_watts=cap.fixed_overhead_watts,
    )


def _deployment(target: Target, *, is_plan_in_force: bool) -> planner_pb2.Deployment:
    namespace, name = target.workload_key
    message = planner_pb2.Deployment(
        namespace=namespace,
        name=name,
        weight=target.policy.weight,
        priority=target.policy.priority,
        is_fixed_charge=target.is_fixed_charge,
        replica_rule=_RULES[target.policy.replica_rule],
    )
    if target.present is not None:
        message.present_replicas = target.present
    # Without a plan the user's own maximum is no allowance: a target without data would be
    # charged for all of it.
    is_in_force = is_plan_in_force and target.record.allowed is not None
    if target.is_fixed_charge or is_in_force:
        message.allowed_replicas = target.enforced
    if not target.is_fixed_charge:
        message.min_replicas = target.soft_floor
        message.max_replicas = target.ceiling
        message.min_served_fraction = target.policy.min_served_fraction
    return message


def _with_charges(
    asked: Sequence[planner_pb2.Deployment], charges: Iterable[Charge]
) -> list[planner_pb2.Deployment]:
    """Add what others write; of one they contest the larger of what is seen and stated counts."""
    stated = {charge.workload_key: charge for charge in charges}
    made = [item for item in asked if (item.namespace, item.name) not in stated]
    seen = {(item.namespace, item.name): item for item in asked}
    for (namespace, name), charge in stated.items():
        item = planner_pb2.Deployment(namespace=namespace, name=name, is_fixed_charge=True)
        known = seen.get((namespace, name), item)
        item.allowed_replicas = max(charge.allowed, known.allowed_replicas)
        if charge.present is not None or known.HasField("present_replicas"):
            item.present_replicas = max(charge.present or 0, known.present_replicas)
        made.append(item)
    return made


def read_plan(
    response: planner_pb2.CalculateOptimalReplicasResponse,
    *,
    cap: Cap,
    charges: Iterable[Charge] = (),
    now: datetime.datetime,
) -> CapPlan:
    """Read a plan; what another PowerCap states is charged at no less than it states.

    Raises:
        PlanError: the answer is incomplete, expired or holds impossible numbers.
    """
    if not response.HasField("expires_at"):
        raise PlanError("the plan has no expiry")
    expires_at = _time(response.expires_at)
    if expires_at <= now:
        raise PlanError(f"the plan expired at {expires_at.isoformat()}; the time is {now}")
    results = [result for result in response.caps if result.name == CLUSTER]
    if len(results) != 1:
        raise PlanError(f"the plan holds {len(results)} results for the cap; accepted: one")
    result = results[0]
    base = _checked("base_watts", result.base_watts)
    unmanaged = _checked("unmanaged_watts", result.unmanaged_watts)
    targets = _targets(response)
    missing = math.fsum(_missing_watts(charge, targets) for charge in charges)
    fixed = _checked("fixed_watts", result.fixed_watts) + missing
    # The planner states what is left; the operator believes no more than its own sum.
    own_available = cap.device_watts(cap.watts) - base - unmanaged - fixed
    return CapPlan(
        plan_id=response.plan_id,
        expires_at=expires_at,
        targets=targets,
        base_watts=base,
        unmanaged_watts=unmanaged,
        fixed_watts=fixed,
        available_watts=min(
            _finite("available_watts", result.available_watts) - missing, own_available
        ),
        planned_watts=_checked("planned_watts", result.planned_watts),
        charged_watts=_checked("charged_watts", result.charged_watts) + missing,
        shadow_price=_shown(result.shadow_price_high),
        is_binding=result.is_binding,
        is_feasible=response.status != "cap_infeasible",
        least_cap_watts=result.least_cap_watts or None,
        gap=_worst_gap(stage.gap for stage in response.stages),
        rung=response.rung,
        findings=tuple((item.reason, _finding_text(item)) for item in response.findings),
    )


def read_measurement(response: planner_pb2.GetStatusResponse) -> Measurement:
    """Read what is measured against the cap; a number that cannot be is no measurement."""
    for status in response.caps:
        if status.name != CLUSTER:
            continue
        watts = status.measured_watts if status.HasField("measured_watts") else None
        reason = status.reason
        if watts is not None and not (math.isfinite(watts) and watts >= 0):
            reason = f"measured watts are {watts}; accepted: 0 or more, finite"
            watts = None
        has_time = status.HasField("measured_at")
        return Measurement(
            watts=watts,
            measured_at=_time(status.measured_at) if has_time else None,
            source=status.source,
            reason=reason or ("" if watts is not None else "the planner gives no reason"),
        )
    return Measurement(
        watts=None, measured_at=None, source="", reason="the planner reports no such cap"
    )


def _targets(
    response: planner_pb2.CalculateOptimalReplicasResponse,
) -> dict[WorkloadKey, TargetPlan]:
    targets: dict[WorkloadKey, TargetPlan] = {}
    for item in response.deployment_replicas:
        key = (item.namespace, item.name)
        where = f"{item.namespace}/{item.name}"
        if key in targets:
            raise PlanError(f"the plan names {where} twice")
        status = _STATUSES.get(item.status)
        if status is None:
            # 0 and unset replicas are the same on the wire: without a status nothing is meant.
            continue
        if item.optimal_replicas < 0 or item.safe_max_replicas < 0:
            raise PlanError(f"{where}: the plan holds negative replicas")
        targets[key] = TargetPlan(
            status=status,
            replicas=item.optimal_replicas,
            safe_max=item.safe_max_replicas,
            watts_per_replica=_checked(
                f"{where} charged_watts_per_replica", item.charged_watts_per_replica
            ),
            planned_watts=_checked(f"{where} planned_watts", item.planned_watts),
            reason=item.reason,
            charged_watts=_checked(f"{where} charged_watts", item.charged_watts),
        )
    return targets


def _missing_watts(charge: Charge, targets: Mapping[WorkloadKey, TargetPlan]) -> float:
    planned = targets.get(charge.workload_key)
    return max(0.0, charge.watts - (planned.charged_watts if planned else 0.0))


def _finding_text(item: planner_pb2.Finding) -> str:
    return f"{item.deployment}: {item.message}" if item.deployment else item.message


def _shown(value: float) -> float | None:
    """Return a number that is only shown; JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def _worst_gap(gaps: Iterable[float]) -> float | None:
    found = list(gaps)
    if not found or not all(math.isfinite(gap) for gap in found):
        return None
    return max(abs(gap) for gap in found)


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise PlanError(f"{name} is {value}; accepted: finite")
    return value


def _checked(name: str, value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise PlanError(f"{name} is {value}; accepted: 0 or more, finite")
    return value


def _time(stamp: Timestamp) -> datetime.datetime:
    return stamp.ToDatetime(tzinfo=datetime.UTC)
