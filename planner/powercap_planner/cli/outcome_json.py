"""Plans as JSON for ``--json``: every number with its unit in its name."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from powercap_planner.outcome import PlanOutcome
from powercap_planner.units import utc_text


def outcome_to_dict(outcome: PlanOutcome) -> dict[str, Any]:
    """Return the plan as JSON values; what is not known is None."""
    plan = outcome.plan
    document = {
        "plan_id": outcome.plan_id,
        "planned_at": utc_text(outcome.planned_at_seconds),
        "expires_at": utc_text(outcome.expires_at_seconds),
        "status": plan.status.value,
        "rung": plan.rung,
        "targets": [{**asdict(one), "status": one.status.value} for one in outcome.targets],
        "caps": [asdict(one) for one in outcome.caps],
        "stages": [
            {**asdict(stage), "stopped_by": stage.stopped_by.value} for stage in plan.stages
        ],
        "yielded_floors": [asdict(one) for one in plan.yielded_floors],
        "findings": [asdict(one) for one in outcome.findings],
    }
    return dict(without_nan(document))


def without_nan(value: Any) -> Any:
    """Return a JSON value with None for what is not known or has no end."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return value
