"""Observation, models and grid of one moment, matched with what a request asks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powercap_planner.curves.fit import nameplate_model
from powercap_planner.curves.model import DeploymentModel
from powercap_planner.errors import DataMissingError, RequestError
from powercap_planner.forecast.load import LoadForecast
from powercap_planner.forecast.seasonal import forecast_load
from powercap_planner.grid.weight import GridConditions
from powercap_planner.inputs import PlanningInputs, PlanningSettings, TargetInputs
from powercap_planner.observations import (
    ClusterObservation,
    DeploymentObservation,
    Finding,
    FloatArray,
    ReplicaRule,
)
from powercap_planner.outcome import TargetStatus
from powercap_planner.request import PlanRequest, TargetSpec
from powercap_planner.unmanaged import base_watts, unmanaged_watts


def gather_inputs(
    *,
    observation: ClusterObservation,
    models: dict[str, DeploymentModel],
    grid: GridConditions,
    request: PlanRequest,
    now_seconds: float,
    settings: PlanningSettings,
) -> PlanningInputs:
    """Return what the plan follows from; a target with data missing is held, never guessed.

    Raises:
        RequestError: when a target is not known to anybody.
        DataMissingError: when no target has usable data, or nothing bounds the unmanaged watts.
    """
    if not request.targets:
        raise RequestError("deployments", "is empty; accepted: at least one")
    observed = {one.key: one for one in observation.deployments}
    models = {key: _charged_with_parked(model, observation) for key, model in models.items()}
    findings: list[Finding] = [*observation.findings, *grid.findings]
    targets = []
    for index, spec in enumerate(request.targets):
        one = observed.get(spec.key)
        if one is None and spec.allowed_replicas is None and spec.present_replicas is None:
            known = ", ".join(sorted(observed)) or "none"
            raise RequestError(
                f"deployments[{index}]", f"{spec.key} is not measured; accepted: {known}"
            )
        model = models.get(spec.key) or _charged_with_parked(
            nameplate_model(key=spec.key), observation
        )
        target, found = _target(spec, one, model, observation, now_seconds, settings)
        targets.append(target)
        findings += [*model.findings, *found]
    _require_some_data(targets)

    base, base_findings = base_watts(observation)
    unmanaged, unmanaged_findings = unmanaged_watts(
        observation,
        models=models,
        targets=frozenset(one.key for one in targets),
        base=base,
        uncertain_watts=sum(
            one.charged_replicas * one.model.peak_above_parked_watts
            for one in targets
            if one.status is not TargetStatus.PLANNED
        ),
        now_seconds=now_seconds,
        span_seconds=settings.unmanaged_seconds,
    )
    return PlanningInputs(
        targets=tuple(targets),
        cap=request.caps[0],
        objective=request.objective,
        base_watts=base,
        unmanaged_watts=unmanaged,
        grid=grid,
        settings=settings,
        findings=(*findings, *base_findings, *unmanaged_findings),
    )


def _target(
    spec: TargetSpec,
    one: DeploymentObservation | None,
    model: DeploymentModel,
    observation: ClusterObservation,
    now_seconds: float,
    settings: PlanningSettings,
) -> tuple[TargetInputs, tuple[Finding, ...]]:
    present = spec.present_replicas
    if present is None and one is not None:
        present = _last(one.present_replicas)
    maximum = _first(spec.max_replicas, one.max_replicas if one else None)
    findings: list[Finding] = []
    allowed = spec.allowed_replicas
    if maximum is None:
        # A caller that says nothing is allowed writes its answers down: it gets back what was.
        once = _most(one.present_replicas) if one is not None and allowed is None else 0
        maximum = max(allowed or 0, present or 0, once)
        if not maximum:
            raise DataMissingError(
                f"{spec.key}: neither its maximum nor its replicas are known; state max_replicas"
            )
        message = f"no maximum is known: never more than the {maximum} that there were"
        findings.append(Finding(reason="MaximumUnknown", message=message, deployment=spec.key))
    minimum = min(_first(spec.min_replicas, one.min_replicas if one else None, 1) or 0, maximum)
    running_minimum = _first(one.min_replicas if one else None, minimum) or 0
    rule = spec.replica_rule or (one.replica_rule if one else ReplicaRule.CEILING)
    status, note, forecast = _status(spec, one, model, observation, now_seconds, settings)
    if status is TargetStatus.HELD:
        findings.append(Finding(reason="Held", message=note, deployment=spec.key))
        if allowed is None and present is None:
            # Nobody says how many may run: the user's own maximum may.
            allowed = maximum
    return (
        TargetInputs(
            namespace=spec.namespace,
            name=spec.name,
            status=status,
            note=note,
            model=model,
            forecast=forecast,
            replica_rule=rule,
            min_replicas=max(minimum, 1) if rule is ReplicaRule.CEILING else minimum,
            running_min_replicas=running_minimum,
            max_replicas=maximum,
            weight=spec.weight,
            priority=spec.priority,
            min_served_fraction=spec.min_served_fraction,
            allowed_replicas=allowed,
            present_replicas=present,
        ),
        tuple(findings),
    )


def _status(
    spec: TargetSpec,
    one: DeploymentObservation | None,
    model: DeploymentModel,
    observation: ClusterObservation,
    now_seconds: float,
    settings: PlanningSettings,
) -> tuple[TargetStatus, str, LoadForecast | None]:
    if spec.is_fixed_charge:
        return TargetStatus.CHARGED, "the caller cannot change it", None
    if one is None:
        return TargetStatus.HELD, "nothing is measured of it", None
    if not model.is_plannable:
        return TargetStatus.HELD, "no window with watts and tokens was measured", None
    times = observation.time_seconds
    power_age = _age_seconds(times, one.power_watts, now_seconds)
    is_running = _last(one.present_replicas) != 0
    if is_running and power_age > settings.max_age_seconds:
        return TargetStatus.HELD, f"no power measured for {power_age / 60:.0f} min", None
    forecast = forecast_load(
        deployment=one.key,
        time_seconds=times,
        load_tps=one.arrived_tps,
        step_seconds=observation.step_seconds,
        now_seconds=now_seconds,
        horizon_seconds=settings.period_seconds,
        max_age_seconds=settings.max_age_seconds,
    )
    if isinstance(forecast, Finding):
        return TargetStatus.HELD, forecast.message, None
    return TargetStatus.PLANNED, "", forecast


def _charged_with_parked(
    model: DeploymentModel, observation: ClusterObservation
) -> DeploymentModel:
    """Return the model; where the base holds no parked watts of its GPUs, they go with it."""
    is_in_base = model.gpu_type in observation.gpu_count
    return model if is_in_base else replace(model, parked_watts=0.0)


def _require_some_data(targets: list[TargetInputs]) -> None:
    held = [one for one in targets if one.status is TargetStatus.HELD]
    if held and all(one.status is not TargetStatus.PLANNED for one in targets):
        reasons = "; ".join(f"{one.key}: {one.note}" for one in held[:3])
        raise DataMissingError(f"no target has usable data: {reasons}")


def _age_seconds(times: FloatArray, values: FloatArray, now_seconds: float) -> float:
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(values) & (values >= 0) & (times <= now_seconds)
    return now_seconds - float(times[usable][-1] if usable.any() else times[0])


def _last(values: FloatArray) -> int | None:
    with np.errstate(invalid="ignore"):
        usable = values[np.isfinite(values) & (values >= 0)]
    return int(np.ceil(usable[-1])) if usable.size else None


def _most(values: FloatArray) -> int:
    finite = values[np.isfinite(values)]
    return int(np.ceil(finite.max())) if finite.size else 0


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
