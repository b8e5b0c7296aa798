"""What is read from Kubernetes and the planner, and what is remembered."""

from __future__ import annotations

import dataclasses
import datetime
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_operator import conditions, convert, status, times
from powercap_operator.conditions import Condition, ConditionType, Truth
from powercap_operator.errors import PlanError, PolicyError, ScaledObjectError
from powercap_operator.policy import Cap, Rollout, Selector, parse_spec, read_governing
from powercap_operator.scaledobjects import parse_deployment, parse_scaled_object
from powercap_operator.targets import CONTENTION_PAUSE, Charge, Record, recognise
from powercap_proto.v1 import planner_pb2

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
CAP = Cap(watts=1000.0)


def _seconds(value: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=value)


def _item(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "ns", "name": "chat", "resourceVersion": "7", **metadata},
        "spec": {"scaleTargetRef": {"name": "chat"}, **(spec or {})},
    }


def test_defaults_of_kedas_are_kept_apart_from_what_is_written() -> None:
    unset = parse_scaled_object(_item())
    written = parse_scaled_object(_item({"maxReplicaCount": 100}))

    assert (unset.max_replicas, unset.effective_max_replicas) == (None, 100)
    assert (written.max_replicas, written.effective_max_replicas) == (100, 100)
    assert unset.is_deployment
    assert unset.hpa_name == "keda-hpa-chat"


@pytest.mark.parametrize(
    ("annotations", "is_paused"),
    [
        pytest.param({}, False, id="none"),
        pytest.param({"autoscaling.keda.sh/paused": "true"}, True, id="paused"),
        pytest.param({"autoscaling.keda.sh/paused": "false"}, False, id="not paused"),
        pytest.param({"autoscaling.keda.sh/paused-replicas": "0"}, True, id="at a number"),
    ],
)
def test_pauses_are_seen(annotations: dict[str, str], is_paused: bool) -> None:
    found = parse_scaled_object(_item(annotations=annotations))

    assert (found.pause is not None) is is_paused


def test_only_a_controller_owns() -> None:
    mere = {"kind": "ConfigMap", "name": "x"}
    controller = {"kind": "InferenceService", "name": "llm", "controller": True}

    assert parse_scaled_object(_item(ownerReferences=[mere])).owner is None
    owned = parse_scaled_object(_item(ownerReferences=[mere, controller]))
    assert owned.owner == "InferenceService/llm"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        pytest.param({"maxReplicaCount": "many"}, "spec.maxReplicaCount", id="text"),
        pytest.param({"minReplicaCount": -1}, "spec.minReplicaCount", id="negative"),
        pytest.param({"scaleTargetRef": {}}, "spec.scaleTargetRef.name", id="no target"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(ScaledObjectError, match=field):
        parse_scaled_object(_item(spec))


@pytest.mark.parametrize(
    ("spec", "observed", "present"),
    [
        pytest.param({"replicas": 2}, {"replicas": 2}, 2, id="settled"),
        pytest.param(
            {"replicas": 1}, {"replicas": 1, "terminatingReplicas": 3}, 4, id="terminating"
        ),
        pytest.param({"replicas": 5}, {"replicas": 2}, 5, id="about to be created"),
        pytest.param({}, {}, 1, id="unset is one"),
        pytest.param({"replicas": 0}, {}, 0, id="scaled to zero"),
    ],
)
def test_all_that_draws_power_is_present(
    spec: dict[str, Any], observed: dict[str, Any], present: int
) -> None:
    item = {"metadata": {"namespace": "ns", "name": "d"}, "spec": spec, "status": observed}

    workload = parse_deployment(item)

    assert workload.present == present
    assert workload.is_terminating_known is ("terminatingReplicas" in observed)


@pytest.mark.parametrize(
    ("written", "previous", "current", "is_foreign", "user_max"),
    [
        pytest.param(3, None, 3, False, 10, id="as written"),
        pytest.param(3, 10, 10, False, 10, id="the write did not land"),
        pytest.param(3, 10, 3, False, 10, id="the write landed unseen"),
        pytest.param(3, None, 10, True, 10, id="put back by hand"),
        pytest.param(3, None, 20, True, 20, id="raised by hand"),
        pytest.param(3, None, None, True, None, id="unset by hand"),
        pytest.param(None, None, 12, False, 12, id="never written"),
    ],
)
def test_own_writes_are_told_from_others(
    written: int | None,
    previous: int | None,
    current: int | None,
    is_foreign: bool,
    user_max: int | None,
) -> None:
    record = Record(key=("ns", "chat"), user_max=10, written=written, previous=previous)
    spec = {} if current is None else {"maxReplicaCount": current}

    known, found_foreign = recognise(parse_scaled_object(_item(spec)), record, now=NOW)

    assert found_foreign is is_foreign
    assert known.user_max == user_max


def test_the_third_change_back_within_a_minute_is_contention_and_passes() -> None:
    record = Record(key=("ns", "chat"), user_max=10, written=3)
    changed = parse_scaled_object(_item({"maxReplicaCount": 10}))

    contended = []
    for after in (0, 20, 40):
        known, _ = recognise(changed, record, now=NOW + _seconds(after))
        contended.append(known.contended_since is not None)
        record = Record(
            key=record.key, user_max=10, written=3, written_back_at=known.written_back_at
        )
    late, _ = recognise(changed, record, now=NOW + _seconds(200))
    passed, _ = recognise(
        changed,
        Record(key=("ns", "chat"), user_max=10, contended_since=NOW),
        now=NOW + CONTENTION_PAUSE,
    )

    assert contended == [False, False, True]
    assert late.contended_since is None
    assert passed.contended_since is None


def test_a_record_survives_the_status() -> None:
    record = Record(
        key=("ns", "chat"),
        user_max=None,
        written=3,
        previous=100,
        allowed=3,
        safe_max=2,
        watts_per_replica=812.5,
        mean_watts_per_replica=600.1,
        written_back_at=(NOW,),
        contended_since=NOW,
    )

    entry = status.remembered_status(record, reason="")
    memory = status.read_memory({"targets": [entry]})

    assert memory.records == {("ns", "chat"): record}


_JSON = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: (
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(st.integers())
    ),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(st.sampled_from("abc"), _JSON, max_size=3)


def _merged(before: Any, patch: Any) -> Any:
    """Merge as RFC 7386 says."""
    if not isinstance(patch, dict):
        return patch
    result = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


@given(_OBJECTS, _OBJECTS)
def test_the_patch_leads_from_one_status_to_the_other(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert _merged(before, status.merge_patch(before, after)) == after
    assert status.merge_patch(after, after) == {}


def test_a_condition_keeps_the_time_it_turned() -> None:
    def found(truth: Truth, message: str) -> list[Condition]:
        kind = ConditionType.PLANNER_REACHABLE
        return [Condition(type=kind, status=truth, reason="R", message=message)]

    first = conditions.merge((), found(Truth.FALSE, "a"), now=NOW, generation=1)
    later = conditions.merge(first, found(Truth.FALSE, "b"), now=NOW + _seconds(60), generation=2)
    turned = conditions.merge(later, found(Truth.TRUE, ""), now=NOW + _seconds(90), generation=2)

    assert later[0]["lastTransitionTime"] == times.to_text(NOW)
    assert (later[0]["message"], later[0]["observedGeneration"]) == ("b", 2)
    assert turned[0]["lastTransitionTime"] == times.to_text(NOW + _seconds(90))


def test_conditions_of_others_are_kept() -> None:
    foreign = {"type": "Custom", "status": "True"}

    merged = conditions.merge([foreign], [], now=NOW, generation=1)

    assert merged == [foreign]


def _response(**changes: Any) -> planner_pb2.CalculateOptimalReplicasResponse:
    response = planner_pb2.CalculateOptimalReplicasResponse(plan_id="p")
    response.expires_at.FromDatetime(NOW + _seconds(60))
    response.caps.add(
        name="cluster",
        base_watts=100.0,
        fixed_watts=50.0,
        available_watts=changes.pop("available", 850.0),
    )
    item = response.deployment_replicas.add(
        namespace="ns",
        name="chat",
        optimal_replicas=4,
        status=planner_pb2.DeploymentReplicas.STATUS_PLANNED,
        charged_watts_per_replica=100.0,
    )
    for name, value in changes.items():
        setattr(item, name, value)
    return response


def test_the_operator_believes_no_more_watts_than_its_own_sum() -> None:
    generous = convert.read_plan(_response(available=5000.0), cap=CAP, now=NOW)
    strict = convert.read_plan(_response(available=300.0), cap=CAP, now=NOW)

    assert generous.available_watts == 850.0
    assert strict.available_watts == 300.0


CHARGE = Charge(
    key=("other", "batch"),
    workload_key=("other", "batch"),
    allowed=3,
    present=4,
    watts_per_replica=50.0,
)


def test_what_another_power_cap_writes_is_charged_and_not_planned() -> None:
    spec = parse_spec({"cap": {"watts": 1000}})
    unseen = dataclasses.replace(CHARGE, workload_key=("other", "new"), present=None)

    asked = convert.plan_request(spec, [], charges=[CHARGE, unseen], is_plan_in_force=True)

    batch, new = asked.deployments
    assert (batch.namespace, batch.name, batch.is_fixed_charge) == ("other", "batch", True)
    assert (batch.allowed_replicas, batch.present_replicas) == (3, 4)
    assert new.allowed_replicas == 3
    assert not new.HasField("present_replicas")


def test_another_power_caps_targets_cost_no_less_than_it_states() -> None:
    response = _response()
    response.deployment_replicas.add(
        namespace="other",
        name="batch",
        status=planner_pb2.DeploymentReplicas.STATUS_CHARGED,
        charged_watts=150.0,
    )

    plan = convert.read_plan(response, cap=CAP, charges=[CHARGE], now=NOW)
    unnamed = convert.read_plan(_response(), cap=CAP, charges=[CHARGE], now=NOW)

    assert (plan.fixed_watts, plan.available_watts) == (100.0, 800.0)
    assert (unnamed.fixed_watts, unnamed.available_watts) == (250.0, 650.0)


def test_what_a_status_states_of_its_targets_is_the_larger_of_what_may_be_in_force() -> None:
    entry = {"namespace": "ns", "name": "chat", "workload": {"name": "engine"}, "present": 2}
    writing = {"allowed": 3, "written": 3, "previous": 7, "chargedWattsPerReplica": 50.0}
    targets = [
        {**entry, **writing, "state": "Managed"},
        {**entry, **writing, "name": "paused", "state": "Paused"},
    ]

    (charge,) = status.read_charges({"targets": targets})

    assert charge.workload_key == ("ns", "engine")
    assert (charge.allowed, charge.present, charge.watts) == (7, 2, 350.0)


def test_an_answer_without_status_means_nothing() -> None:
    status_unset = planner_pb2.DeploymentReplicas.STATUS_UNSPECIFIED

    plan = convert.read_plan(_response(status=status_unset), cap=CAP, now=NOW)

    assert plan.targets == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"charged_watts_per_replica": math.nan}, "charged_watts", id="nan"),
        pytest.param({"planned_watts": -1.0}, "planned_watts", id="negative watts"),
        pytest.param({"optimal_replicas": -1}, "negative replicas", id="negative replicas"),
        pytest.param({"available": math.inf}, "available_watts", id="infinite"),
    ],
)
def test_impossible_numbers_refuse_the_whole_plan(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        convert.read_plan(_response(**change), cap=CAP, now=NOW)


def test_a_plan_without_cap_expiry_or_future_is_refused() -> None:
    no_cap, no_expiry, twice = _response(), _response(), _response()
    del no_cap.caps[:]
    no_expiry.ClearField("expires_at")
    twice.deployment_replicas.append(twice.deployment_replicas[0])

    for response, message in ((no_cap, "0 results"), (no_expiry, "no expiry"), (twice, "twice")):
        with pytest.raises(PlanError, match=message):
            convert.read_plan(response, cap=CAP, now=NOW)
    with pytest.raises(PlanError, match="expired"):
        convert.read_plan(_response(), cap=CAP, now=NOW + _seconds(60))


@pytest.mark.parametrize("watts", [math.nan, -1.0, math.inf])
def test_impossible_measured_watts_are_no_measurement(watts: float) -> None:
    response = planner_pb2.GetStatusResponse()
    response.caps.add(name="cluster", measured_watts=watts)

    measurement = convert.read_measurement(response)

    assert measurement.watts is None
    assert "measured watts are" in measurement.reason


def test_meter_and_device_watts_are_inverse() -> None:
    cap = Cap(watts=1000.0, overhead_factor=1.25, fixed_overhead_watts=100.0)

    assert cap.device_watts(1000.0) == 720.0
    assert cap.meter_watts(720.0) == 1000.0


def test_a_selector_asks_for_all_its_labels() -> None:
    selector = Selector(namespaces=("a",), match_labels={"tier": "x"})

    assert selector.matches(namespace="a", labels={"tier": "x", "more": "y"})
    assert not selector.matches(namespace="b", labels={"tier": "x"})
    assert not selector.matches(namespace="a", labels={})
    assert Selector().matches(namespace="any", labels={})


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        pytest.param({"cap": {"watts": math.nan}}, "spec.cap.watts", id="nan"),
        pytest.param({"cap": {"watts": True}}, "spec.cap.watts", id="bool"),
        pytest.param({"cap": "much"}, "spec.cap", id="not an object"),
        pytest.param({"cap": {"watts": 1}, "targets": "all"}, "spec.targets", id="not a list"),
        pytest.param(
            {"cap": {"watts": 1}, "floors": {"minReplicas": 1.5}},
            "spec.floors.minReplicas",
            id="half a replica",
        ),
        pytest.param({"cap": {"watts": 1}, "intervalSeconds": 0}, "intervalSeconds", id="interval"),
        pytest.param(
            {"cap": {"watts": 1}, "selector": {"matchLabels": {"a": 1}}},
            "spec.selector.matchLabels.a",
            id="label that is no text",
        ),
    ],
)
def test_what_a_schema_would_refuse_is_refused_without_one(
    spec: dict[str, Any], field: str
) -> None:
    with pytest.raises(PolicyError, match=field):
        parse_spec(spec)


BAD_CAP = {"watts": 1000, "fixedOverheadWatts": 2000}
LAST = {"cap": {"watts": 900}, "rollout": "Auto", "selector": {"namespaces": ["a"]}}


@pytest.mark.parametrize(
    ("powercap", "watts", "namespaces", "is_refused"),
    [
        pytest.param(
            {"spec": {"cap": {"watts": 800}}, "status": {"lastValidSpec": LAST}},
            800.0,
            (),
            False,
            id="a valid spec is used",
        ),
        pytest.param(
            {"spec": {"cap": BAD_CAP}, "status": {"lastValidSpec": LAST}},
            900.0,
            ("a",),
            True,
            id="the last valid one",
        ),
        pytest.param(
            {"spec": {"cap": BAD_CAP}, "status": {"lastValidSpec": {"cap": BAD_CAP}}},
            1000.0,
            (),
            True,
            id="no valid one: the cap alone",
        ),
        pytest.param(
            {"spec": {"cap": {"watts": "much"}}}, math.inf, (), True, id="no cap can be read"
        ),
        pytest.param({"spec": {"cap": "much"}}, math.inf, (), True, id="no cap at all"),
    ],
)
def test_what_governs_when_a_spec_is_invalid(
    powercap: dict[str, Any], watts: float, namespaces: tuple[str, ...], is_refused: bool
) -> None:
    governing = read_governing(powercap)

    assert governing.spec.cap.watts == watts
    assert governing.spec.selector.namespaces == namespaces
    assert bool(governing.refusal) is is_refused


def test_an_invalid_spec_does_not_turn_advice_into_writing() -> None:
    advised, auto = (
        read_governing({"spec": {"cap": BAD_CAP, "rollout": rollout}})
        for rollout in ("Advisory", "Auto")
    )

    assert advised.spec.rollout is Rollout.ADVISORY
    assert auto.spec.rollout is Rollout.AUTO
