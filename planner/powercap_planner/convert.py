"""Between messages of the wire and the planner's own values; messages stop here.

What a request leaves unset means the documented default; what cannot be is refused by the path
of its field. Nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from powercap_planner.curves.model import DeploymentModel
from powercap_planner.errors import RequestError
from powercap_planner.observations import Finding, ReplicaRule
from powercap_planner.outcome import CapOutcome, PlanOutcome, TargetOutcome, TargetStatus
from powercap_planner.request import (
    CLUSTER,
    CapSpec,
    ObjectiveKind,
    ObjectiveSpec,
    PlanRequest,
    TargetSpec,
)
from powercap_planner.status import CapMeasurement, PlannerStatus
from powercap_proto.v1 import planner_pb2 as pb

DEFAULT_NAMESPACE = "default"
"""Of a deployment that names none, as in Kubernetes."""
DEFAULT_WINDOW_SECONDS = 60.0
DEFAULT_VALID_SECONDS = 180.0

_KINDS: dict[int, ObjectiveKind] = {
    pb.Objective.KIND_UNSPECIFIED: ObjectiveKind.THROUGHPUT_PER_WATT,
    pb.Objective.KIND_THROUGHPUT_PER_WATT: ObjectiveKind.THROUGHPUT_PER_WATT,
    pb.Objective.KIND_THROUGHPUT: ObjectiveKind.THROUGHPUT,
}
_RULES: dict[int, ReplicaRule] = {
    pb.Deployment.REPLICA_RULE_UNSPECIFIED: ReplicaRule.CEILING,
    pb.Deployment.REPLICA_RULE_CEILING: ReplicaRule.CEILING,
    pb.Deployment.REPLICA_RULE_FIXED: ReplicaRule.FIXED,
}
_STATUSES = {
    TargetStatus.PLANNED: pb.DeploymentReplicas.STATUS_PLANNED,
    TargetStatus.HELD: pb.DeploymentReplicas.STATUS_HELD,
    TargetStatus.CHARGED: pb.DeploymentReplicas.STATUS_CHARGED,
}
_Value = TypeVar("_Value")


def request_from_message(message: pb.CalculateOptimalReplicasRequest) -> PlanRequest:
    """Return what is asked.

    Raises:
        RequestError: with the path of the refused field.
    """
    if not message.deployments:
        raise RequestError("deployments", "is empty; accepted: at least one")
    return PlanRequest(
        targets=tuple(
            _below(f"deployments[{index}].", partial(_target, one))
            for index, one in enumerate(message.deployments)
        ),
        caps=_caps(message),
        objective=_below("objective.", partial(_objective, message.objective)),
        grid_zone=message.grid_zone,
        valid_seconds=message.valid_seconds or DEFAULT_VALID_SECONDS,
    )


def caps_from_status_request(message: pb.GetStatusRequest) -> tuple[CapSpec, ...]:
    """Return the caps whose meters are asked about; the bare cluster when none is named.

    Raises:
        RequestError: with the path of the refused field.
    """
    if not message.caps:
        # Any cap will do: the meter of a bare cluster has no overhead.
        return (CapSpec(watts=1.0),)
    caps = []
    for index, one in enumerate(message.caps):
        # Only the meter is asked for: the watts of the cap need not be known.
        caps.append(_below(f"caps[{index}].", partial(_cap, one, watts=one.watts or 1.0)))
        if caps[-1].name != CLUSTER:
            raise RequestError(
                f"caps[{index}].name", f"is {one.name!r}; accepted so far: {CLUSTER!r}"
            )
    return tuple(caps)


def response_from_outcome(outcome: PlanOutcome) -> pb.CalculateOptimalReplicasResponse:
    """Return the plan as a message."""
    plan = outcome.plan
    return pb.CalculateOptimalReplicasResponse(
        deployment_replicas=[_replicas(one) for one in outcome.targets],
        plan_id=outcome.plan_id,
        planned_at=_timestamp(outcome.planned_at_seconds),
        expires_at=_timestamp(outcome.expires_at_seconds),
        caps=[_cap_result(one) for one in outcome.caps],
        stages=[
            pb.Stage(
                name=stage.name,
                objective=stage.objective,
                bound=stage.bound,
                gap=stage.gap,
                method=stage.method,
                seconds=stage.seconds,
                stopped_by=stage.stopped_by.value,
            )
            for stage in plan.stages
        ],
        rung=plan.rung,
        status=plan.status.value,
        findings=[_finding(one) for one in outcome.findings],
        yielded_floors=[
            pb.YieldedFloor(
                deployment=one.deployment,
                kind=one.kind,
                required=one.required,
                planned=one.planned,
            )
            for one in plan.yielded_floors
        ],
    )


def response_from_status(status: PlannerStatus) -> pb.GetStatusResponse:
    """Return the status as a message."""
    return pb.GetStatusResponse(
        time=_timestamp(status.now_seconds),
        caps=[_cap_status(one) for one in status.caps],
        sources=[
            pb.SourceStatus(
                name=status.source_name,
                is_healthy=not status.source_error,
                message=status.source_error,
                last_success_at=_timestamp(status.observed_at_seconds),
            )
        ],
        models=[_model(key, model) for key, model in sorted(status.models.items())],
        findings=[_finding(one) for one in status.findings],
    )


def _target(message: pb.Deployment) -> TargetSpec:
    return TargetSpec(
        namespace=message.namespace or DEFAULT_NAMESPACE,
        name=message.name,
        min_replicas=message.min_replicas if message.HasField("min_replicas") else None,
        max_replicas=message.max_replicas if message.HasField("max_replicas") else None,
        weight=message.weight if message.HasField("weight") else 1.0,
        priority=message.priority,
        min_served_fraction=message.min_served_fraction,
        replica_rule=_known(_RULES, message.replica_rule, field="replica_rule"),
        allowed_replicas=message.allowed_replicas if message.HasField("allowed_replicas") else None,
        present_replicas=message.present_replicas if message.HasField("present_replicas") else None,
        is_fixed_charge=message.is_fixed_charge,
    )


def _objective(message: pb.Objective) -> ObjectiveSpec:
    default = ObjectiveSpec()
    return ObjectiveSpec(
        kind=_known(_KINDS, message.kind, field="kind"),
        price_weight=(
            message.price_weight if message.HasField("price_weight") else default.price_weight
        ),
        carbon_weight=(
            message.carbon_weight if message.HasField("carbon_weight") else default.carbon_weight
        ),
        served_share_fraction=(
            message.served_share_fraction if message.HasField("served_share_fraction") else None
        ),
        stability_tolerance_fraction=(
            message.stability_tolerance_fraction
            if message.HasField("stability_tolerance_fraction")
            else default.stability_tolerance_fraction
        ),
    )


def _caps(message: pb.CalculateOptimalReplicasRequest) -> tuple[CapSpec, ...]:
    bare = message.power_cap_watts
    if bare < 0 or not math.isfinite(bare):
        raise RequestError("power_cap_watts", f"powerCap is {bare}; accepted: more than 0 W")
    if not message.caps:
        if bare == 0:
            raise RequestError(
                "power_cap_watts", "powerCap is 0 or missing; accepted: more than 0 W, or caps"
            )
        return (CapSpec(watts=bare),)
    caps = tuple(
        _below(f"caps[{index}].", partial(_cap, one, watts=one.watts))
        for index, one in enumerate(message.caps)
    )
    for index, cap in enumerate(caps):
        if bare and cap.name == CLUSTER and cap.watts != bare:
            raise RequestError(
                "power_cap_watts",
                f"powerCap is {bare} and caps[{index}].watts is {cap.watts}; accepted: one of "
                "them, or equal values",
            )
    return caps


def _cap(message: pb.Cap, *, watts: float) -> CapSpec:
    return CapSpec(
        name=message.name or CLUSTER,
        watts=watts,
        window_seconds=message.window_seconds or DEFAULT_WINDOW_SECONDS,
        overhead_factor=message.overhead_factor or 1.0,
        fixed_overhead_watts=message.fixed_overhead_watts,
    )


def _below(path: str, convert: Callable[[], _Value]) -> _Value:
    """Convert a part of a message; its errors name the whole path."""
    try:
        return convert()
    except RequestError as error:
        message = str(error).removeprefix(f"{error.field}: ")
        raise RequestError(path + error.field, message) from error


def _known(values: Mapping[int, _Value], number: int, *, field: str) -> _Value:
    # proto3 enums are open: a newer client may send a number nobody here knows.
    if number not in values:
        accepted = ", ".join(str(one) for one in values)
        raise RequestError(field, f"is {number}, which is unknown; accepted: {accepted}")
    return values[number]


def _replicas(one: TargetOutcome) -> pb.DeploymentReplicas:
    return pb.DeploymentReplicas(
        name=one.name,
        namespace=one.namespace,
        optimal_replicas=one.replicas,
        status=_STATUSES[one.status],
        reason=one.reason,
        planned_watts=one.planned_watts,
        charged_watts=one.charged_watts,
        load_tps=one.load_tps,
        served_tps=one.served_tps,
        safe_max_replicas=one.safe_max_replicas,
        charged_watts_per_replica=one.charged_watts_per_replica,
        gpus_per_replica=one.gpus_per_replica,
        gpu_type=one.gpu_type,
        weight=one.weight,
    )


def _cap_result(one: CapOutcome) -> pb.CapResult:
    return pb.CapResult(
        name=one.name,
        cap_watts=one.cap_watts,
        charged_watts=one.charged_watts,
        planned_watts=one.planned_watts,
        base_watts=one.base_watts,
        unmanaged_watts=one.unmanaged_watts,
        fixed_watts=one.fixed_watts,
        available_watts=one.available_watts,
        headroom_watts=one.headroom_watts,
        shadow_price_low=one.shadow_price_low,
        shadow_price_high=one.shadow_price_high,
        is_binding=one.is_binding,
        least_cap_watts=one.least_cap_watts or 0.0,
    )


def _cap_status(one: CapMeasurement) -> pb.CapStatus:
    return pb.CapStatus(
        name=one.cap.name,
        measured_watts=one.measured_watts,
        measured_at=_timestamp(one.measured_at_seconds),
        age_seconds=one.age_seconds or 0.0,
        source=one.source,
        reason=one.reason,
    )


def _model(key: str, model: DeploymentModel) -> pb.ModelStatus:
    return pb.ModelStatus(
        deployment=key,
        kind=model.kind.value,
        samples=model.samples,
        error_fraction=math.nan if model.error_fraction is None else model.error_fraction,
        support_low_tps=model.support_low_tps,
        support_high_tps=model.support_high_tps,
    )


def _finding(one: Finding) -> pb.Finding:
    return pb.Finding(reason=one.reason, message=one.message, deployment=one.deployment)


def _timestamp(seconds: float | None) -> Timestamp | None:
    if seconds is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return stamp
