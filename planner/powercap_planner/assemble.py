"""The planning problem tabulated from the inputs.

For a deployment with load scenarios L[s] of share p[s], capacity c, saturated throughput m and
curve w (watts of one replica, parked watts w0 of its GPUs), the option "up to n replicas" has

    running  r[s]   = n when all replicas run (rule fixed), else clip(ceil(L[s] / (u c)), min, n)
    served          = sum over s of p[s] min(L[s], n c)
    power           = sum over s of p[s] r[s] (w(min(L[s] / r[s], m)) - w0)
    upper           = n (peak upper watts - w0)

with u the target utilisation. One domain, the cluster; one zone; one period.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from powercap_planner.forecast.load import LoadForecast
from powercap_planner.grid.weight import served_share
from powercap_planner.inputs import PlanningInputs, TargetInputs
from powercap_planner.observations import FloatArray, ReplicaRule
from powercap_planner.request import CLUSTER
from powercap_solver.problem import IntArray, PlanningProblem

TRANSIENT_FACTOR = 1.3
"""Peaks of 100 ms reach 1.30 times nameplate in measured time lines."""
TRANSIENT_WINDOW_SECONDS = 10.0
"""Caps with a shorter window see such peaks."""
_ROUNDING = 1e-9
"""A load that fills its replicas exactly needs no further one."""


def build_problem(inputs: PlanningInputs) -> PlanningProblem:
    """Return the problem over the planned targets; the others are charged as they are."""
    planned = inputs.planned
    options = [one.options for one in planned]
    width = max((each.size for each in options), default=1)
    shape = (len(planned), width)
    replicas = np.zeros(shape, dtype=np.int64)
    served, power, upper = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for row, (one, counts) in enumerate(zip(planned, options, strict=True)):
        kept = slice(counts.size)
        replicas[row, kept] = counts
        served[row, kept], power[row, kept] = _tables(one, counts, inputs)
        upper[row, kept] = counts * charged_watts_per_replica(one, inputs)
    weight_now = _energy_weight(inputs)
    share = inputs.objective.served_share_fraction
    kept_share = served_share(_stress(inputs)) if share is None else share
    cap = inputs.cap
    return PlanningProblem(
        deployments=tuple(one.key for one in planned),
        domains=(CLUSTER,),
        zones=(inputs.grid.zone or "local",),
        period_seconds=np.array([inputs.settings.period_seconds]),
        option_count=np.array([each.size for each in options], dtype=np.int64),
        replicas=replicas,
        served_tps=served[:, None, :],
        power_watts=power[:, None, :],
        draw_domain=np.zeros(len(planned), dtype=np.int64),
        draw_deployment=np.arange(len(planned), dtype=np.int64),
        upper_watts=upper[:, None, :],
        load_tps=np.array([[_forecast(one).mean_tps] for one in planned]).reshape(-1, 1),
        weight=np.array([target_weight(one) for one in planned]),
        priority=np.array([one.priority for one in planned], dtype=np.int64),
        min_replicas=np.array([_floor(one) for one in planned], dtype=np.int64),
        min_served_fraction=np.array([one.min_served_fraction for one in planned]),
        served_share=np.full((len(planned), 1), kept_share),
        is_ceiling=np.array(
            [one.replica_rule is ReplicaRule.CEILING for one in planned], dtype=np.bool_
        ),
        replicas_in_force=np.array(
            [-1 if one.allowed_replicas is None else one.allowed_replicas for one in planned],
            dtype=np.int64,
        ),
        zone_index=np.zeros(len(planned), dtype=np.int64),
        energy_weight=np.array([[weight_now]]),
        zone_base_watts=np.array([[inputs.base_watts]]),
        cap_watts=np.array([[cap.watts]]),
        overhead_factor=np.array([cap.overhead_factor]),
        fixed_overhead_watts=np.array([cap.fixed_overhead_watts]),
        base_watts=np.array([[inputs.base_watts]]),
        unmanaged_watts=np.array([[inputs.unmanaged_watts]]),
        fixed_watts=np.array(
            [[math.fsum(unplanned_charge_watts(one, inputs) for one in inputs.unplanned)]]
        ),
    )


def build_safe_problem(inputs: PlanningInputs, *, allowed: dict[str, int]) -> PlanningProblem:
    """Return the problem charged by nameplate alone, with no option above what is allowed.

    Its plan holds whatever the curves say: it is what stands when a plan has expired.

    Args:
        inputs: those of the plan.
        allowed: replicas of the plan by ``namespace/name``.
    """
    targets = []
    for one in inputs.targets:
        model = replace(one.model, peak_upper_watts=one.model.nameplate_watts)
        most = allowed.get(one.key, one.max_replicas)
        pinned = one.pinned_replicas
        targets.append(
            replace(
                one,
                model=model,
                max_replicas=min(one.max_replicas, most),
                pinned_replicas=None if pinned is None else min(pinned, most),
            )
        )
    return build_problem(replace(inputs, targets=tuple(targets)))


def target_weight(one: TargetInputs) -> float:
    """Return the value of one served token/s: the asked weight by the tokens' worth.

    Tokens of unlike models are not comparable; the energy the best use of each curve needs for
    one makes them so.
    """
    return one.weight / one.model.best_tokens_per_joule


def charged_watts_per_replica(one: TargetInputs, inputs: PlanningInputs) -> float:
    """Return the upper watts above base that each allowed or present replica is charged."""
    is_short = inputs.cap.window_seconds < TRANSIENT_WINDOW_SECONDS
    return one.model.peak_above_parked_watts * (TRANSIENT_FACTOR if is_short else 1.0)


def unplanned_charge_watts(one: TargetInputs, inputs: PlanningInputs) -> float:
    """Return the upper watts above base of a target that is not planned."""
    return one.charged_replicas * charged_watts_per_replica(one, inputs)


def _tables(
    one: TargetInputs, counts: IntArray, inputs: PlanningInputs
) -> tuple[FloatArray, FloatArray]:
    """Return served tokens/s and mean watts above base, float64[option] each."""
    forecast, model = _forecast(one), one.model
    n = counts[:, None].astype(np.float64)
    load = forecast.load_tps[None, :]
    if one.replica_rule is ReplicaRule.FIXED:
        running = np.broadcast_to(n, (counts.size, load.size))
    else:
        useful = inputs.settings.target_utilisation_fraction * model.capacity_tps
        needed = np.ceil(load / useful - _ROUNDING)
        running = np.minimum(np.maximum(needed, one.running_min_replicas), n)
    each = np.divide(load, running, out=np.zeros(running.shape), where=running > 0)
    watts = model.watts(np.minimum(each, model.saturated_tps))
    # A loaded replica draws no less than its GPUs parked, whatever a fit says.
    above = running * np.maximum(watts - model.parked_watts, 0.0)
    served = np.minimum(load, n * model.capacity_tps)
    return served @ forecast.share, above @ forecast.share


def _forecast(one: TargetInputs) -> LoadForecast:
    if one.forecast is None:
        raise ValueError(f"{one.key} is planned without a forecast")
    return one.forecast


def _floor(one: TargetInputs) -> int:
    return one.min_replicas if one.pinned_replicas is None else one.pinned_replicas


def _energy_weight(inputs: PlanningInputs) -> float:
    objective = inputs.objective
    return inputs.grid.energy_weight(
        price_weight=objective.price_weight, carbon_weight=objective.carbon_weight
    )


def _stress(inputs: PlanningInputs) -> float:
    objective = inputs.objective
    return inputs.grid.stress(
        price_weight=objective.price_weight, carbon_weight=objective.carbon_weight
    )
