"""Planning inputs as part of a problem file, so that a saved problem can be asked what if.

Tables alone cannot answer for another load: how many replicas then run, and what they draw,
follows from curves and forecasts. These stand here, in plain JSON, beside the problem.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from powercap_planner.curves.model import DeploymentModel, ModelKind
from powercap_planner.forecast.load import LoadForecast
from powercap_planner.grid.weight import GridConditions, GridSignal
from powercap_planner.inputs import PlanningInputs, PlanningSettings, TargetInputs
from powercap_planner.observations import Finding, ReplicaRule
from powercap_planner.outcome import TargetStatus
from powercap_planner.request import CapSpec, ObjectiveKind, ObjectiveSpec
from powercap_planner.sources.fields import Fields

VERSION = 1


def inputs_to_dict(inputs: PlanningInputs) -> dict[str, Any]:
    """Return the inputs as JSON values."""
    grid = inputs.grid
    return {
        "version": VERSION,
        "cap": asdict(inputs.cap),
        "objective": {**asdict(inputs.objective), "kind": inputs.objective.kind.value},
        "base_watts": inputs.base_watts,
        "unmanaged_watts": inputs.unmanaged_watts,
        "settings": asdict(inputs.settings),
        "grid": {
            "zone": grid.zone,
            "price": None if grid.price is None else asdict(grid.price),
            "carbon": None if grid.carbon is None else asdict(grid.carbon),
        },
        "targets": [_target_to_dict(one) for one in inputs.targets],
        "findings": [asdict(one) for one in inputs.findings],
    }


def inputs_from_fields(fields: Fields) -> PlanningInputs:
    """Return the inputs written in a file.

    Raises:
        InputFileError: naming the field, the value and what is accepted.
    """
    if (version := fields.whole("version")) != VERSION:
        raise fields.error("version", f"is {version}; accepted: {VERSION}")
    cap, objective, grid = fields.child("cap"), fields.child("objective"), fields.child("grid")
    settings = fields.child("settings")
    share = (
        objective.number("served_share_fraction", low=0)
        if objective.has("served_share_fraction")
        else None
    )
    return PlanningInputs(
        targets=tuple(_target_from_fields(one) for one in fields.children("targets")),
        cap=CapSpec(
            name=cap.text("name"),
            watts=cap.number("watts", above=0),
            window_seconds=cap.number("window_seconds", above=0),
            overhead_factor=cap.number("overhead_factor", low=1),
            fixed_overhead_watts=cap.number("fixed_overhead_watts", low=0),
        ),
        objective=ObjectiveSpec(
            kind=ObjectiveKind(objective.choice("kind", tuple(ObjectiveKind))),
            price_weight=objective.number("price_weight", low=0),
            carbon_weight=objective.number("carbon_weight", low=0),
            served_share_fraction=share,
            stability_tolerance_fraction=objective.number("stability_tolerance_fraction", low=0),
        ),
        base_watts=fields.number("base_watts", low=0),
        unmanaged_watts=fields.number("unmanaged_watts", low=0),
        grid=GridConditions(
            zone=grid.text_or("zone", ""),
            price=_signal(grid, "price"),
            carbon=_signal(grid, "carbon"),
        ),
        settings=PlanningSettings(
            period_seconds=settings.number("period_seconds", above=0),
            target_utilisation_fraction=settings.number("target_utilisation_fraction", above=0),
            max_age_seconds=settings.number("max_age_seconds", above=0),
            unmanaged_seconds=settings.number("unmanaged_seconds", above=0),
        ),
        findings=_findings(fields),
    )


def _target_to_dict(one: TargetInputs) -> dict[str, Any]:
    model, forecast = one.model, one.forecast
    return {
        "namespace": one.namespace,
        "name": one.name,
        "status": one.status.value,
        "note": one.note,
        "replica_rule": one.replica_rule.value,
        "min_replicas": one.min_replicas,
        "running_min_replicas": one.running_min_replicas,
        "max_replicas": one.max_replicas,
        "weight": one.weight,
        "priority": one.priority,
        "min_served_fraction": one.min_served_fraction,
        "allowed_replicas": one.allowed_replicas,
        "present_replicas": one.present_replicas,
        "pinned_replicas": one.pinned_replicas,
        "forecast": None
        if forecast is None
        else {
            "load_tps": forecast.load_tps.tolist(),
            "share": forecast.share.tolist(),
            "method": forecast.method,
        },
        "model": {
            "kind": model.kind.value,
            "gpu_type": model.gpu_type,
            "gpus_per_replica": model.gpus_per_replica,
            "parked_watts": model.parked_watts,
            "knot_tps": model.knot_tps.tolist(),
            "mean_watts": model.mean_watts.tolist(),
            "upper_watts": model.upper_watts.tolist(),
            "peak_upper_watts": model.peak_upper_watts,
            "nameplate_watts": model.nameplate_watts,
            "saturated_tps": model.saturated_tps,
            "capacity_tps": model.capacity_tps,
            "support_low_tps": model.support_low_tps,
            "support_high_tps": model.support_high_tps,
            "samples": model.samples,
            "error_fraction": model.error_fraction,
            "coverage_fraction": model.coverage_fraction,
        },
    }


def _target_from_fields(fields: Fields) -> TargetInputs:
    status = TargetStatus(fields.choice("status", tuple(TargetStatus)))
    if status is TargetStatus.PLANNED and not fields.has("forecast"):
        raise fields.error("forecast", "is missing; a planned target needs one")
    return TargetInputs(
        namespace=fields.text("namespace"),
        name=fields.text("name"),
        status=status,
        note=fields.text_or("note", ""),
        model=_model(fields.child("model")),
        forecast=_forecast(fields.child("forecast")) if fields.has("forecast") else None,
        replica_rule=ReplicaRule(fields.choice("replica_rule", tuple(ReplicaRule))),
        min_replicas=fields.whole("min_replicas"),
        running_min_replicas=fields.whole("running_min_replicas"),
        max_replicas=fields.whole("max_replicas", low=1),
        weight=fields.number("weight", above=0),
        priority=fields.whole("priority", low=-(2**31)),
        min_served_fraction=fields.number("min_served_fraction", low=0),
        allowed_replicas=fields.whole_or_none("allowed_replicas"),
        present_replicas=fields.whole_or_none("present_replicas"),
        pinned_replicas=fields.whole_or_none("pinned_replicas"),
    )


def _model(fields: Fields) -> DeploymentModel:
    knots = fields.series("knot_tps")
    if not np.isfinite(knots).all() or (np.diff(knots) <= 0).any():
        raise fields.error("knot_tps", "does not ascend; accepted: loads in order")
    return DeploymentModel(
        kind=ModelKind(fields.choice("kind", tuple(ModelKind))),
        gpu_type=fields.text_or("gpu_type", ""),
        gpus_per_replica=fields.whole("gpus_per_replica"),
        parked_watts=fields.number("parked_watts", low=0),
        knot_tps=knots,
        mean_watts=fields.series("mean_watts", length=knots.size),
        upper_watts=fields.series("upper_watts", length=knots.size),
        peak_upper_watts=fields.number("peak_upper_watts", above=0),
        nameplate_watts=fields.number("nameplate_watts", above=0),
        saturated_tps=fields.number("saturated_tps", low=0),
        capacity_tps=fields.number("capacity_tps", low=0),
        support_low_tps=fields.number("support_low_tps", low=0),
        support_high_tps=fields.number("support_high_tps", low=0),
        samples=fields.whole("samples"),
        error_fraction=_number_or_none(fields, "error_fraction"),
        coverage_fraction=_number_or_none(fields, "coverage_fraction"),
    )


def _forecast(fields: Fields) -> LoadForecast:
    load = fields.series("load_tps")
    share = fields.series("share", length=load.size)
    if not load.size or not np.isfinite(load).all() or not np.isclose(share.sum(), 1.0):
        raise fields.error("share", "does not sum to 1 over known loads")
    return LoadForecast(load_tps=load, share=share, method=fields.text_or("method", ""))


def _signal(grid: Fields, key: str) -> GridSignal | None:
    if not grid.has(key):
        return None
    fields = grid.child(key)
    return GridSignal(
        value=fields.number("value"),
        reference=fields.number("reference"),
        unit=fields.text_or("unit", ""),
        source=fields.text_or("source", ""),
        age_seconds=fields.number("age_seconds", low=0),
    )


def _findings(fields: Fields) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            reason=one.text("reason"),
            message=one.text_or("message", ""),
            deployment=one.text_or("deployment", ""),
        )
        for one in fields.children("findings")
    )


def _number_or_none(fields: Fields, key: str) -> float | None:
    return fields.number(key, low=0) if fields.has(key) else None
