"""Plans from observations: what is planned, what is held, what is charged, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from powercap_planner import planning
from powercap_planner.assemble import build_problem
from powercap_planner.curves.fit import fit_models
from powercap_planner.curves.model import DeploymentModel, ModelKind
from powercap_planner.errors import DataMissingError, RequestError
from powercap_planner.forecast.load import LoadForecast
from powercap_planner.grid.weight import GridConditions, GridSignal
from powercap_planner.inputs import PlanningInputs, TargetInputs
from powercap_planner.observations import ClusterObservation, DeploymentObservation, ReplicaRule
from powercap_planner.outcome import PlanOutcome, TargetStatus
from powercap_planner.planning import make_plan, plan_inputs
from powercap_planner.request import (
    CapSpec,
    ObjectiveKind,
    ObjectiveSpec,
    PlanRequest,
    TargetSpec,
)
from powercap_planner.whatif import WhatIf, apply
from powercap_solver.certificate import verify
from powercap_solver.plan import PlanStatus

H100 = "NVIDIA H100 80GB HBM3"
LENGTH = 240
STEP = 60.0
START = 1_700_000_000.0
NOW = START + STEP * LENGTH
TIMES = START + STEP * np.arange(1, LENGTH + 1)
HOST_IDLE = 1000.0
GPUS = 32
BASE = HOST_IDLE + 70.0 * GPUS


def watts_of(each):
    return 70.0 + 600.0 * each / (each + 300.0)


def deployment(name: str, *, seed: int = 0, **changes: Any) -> DeploymentObservation:
    """Return a deployment that is busy, and saturated now and then, on 1 to 4 replicas."""
    rng = np.random.default_rng(seed)
    asked = 5000.0 + 3800.0 * np.sin(np.linspace(0.0, 6.5 * np.pi, LENGTH) + seed)
    replicas = np.clip(np.ceil(asked / 1400.0), 1, 4)
    each = np.minimum(asked / replicas, 2000.0)
    values: dict[str, Any] = {
        "namespace": "llm",
        "name": name,
        "gpu_type": H100,
        "gpus_per_replica": 1,
        "power_watts": replicas * watts_of(each) * (1.0 + rng.normal(0.0, 0.02, LENGTH)),
        "ready_replicas": replicas,
        "present_replicas": replicas,
        "arrived_tps": asked,
        "served_tps": replicas * each,
        "running_requests": np.full(LENGTH, 10.0),
        "waiting_requests": np.where(asked / replicas > 2000.0, 50.0, 0.0),
        "ttft_p95_seconds": np.full(LENGTH, np.nan),
        "itl_p95_seconds": np.full(LENGTH, np.nan),
        "min_replicas": 1,
        "max_replicas": 6,
    }
    return DeploymentObservation(**{**values, **changes})


def cluster(*deployments: DeploymentObservation, **changes: Any) -> ClusterObservation:
    drawn = sum(
        np.nan_to_num(one.power_watts) - 70.0 * np.nan_to_num(one.present_replicas)
        for one in deployments
    )
    values: dict[str, Any] = {
        "time_seconds": TIMES,
        "step_seconds": STEP,
        "deployments": deployments,
        "gpu_count": {H100: GPUS},
        "parked_gpu_watts": {H100: 70.0},
        "host_idle_watts": HOST_IDLE,
        "total_watts": BASE + drawn,
        "measured": None,
    }
    return ClusterObservation(**{**values, **changes})


def plan(
    observation: ClusterObservation,
    *targets: TargetSpec,
    cap: float = 1e6,
    now: float = NOW,
    objective: ObjectiveSpec | None = None,
    grid: GridConditions | None = None,
    window: float = 60.0,
) -> PlanOutcome:
    asked = targets or tuple(
        TargetSpec(namespace=one.namespace, name=one.name) for one in observation.deployments
    )
    return make_plan(
        observation=observation,
        models=fit_models(observation),
        grid=grid or GridConditions(),
        request=PlanRequest(
            targets=asked,
            caps=(CapSpec(watts=cap, window_seconds=window),),
            objective=objective or ObjectiveSpec(),
        ),
        now_seconds=now,
    )


def by_name(outcome: PlanOutcome) -> dict[str, Any]:
    return {one.name: one for one in outcome.targets}


def without(series: np.ndarray, *, last: int) -> np.ndarray:
    changed = np.array(series)
    changed[-last:] = np.nan
    return changed


def test_a_cap_that_does_not_bind_leaves_every_users_maximum():
    outcome = plan(cluster(deployment("a"), deployment("b", seed=1)))

    assert [one.replicas for one in outcome.targets] == [6, 6]
    assert {one.reason for one in outcome.targets} == {"the user's maximum"}
    assert not outcome.caps[0].is_binding
    assert outcome.plan.status is PlanStatus.OPTIMAL


def test_a_binding_cap_is_kept_and_said_with_its_watts():
    outcome = plan(cluster(deployment("a"), deployment("b", seed=1)), cap=BASE + 2500.0)

    cap = outcome.caps[0]
    assert cap.is_binding
    assert cap.charged_watts <= cap.cap_watts
    assert cap.charged_watts == pytest.approx(
        cap.base_watts + cap.unmanaged_watts + sum(one.charged_watts for one in outcome.targets)
    )
    assert any("cap binds: one more replica needs" in one.reason for one in outcome.targets)
    assert verify(outcome.problem, outcome.plan) == ()


def test_the_plan_charges_each_replica_its_upper_watts_above_parked():
    outcome = plan(cluster(deployment("a")))

    target = outcome.targets[0]
    model = fit_models(cluster(deployment("a")))["llm/a"]
    assert target.charged_watts_per_replica == pytest.approx(model.peak_upper_watts - 70.0)
    assert target.charged_watts == pytest.approx(6 * target.charged_watts_per_replica)


def test_a_short_window_is_charged_with_its_peaks():
    observation = cluster(deployment("a"))

    long, short = plan(observation, window=60.0), plan(observation, window=1.0)

    ratio = short.targets[0].charged_watts_per_replica / long.targets[0].charged_watts_per_replica
    assert ratio == pytest.approx(1.3)


def test_safe_maxima_fit_by_nameplate_and_never_exceed_the_plan():
    observation = cluster(deployment("a"), deployment("b", seed=1))

    for cap in np.linspace(BASE + 500.0, BASE + 9000.0, 7):
        outcome = plan(observation, cap=float(cap))

        nameplate = 700.0 * 1.02 + 100.0 - 70.0
        safe = [one.safe_max_replicas for one in outcome.targets]
        assert all(low <= one.replicas for low, one in zip(safe, outcome.targets, strict=True))
        room = outcome.caps[0].available_watts
        assert sum(safe) * nameplate <= max(room, 2 * nameplate) + 1e-6


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"power_watts": np.full(LENGTH, np.nan)}, "no window with watts", id="none"),
        pytest.param({"power_watts": np.full(LENGTH, -3.0)}, "no window with watts", id="negative"),
        pytest.param({"arrived_tps": np.full(LENGTH, np.nan)}, "no load measured", id="no load"),
        pytest.param({"arrived_tps": np.full(LENGTH, -1.0)}, "no load measured", id="load < 0"),
    ],
)
@pytest.mark.parametrize("allowed", [None, 2, 3])
def test_a_target_with_data_missing_is_held_and_never_raised(changes, reason, allowed):
    present = 3
    bad = deployment("bad", present_replicas=np.full(LENGTH, float(present)), **changes)
    observation = cluster(deployment("good"), bad)
    targets = (
        TargetSpec(namespace="llm", name="good"),
        TargetSpec(namespace="llm", name="bad", allowed_replicas=allowed),
    )

    outcome = plan(observation, *targets)

    held = by_name(outcome)["bad"]
    assert held.status is TargetStatus.HELD
    assert held.replicas == (present if allowed is None else allowed)
    assert reason in held.reason
    assert held.charged_watts == pytest.approx(3 * held.charged_watts_per_replica)
    assert held.charged_watts_per_replica > 400.0
    assert outcome.caps[0].fixed_watts == pytest.approx(held.charged_watts)
    assert by_name(outcome)["good"].status is TargetStatus.PLANNED
    assert any(one.reason == "Held" and one.deployment == "llm/bad" for one in outcome.findings)


def test_stale_power_holds_and_says_for_how_long():
    one = deployment("a")
    stale = deployment("b", power_watts=without(one.power_watts, last=12))

    outcome = plan(cluster(one, stale))

    assert by_name(outcome)["b"].status is TargetStatus.HELD
    assert "no power measured for 12 min" in by_name(outcome)["b"].reason


def test_history_that_ended_long_ago_is_not_planned_from():
    with pytest.raises(DataMissingError, match="no power measured for 60 min"):
        plan(cluster(deployment("a")), now=NOW + 3600.0)


def test_nothing_usable_at_all_is_an_error_naming_the_targets():
    empty = deployment("a", power_watts=np.full(LENGTH, np.nan))

    with pytest.raises(DataMissingError, match="llm/a: no window with watts"):
        plan(cluster(empty))


def test_an_unknown_deployment_is_refused_by_its_field():
    with pytest.raises(RequestError) as caught:
        plan(cluster(deployment("a")), TargetSpec(namespace="llm", name="typo"))

    assert caught.value.field == "deployments[0]"
    assert "llm/typo is not measured; accepted: llm/a" in str(caught.value)


def test_a_deployment_that_only_the_caller_knows_is_held_at_nameplate():
    outcome = plan(
        cluster(deployment("a")),
        TargetSpec(namespace="llm", name="a"),
        TargetSpec(namespace="llm", name="new", allowed_replicas=1, present_replicas=1),
    )

    new = by_name(outcome)["new"]
    assert (new.status, new.replicas) == (TargetStatus.HELD, 1)
    assert new.charged_watts >= 1400.0


def test_an_empty_request_is_refused():
    with pytest.raises(RequestError, match="deployments: is empty"):
        make_plan(
            observation=cluster(deployment("a")),
            models={},
            grid=GridConditions(),
            request=PlanRequest(targets=(), caps=(CapSpec(watts=1.0),)),
            now_seconds=NOW,
        )


def test_a_fixed_charge_is_charged_at_the_larger_of_allowed_and_present():
    outcome = plan(
        cluster(deployment("a"), deployment("b", seed=1)),
        TargetSpec(namespace="llm", name="a"),
        TargetSpec(
            namespace="llm",
            name="b",
            allowed_replicas=2,
            present_replicas=5,
            is_fixed_charge=True,
        ),
    )

    charged = by_name(outcome)["b"]
    assert charged.status is TargetStatus.CHARGED
    assert charged.charged_watts == pytest.approx(5 * charged.charged_watts_per_replica)
    assert outcome.caps[0].fixed_watts == pytest.approx(charged.charged_watts)


def test_fixed_charges_alone_are_answered():
    outcome = plan(
        cluster(deployment("a")),
        TargetSpec(namespace="llm", name="a", present_replicas=2, is_fixed_charge=True),
    )

    assert outcome.targets[0].status is TargetStatus.CHARGED
    assert outcome.caps[0].fixed_watts > 0


def test_deployments_not_asked_for_are_unmanaged_at_what_they_drew():
    a, b = deployment("a"), deployment("b", seed=1)

    outcome = plan(cluster(a, b), TargetSpec(namespace="llm", name="a"))

    above = (b.power_watts - 70.0 * b.present_replicas)[-60:]
    assert outcome.caps[0].unmanaged_watts == pytest.approx(above.max(), rel=1e-9)


def test_foreign_watts_in_the_total_are_unmanaged():
    a = deployment("a")
    total = cluster(a).total_watts + 750.0

    outcome = plan(cluster(a, total_watts=total))

    assert outcome.caps[0].unmanaged_watts == pytest.approx(750.0)


def total_lost(observation: ClusterObservation, *, windows: int) -> ClusterObservation:
    return replace(observation, total_watts=without(observation.total_watts, last=windows))


def found(outcome: PlanOutcome, reason: str) -> str:
    return next(one.message for one in outcome.findings if one.reason == reason)


def test_unmanaged_watts_stay_when_the_total_is_no_longer_measured():
    a = deployment("a")
    observation = cluster(a, total_watts=cluster(a).total_watts + 750.0)

    outcome = plan(total_lost(observation, windows=90))

    assert outcome.caps[0].unmanaged_watts == pytest.approx(750.0)
    message = found(outcome, "TotalNotMeasured")
    assert "90 min" in message
    assert "750 W" in message


@pytest.mark.parametrize("windows", [60, 61, 120, LENGTH - 1])
def test_losing_the_total_never_lowers_the_unmanaged_watts(windows):
    a, b = deployment("a"), deployment("b", seed=1)
    whole = cluster(a, b, total_watts=cluster(a, b).total_watts + 750.0)
    target = TargetSpec(namespace="llm", name="a")

    before = plan(whole, target, now=TIMES[-1 - windows])
    after = plan(total_lost(whole, windows=windows), target)

    assert after.caps[0].unmanaged_watts >= before.caps[0].unmanaged_watts


def test_deployments_that_grew_since_the_last_total_add_to_what_was_left_of_it():
    grown = np.where(np.arange(LENGTH) < LENGTH - 60, 1.0, 4.0)
    b = deployment("b", present_replicas=grown, power_watts=grown * 600.0)
    a = deployment("a")
    observation = cluster(a, b, total_watts=cluster(a, b).total_watts + 750.0)

    outcome = plan(total_lost(observation, windows=60), TargetSpec(namespace="llm", name="a"))

    assert outcome.caps[0].unmanaged_watts >= 750.0 + 4 * (600.0 - 70.0) - 1e-6


def test_without_any_total_the_gpus_that_nobody_explains_count_at_their_limit():
    a = deployment("a")
    observation = cluster(a, total_watts=np.full(LENGTH, np.nan))

    outcome = plan(observation)

    held = a.present_replicas[-1]
    limit = 700.0 * 1.02 + 100.0 - 70.0
    assert outcome.caps[0].unmanaged_watts == pytest.approx((GPUS - held) * limit)
    assert "never measured" in found(outcome, "UnmanagedAssumed")


def test_without_any_total_other_deployments_count_at_what_they_drew():
    a, b = deployment("a"), deployment("b", seed=1)
    observation = cluster(a, b, total_watts=np.full(LENGTH, np.nan), gpu_count={H100: 8})

    outcome = plan(observation, TargetSpec(namespace="llm", name="a"))

    above = (b.power_watts - 70.0 * b.present_replicas)[-60:].max()
    free = 8 - a.present_replicas[-1] - b.present_replicas[-1]
    limit = 700.0 * 1.02 + 100.0 - 70.0
    assert outcome.caps[0].unmanaged_watts == pytest.approx(above + free * limit)


def test_without_any_total_gpus_of_an_unmeasured_deployment_are_explained_by_nobody():
    a = deployment("a")
    b = deployment("b", present_replicas=np.full(LENGTH, np.nan), seed=1)
    observation = cluster(a, b, total_watts=np.full(LENGTH, np.nan), gpu_count={H100: 8})

    outcome = plan(observation, TargetSpec(namespace="llm", name="a"))

    limit = 700.0 * 1.02 + 100.0 - 70.0
    assert outcome.caps[0].unmanaged_watts >= (8 - a.present_replicas[-1]) * limit


def test_neither_total_nor_gpus_known_bounds_nothing_and_is_refused():
    observation = cluster(deployment("a"), total_watts=np.full(LENGTH, np.nan), gpu_count={})

    with pytest.raises(DataMissingError, match="total_watts, gpu_count"):
        plan(observation)


def test_no_known_maximum_never_raises():
    unknown = deployment("a", max_replicas=None)

    outcome = plan(cluster(unknown), TargetSpec(namespace="llm", name="a", allowed_replicas=2))

    assert outcome.targets[0].replicas <= max(2, int(unknown.present_replicas[-1]))
    assert any(one.reason == "MaximumUnknown" for one in outcome.findings)


def test_without_an_autoscaler_a_bare_request_gets_back_the_replicas_that_once_were():
    present = np.array([4.0] * (LENGTH - 60) + [1.0] * 60)
    lowered = deployment("a", max_replicas=None, present_replicas=present)

    outcome = plan(cluster(lowered))

    assert outcome.targets[0].replicas == 4
    assert any(one.reason == "MaximumUnknown" for one in outcome.findings)


def test_a_cap_below_the_lowest_draw_gives_the_lowest_and_says_so():
    outcome = plan(cluster(deployment("a"), deployment("b", seed=1)), cap=BASE)

    assert outcome.plan.status is PlanStatus.CAP_INFEASIBLE
    assert [one.replicas for one in outcome.targets] == [1, 1]
    assert all("exceeds the cap" in one.reason for one in outcome.targets)


def test_floors_yield_to_the_cap_and_are_named():
    targets = (
        TargetSpec(namespace="llm", name="a", min_replicas=4, priority=1),
        TargetSpec(namespace="llm", name="b", min_replicas=4, priority=0),
    )

    outcome = plan(cluster(deployment("a"), deployment("b", seed=1)), *targets, cap=BASE + 3200.0)

    assert by_name(outcome)["a"].replicas >= by_name(outcome)["b"].replicas
    assert "floor of 4 replicas yields" in by_name(outcome)["b"].reason
    assert outcome.caps[0].least_cap_watts is not None


def test_a_refused_plan_falls_to_the_lowest(monkeypatch, caplog):
    monkeypatch.setattr(planning, "verify", lambda problem, plan: ("cap cluster is exceeded",))

    outcome = plan(cluster(deployment("a")))

    assert outcome.plan.rung == "lowest"
    assert outcome.targets[0].replicas == 1
    assert any(one.reason == "PlanRefused" for one in outcome.findings)
    assert "cap cluster is exceeded" in caplog.text


def test_equal_inputs_give_equal_ids_and_answers():
    observation = cluster(deployment("a"), deployment("b", seed=1))

    first, second = plan(observation, cap=6000.0), plan(observation, cap=6000.0)
    other = plan(observation, cap=6500.0)

    assert first.plan_id == second.plan_id != other.plan_id
    assert first.targets == second.targets


def test_throughput_as_objective_stops_after_served():
    outcome = plan(cluster(deployment("a")), objective=ObjectiveSpec(kind=ObjectiveKind.THROUGHPUT))

    assert "throughput_per_watt" not in [stage.name for stage in outcome.plan.stages]


def test_a_dear_hour_sheds_within_the_share_that_stress_allows():
    dear = GridSignal(value=300.0, reference=100.0, unit="", source="", age_seconds=0.0)

    outcome = plan(cluster(deployment("a")), grid=GridConditions(price=dear))

    assert outcome.problem.served_share[0, 0] == pytest.approx(0.95)
    assert outcome.problem.energy_weight[0, 0] == pytest.approx(2.0)


def model(**changes: Any) -> DeploymentModel:
    knots = np.array([0.0, 500.0, 1000.0])
    values: dict[str, Any] = {
        "kind": ModelKind.TABLE,
        "gpu_type": H100,
        "gpus_per_replica": 1,
        "parked_watts": 70.0,
        "knot_tps": knots,
        "mean_watts": np.array([70.0, 400.0, 600.0]),
        "upper_watts": np.array([77.0, 440.0, 660.0]),
        "peak_upper_watts": 660.0,
        "nameplate_watts": 814.0,
        "saturated_tps": 1000.0,
        "capacity_tps": 900.0,
        "support_low_tps": 500.0,
        "support_high_tps": 1000.0,
        "samples": 2,
        "error_fraction": None,
        "coverage_fraction": None,
    }
    return DeploymentModel(**{**values, **changes})


def inputs(*, rule: ReplicaRule, load: LoadForecast, **changes: Any) -> PlanningInputs:
    values: dict[str, Any] = {
        "namespace": "llm",
        "name": "a",
        "status": TargetStatus.PLANNED,
        "note": "",
        "model": model(),
        "forecast": load,
        "replica_rule": rule,
        "min_replicas": 1,
        "running_min_replicas": 1,
        "max_replicas": 4,
        "weight": 1.0,
        "priority": 0,
        "min_served_fraction": 0.0,
        "allowed_replicas": None,
        "present_replicas": None,
    }
    return PlanningInputs(
        targets=(TargetInputs(**{**values, **changes}),),
        cap=CapSpec(watts=1e5),
        objective=ObjectiveSpec(),
        base_watts=1000.0,
        unmanaged_watts=0.0,
        grid=GridConditions(),
    )


def test_fixed_replicas_all_run_and_share_the_load():
    problem = build_problem(
        inputs(rule=ReplicaRule.FIXED, load=LoadForecast.point(1500.0, method="x"))
    )

    assert problem.served_tps[0, 0].tolist() == [900.0, 1500.0, 1500.0, 1500.0]
    each = np.interp([1000.0, 750.0, 500.0, 375.0], [0, 500, 1000], [70, 400, 600]) - 70.0
    np.testing.assert_allclose(problem.power_watts[0, 0], each * [1, 2, 3, 4])
    np.testing.assert_allclose(problem.upper_watts[0, 0], 590.0 * np.arange(1, 5))


def test_a_ceiling_above_what_the_load_needs_costs_cap_but_no_energy():
    problem = build_problem(
        inputs(rule=ReplicaRule.CEILING, load=LoadForecast.point(1200.0, method="x"))
    )

    # 1200 / (0.7 * 900) needs two replicas, however many are allowed.
    power = problem.power_watts[0, 0]
    assert power[1] == power[2] == power[3] == pytest.approx(2 * (440.0 - 70.0))
    assert (np.diff(problem.upper_watts[0, 0]) > 0).all()


def test_tables_are_expectations_over_the_scenarios():
    spread = LoadForecast(
        load_tps=np.array([600.0, 2000.0]), share=np.array([0.25, 0.75]), method="x"
    )
    both = build_problem(inputs(rule=ReplicaRule.CEILING, load=spread))
    low, high = (
        build_problem(inputs(rule=ReplicaRule.CEILING, load=LoadForecast.point(x, method="x")))
        for x in (600.0, 2000.0)
    )

    for table in ("served_tps", "power_watts"):
        mixed = 0.25 * getattr(low, table) + 0.75 * getattr(high, table)
        np.testing.assert_allclose(getattr(both, table), mixed)


def test_only_fixed_replicas_may_be_planned_away():
    load = LoadForecast.point(100.0, method="x")

    ceiling = build_problem(inputs(rule=ReplicaRule.CEILING, load=load, min_replicas=0))
    fixed = build_problem(inputs(rule=ReplicaRule.FIXED, load=load, min_replicas=0))

    assert ceiling.replicas[0, 0] == 1
    assert fixed.replicas[0, 0] == 0
    assert fixed.served_tps[0, 0, 0] == fixed.power_watts[0, 0, 0] == 0.0


def test_what_ifs_change_what_they_name_and_nothing_else():
    before = inputs(rule=ReplicaRule.FIXED, load=LoadForecast.point(1500.0, method="x"))

    after = apply(before, WhatIf(cap_watts=4000.0, load_factor=2.0, replicas={"a": 3}))
    outcome = plan_inputs(after, now_seconds=0.0, valid_seconds=60.0)

    assert outcome.caps[0].cap_watts == 4000.0
    assert outcome.targets[0].load_tps == 3000.0
    assert outcome.targets[0].replicas == 3
    assert "pinned to 3" in outcome.targets[0].reason
    assert replace(after, cap=before.cap, targets=before.targets).base_watts == before.base_watts


@pytest.mark.parametrize(
    ("what_if", "message"),
    [
        pytest.param(WhatIf(replicas={"b": 1}), "b is not known; accepted: llm/a", id="unknown"),
        pytest.param(WhatIf(replicas={"a": -1}), "accepted: 0 or more", id="negative"),
        pytest.param(WhatIf(load_factor=-1.0), "load-factor: is -1.0", id="negative load"),
        pytest.param(WhatIf(load_factor=float("nan")), "load-factor: is nan", id="nan load"),
    ],
)
def test_a_what_if_that_cannot_be_is_refused_by_its_option(what_if, message):
    before = inputs(rule=ReplicaRule.FIXED, load=LoadForecast.point(1.0, method="x"))

    with pytest.raises(RequestError, match=message):
        apply(before, what_if)
