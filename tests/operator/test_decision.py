"""The decision of one cycle, in memory: raises need everything, lowerings need little."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_operator.decision import (
    Failure,
    FailureKind,
    PlanInForce,
    Settling,
    Situation,
    decide,
    decide_shedding,
    reserved_watts,
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


def _lowered_cap(watts: float, targets: list[Target], **given: Any) -> Situation:
    """Return an outage in which a cap of 1000 W, 200 W of them reserved, was lowered."""
    last = PlanInForce(
        plan_id="old",
        expires_at=NOW + _seconds(given.pop("expires_in", 60)),
        cap_watts=1000.0,
        reserved_watts=200.0,
    )
    values: dict[str, Any] = {
        "spec": _spec(cap={"watts": watts}),
        "failure": Failure(kind=FailureKind.UNREACHABLE, message="gone"),
        "measurement": None,
        "in_force": last,
        **given,
    }
    return _situation(targets, **values)


def _charged(name: str, *, maximum: int = 4, **given: Any) -> Target:
    return _target(name, maximum=maximum, watts_per_replica=100.0, **{"safe_max": 4, **given})


def test_a_cap_lowered_in_an_outage_is_obeyed_by_priority() -> None:
    targets = [_charged("a", priority=1), _charged("b")]

    decision = decide(_lowered_cap(700.0, targets))

    assert [(step.key[1], step.after) for step in decision.steps] == [("b", 1)]
    assert decision.steps[0].reason is StepReason.CAP
    assert decision.over_watts == 0.0


def test_a_cap_that_did_not_fall_lowers_nothing_in_an_outage() -> None:
    # More than the cap: what the last plan could not help is not made worse by an outage.
    targets = [_charged("a", maximum=9), _charged("b")]

    assert _steps(_lowered_cap(1000.0, targets)) == []
    assert _steps(_lowered_cap(1200.0, targets)) == []


def test_a_lowered_cap_counts_from_the_safe_maxima_once_the_plan_expired() -> None:
    targets = [_charged("a", safe_max=2, priority=1), _charged("b")]

    assert _steps(_lowered_cap(700.0, targets, expires_in=-1)) == [("a", 2), ("b", 3)]
    assert _steps(_lowered_cap(900.0, targets, expires_in=-1)) == [("a", 2)]


def test_floors_yield_last_and_what_they_keep_above_a_lowered_cap_is_told() -> None:
    targets = [_charged("a", minimum=3), _charged("b", minimum=2)]

    decision = decide(_lowered_cap(500.0, targets))

    assert [(step.key[1], step.after) for step in decision.steps] == [("a", 3), ("b", 2)]
    assert decision.over_watts == pytest.approx(200.0)


def test_an_unknown_charge_is_not_free_under_a_lowered_cap() -> None:
    unknown = _target("u", maximum=6, present=3, priority=1)

    assert _steps(_lowered_cap(900.0, [_charged("a"), unknown])) == [("u", 3)]
    assert _steps(_lowered_cap(800.0, [_charged("a"), unknown])) == [("a", 3), ("u", 3)]


def test_a_target_paused_in_the_outage_keeps_its_charge_under_a_lowered_cap() -> None:
    paused = _charged("p", pause="autoscaling.keda.sh/paused")

    assert _steps(_lowered_cap(900.0, [_charged("a"), paused])) == [("a", 3)]


def test_the_overhead_counts_in_a_lowered_cap() -> None:
    spec = _spec(cap={"watts": 1000, "overheadFactor": 1.25})

    assert _steps(_lowered_cap(0.1, [_charged("a", maximum=8)], spec=spec)) == [("a", 6)]


@given(
    watts=st.floats(1.0, 2000.0),
    expires_in=st.sampled_from([-60, 60]),
    targets=st.lists(
        st.tuples(
            st.integers(1, 12),
            st.integers(0, 12),
            st.integers(1, 4),
            st.none() | st.integers(1, 12),
            st.none() | st.floats(1.0, 500.0),
            st.integers(-2, 2),
        ),
        max_size=5,
    ),
)
def test_no_lowered_cap_raises_anything_and_all_is_within_it_or_at_the_floor(
    watts: float, expires_in: float, targets: list[tuple[Any, ...]]
) -> None:
    made = [
        _target(
            f"t{place}",
            maximum=maximum,
            user_max=12,
            present=present,
            minimum=min(minimum, maximum),
            safe_max=safe_max,
            watts_per_replica=each,
            priority=priority,
        )
        for place, (maximum, present, minimum, safe_max, each, priority) in enumerate(targets)
    ]

    decision = decide(_lowered_cap(watts, made, expires_in=expires_in))

    after = {target.key: target.current for target in made}
    for step in decision.steps:
        assert step.after < step.before == after[step.key]
        after[step.key] = step.after
    total = sum(after[item.key] * (item.record.watts_per_replica or 0.0) for item in made)
    is_within = total <= max(0.0, watts - 200.0) + 1e-6
    assert watts >= 1000.0 or is_within or all(after[item.key] == item.floor for item in made)


def test_held_targets_are_not_reserved_because_they_may_be_lowered() -> None:
    targets = [_target("a", maximum=3), _target("h", maximum=2)]
    held = _planned(2, status=PlanStatus.HELD, charged_watts=200.0)
    plan = dataclasses.replace(
        _plan({"a": _planned(3), "h": held}),
        base_watts=50.0,
        unmanaged_watts=20.0,
        fixed_watts=500.0,
    )

    assert reserved_watts(targets, plan) == pytest.approx(370.0)


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
