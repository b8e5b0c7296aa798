"""The decision of one cycle, in memory: raises need everything, lowerings need little."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest

from powercap_operator.decision import (
    Failure,
    FailureKind,
    PlanInForce,
    Settling,
    Situation,
    decide,
    decide_shedding,
    settling_after,
)
from powercap_operator.plan import CapPlan, Measurement, PlanStatus, TargetPlan
from powercap_operator.policy import PowerCapSpec, TargetPolicy, parse_spec
from powercap_operator.rollout import StepReason
from powercap_operator.scaledobjects import ScaledObject, Workload
from powercap_operator.targets import Record, Target, build_target

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def _seconds(value: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=value)


def _target(
    name: str,
    *,
    maximum: int | None,
    present: int = 1,
    user_max: int | None = 10,
    minimum: int = 1,
    hpa_max: int | None = None,
    priority: int = 0,
    pause: str | None = None,
    **record: Any,
) -> Target:
    item = ScaledObject(
        namespace="ns",
        name=name,
        resource_version="1",
        min_replicas=minimum,
        max_replicas=maximum,
        target_name=name,
        pause=pause,
        hpa_name=f"keda-hpa-{name}",
    )
    return build_target(
        item,
        workload=Workload(namespace="ns", name=name, requested=present, present=present),
        hpa_max=hpa_max,
        policy=TargetPolicy(priority=priority),
        record=Record(
            key=("ns", name),
            user_max=user_max,
            written=maximum if maximum != user_max else None,
            **{"allowed": maximum, **record},
        ),
        powercap="cap",
        now=NOW,
    )


def _planned(replicas: int, **given: Any) -> TargetPlan:
    values: dict[str, Any] = {
        "status": PlanStatus.PLANNED,
        "replicas": replicas,
        "safe_max": 1,
        "watts_per_replica": 100.0,
        "planned_watts": replicas * 100.0,
        "reason": "",
        **given,
    }
    return TargetPlan(**values)


def _plan(targets: dict[str, TargetPlan], *, available: float = 1000.0) -> CapPlan:
    return CapPlan(
        plan_id="p",
        expires_at=NOW + _seconds(180),
        targets={("ns", name): target for name, target in targets.items()},
        base_watts=0.0,
        unmanaged_watts=0.0,
        fixed_watts=0.0,
        available_watts=available,
        planned_watts=0.0,
        charged_watts=0.0,
        shadow_price=0.0,
        is_binding=True,
        is_feasible=True,
        least_cap_watts=None,
        gap=0.0,
        rung="exact",
    )


def _measured(watts: float | None = 500.0, *, age: float = 5.0) -> Measurement:
    return Measurement(
        watts=watts, measured_at=NOW - _seconds(age), source="test", reason="" if watts else "gone"
    )


def _spec(**spec: Any) -> PowerCapSpec:
    return parse_spec({"cap": {"watts": 1000}, "rollout": "Auto", **spec})


def _situation(targets: list[Target], **given: Any) -> Situation:
    values: dict[str, Any] = {
        "spec": _spec(),
        "targets": tuple(targets),
        "plan": None,
        "failure": None,
        "measurement": _measured(),
        "in_force": PlanInForce(plan_id="old", expires_at=NOW + _seconds(60)),
        "last_shed_at": None,
        "settling": None,
        "now": NOW,
        "settle_seconds": 60.0,
        **given,
    }
    return Situation(**values)


def _steps(situation: Situation) -> list[tuple[str, int]]:
    return [(step.key[1], step.after) for step in decide(situation).steps]


RISING = {"a": _planned(6), "b": _planned(2)}


def _rising(**given: Any) -> Situation:
    targets = [_target("a", maximum=3), _target("b", maximum=4)]
    return _situation(targets, **{"plan": _plan(RISING), **given})


def test_with_everything_known_lowerings_come_first_and_raises_follow() -> None:
    assert _steps(_rising()) == [("b", 2), ("a", 6)]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        pytest.param({"measurement": None}, "not measured", id="no answer from the meter"),
        pytest.param({"measurement": _measured(None)}, "gone", id="no watts"),
        pytest.param({"measurement": _measured(age=600)}, "too old", id="old watts"),
        pytest.param({"last_shed_at": NOW - _seconds(30)}, "shedding", id="just shed"),
        pytest.param(
            {"plan": _plan({"b": _planned(2)})}, "charge of ns/a", id="a target unanswered"
        ),
        pytest.param(
            {"plan": _plan({**RISING, "a": _planned(6, watts_per_replica=0.0)})},
            "charge of ns/a",
            id="a charge of nothing",
        ),
    ],
)
def test_whatever_is_missing_stops_raises_and_not_lowerings(
    given: dict[str, Any], why: str
) -> None:
    situation = _rising(**given)

    decision = decide(situation)

    assert [(step.key[1], step.after) for step in decision.steps] == [("b", 2)]
    assert why in decision.no_raise_reason


def test_what_the_autoscaler_still_enforces_is_charged() -> None:
    targets = [_target("a", maximum=3), _target("b", maximum=2, hpa_max=7)]

    assert _steps(_situation(targets, plan=_plan(RISING))) == []


def test_a_held_target_is_not_charged_twice_and_blocks_until_it_is_lowered() -> None:
    held = _planned(2, status=PlanStatus.HELD)
    plan = _plan({"a": _planned(6), "h": held}, available=600.0)
    lowered = [_target("a", maximum=3), _target("h", maximum=2)]
    not_yet = [_target("a", maximum=3), _target("h", maximum=2, hpa_max=9)]

    assert _steps(_situation(lowered, plan=plan)) == [("a", 6)]
    assert _steps(_situation(not_yet, plan=plan)) == []


def test_a_held_target_is_lowered_and_never_raised() -> None:
    targets = [_target("a", maximum=3), _target("b", maximum=5)]
    held = {
        "a": _planned(6, status=PlanStatus.HELD),
        "b": _planned(2, status=PlanStatus.HELD),
    }

    assert _steps(_situation(targets, plan=_plan(held))) == [("b", 2)]


def test_a_paused_target_is_left_alone() -> None:
    target = _target("a", maximum=6, pause="autoscaling.keda.sh/paused")

    assert _steps(_situation([target], plan=_plan({"a": _planned(2)}))) == []


def test_advisory_decides_no_step() -> None:
    spec = _spec(rollout="Advisory")

    assert _steps(_rising(spec=spec, measurement=_measured(5000.0))) == []


def test_an_unset_maximum_is_lowered_from_kedas_default_and_unset_again() -> None:
    target = _target("a", maximum=None, user_max=None)
    capped = _target("a", maximum=4, user_max=None)
    ample = _plan({"a": _planned(100)}, available=20_000.0)

    assert _steps(_situation([target], plan=_plan({"a": _planned(4)}))) == [("a", 4)]
    assert _steps(_situation([capped], plan=ample)) == [("a", 100)]
    assert capped.raw_max(100) is None
    assert capped.raw_max(99) == 99


def test_without_a_plan_the_fallback_lowers_and_never_raises() -> None:
    failure = Failure(kind=FailureKind.UNREACHABLE, message="gone")
    targets = [
        _target("a", maximum=6, safe_max=2),
        _target("b", maximum=3, safe_max=8),
    ]
    held = _situation(targets, failure=failure, measurement=None)
    expired = dataclasses.replace(
        held, in_force=PlanInForce(plan_id="old", expires_at=NOW - _seconds(1))
    )
    never = dataclasses.replace(held, in_force=None)

    assert _steps(held) == []
    assert decide(held).fallback is StepReason.HOLD
    assert _steps(expired) == [("a", 2)]
    assert decide(expired).fallback is StepReason.FALLBACK
    assert _steps(never) == []


def _over(watts: float, targets: list[Target], **given: Any) -> Situation:
    return _situation(targets, measurement=_measured(watts), **given)


def _running(name: str, *, maximum: int = 4, present: int = 4, priority: int = 0) -> Target:
    return _target(
        name,
        maximum=maximum,
        present=present,
        priority=priority,
        mean_watts_per_replica=100.0,
    )


def test_an_excess_is_shed_by_priority() -> None:
    targets = [_running("a", priority=1), _running("b")]

    decision = decide_shedding(_over(1150.0, targets))

    assert [(step.key[1], step.after) for step in decision.steps] == [("b", 2)]
    assert decision.shed_watts == 200.0


def test_the_overhead_of_the_meter_is_taken_out_of_the_excess() -> None:
    spec = _spec(cap={"watts": 1000, "overheadFactor": 2.0})

    decision = decide_shedding(_over(1200.0, [_running("a")], spec=spec))

    assert decision.shed_watts == 100.0


def test_what_is_already_leaving_is_not_shed_again() -> None:
    leaving = _running("a", maximum=2, present=4)

    assert decide_shedding(_over(1150.0, [leaving, _running("b")])).steps == ()
    assert decide_shedding(_over(1250.0, [leaving, _running("b")])).shed_watts == 100.0


def test_what_just_left_is_not_shed_again_until_the_meter_has_caught_up() -> None:
    recent = Settling(time=NOW - _seconds(100), watts=200.0)
    old = Settling(time=NOW - _seconds(121), watts=200.0)

    assert decide_shedding(_over(1150.0, [_running("a")], settling=recent)).steps == ()
    assert decide_shedding(_over(1150.0, [_running("a")], settling=old)).steps != ()


def test_a_lowering_of_the_plan_counts_before_anything_is_shed() -> None:
    targets = [_running("a"), _running("b")]
    plan = _plan({"a": _planned(2), "b": _planned(4)})

    decision = decide(_over(1150.0, targets, plan=plan))

    assert [(step.key[1], step.after) for step in decision.steps] == [("a", 2)]
    assert decision.shed_watts == 0.0
    assert decision.lowered_watts == 200.0


def test_shedding_on_top_of_the_plan_takes_the_lower_maximum() -> None:
    targets = [_running("a"), _running("b", priority=1)]
    plan = _plan({"a": _planned(3), "b": _planned(4)})

    decision = decide(_over(1300.0, targets, plan=plan))

    assert [(step.key[1], step.before, step.after) for step in decision.steps] == [("a", 4, 1)]
    assert decision.steps[0].reason is StepReason.SHED


def test_settling_watts_add_up_and_are_forgotten() -> None:
    situation = _over(900.0, [], settling=Settling(time=NOW - _seconds(10), watts=200.0))

    assert settling_after(situation, 100.0) == Settling(time=NOW, watts=300.0)
    assert settling_after(situation, 0.0) == situation.settling
    later = dataclasses.replace(situation, now=NOW + _seconds(300))
    assert settling_after(later, 0.0) is None
