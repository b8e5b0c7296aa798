"""What a cycle says about itself: conditions with reasons, for every kind of end."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Any

import pytest

from powercap_operator import events, report
from powercap_operator.actuate import Outcome
from powercap_operator.decision import (
    Decision,
    Failure,
    FailureKind,
    PlanInForce,
    Situation,
    decide,
)
from powercap_operator.plan import CapPlan, Measurement, PlanStatus, TargetPlan
from powercap_operator.policy import TargetPolicy, parse_spec
from powercap_operator.rollout import Step, StepReason
from powercap_operator.scaledobjects import ScaledObject, Workload
from powercap_operator.status import Memory
from powercap_operator.targets import build_target
from powercap_operator.world import World

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
SPEC = parse_spec({"cap": {"watts": 1000, "overheadFactor": 2}, "rollout": "Auto"})
TARGET = build_target(
    ScaledObject(
        namespace="ns",
        name="chat",
        resource_version="1",
        max_replicas=8,
        target_name="chat",
        hpa_name="keda-hpa-chat",
    ),
    workload=Workload(namespace="ns", name="chat", requested=2, present=2),
    hpa_max=None,
    policy=TargetPolicy(),
    record=None,
    now=NOW,
)
PLAN = CapPlan(
    plan_id="p",
    expires_at=NOW + datetime.timedelta(seconds=180),
    targets={
        ("ns", "chat"): TargetPlan(
            status=PlanStatus.PLANNED,
            replicas=4,
            safe_max=2,
            watts_per_replica=50.0,
            planned_watts=120.0,
            reason="as planned",
        )
    },
    base_watts=100.0,
    unmanaged_watts=20.0,
    fixed_watts=0.0,
    available_watts=380.0,
    planned_watts=240.0,
    charged_watts=320.0,
    shadow_price=1.5,
    is_binding=True,
    is_feasible=True,
    least_cap_watts=None,
    gap=0.01,
    rung="exact",
)
MEASURED = Measurement(watts=480.0, measured_at=NOW, source="test", reason="")
WORLD = World(
    item={
        "metadata": {"name": "cap", "generation": 3},
        "spec": {"cap": {"watts": 1000}},
        "status": {},
    },
    spec=SPEC,
    memory=Memory(),
    targets=(TARGET,),
    released=(),
    problems=(),
    now=NOW,
)


def _situation(**given: Any) -> Situation:
    values: dict[str, Any] = {
        "spec": SPEC,
        "targets": WORLD.targets,
        "plan": PLAN,
        "failure": None,
        "measurement": MEASURED,
        "in_force": None,
        "last_shed_at": None,
        "settling": None,
        "now": NOW,
        "settle_seconds": 60.0,
        **given,
    }
    return Situation(**values)


def _final(situation: Situation, world: World = WORLD) -> dict[str, Any]:
    decision = decide(situation)
    outcomes = tuple(Outcome(step=step) for step in decision.steps)
    made = report.final(world, situation, decision, outcomes)
    # What is written must be JSON that the API server takes: no NaN, no infinity.
    json.dumps(made, allow_nan=False)
    return made


def _conditions(made: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {item["type"]: (item["status"], item["reason"]) for item in made["conditions"]}


def test_watts_are_told_at_the_meter() -> None:
    made = _final(_situation())

    assert made["plannedWatts"] == 480.0
    # Lowered from 8 to 4, but the autoscaler has not followed yet: (100 + 20 + 8 x 50) x 2.
    assert made["chargedWatts"] == 1040.0
    assert made["headroomWatts"] == 360.0
    assert made["measuredWatts"]["watts"] == 480.0


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        pytest.param({}, "CapFeasible", ("True", "FloorsFit"), id="feasible"),
        pytest.param(
            {"plan": dataclasses.replace(PLAN, is_feasible=False)},
            "CapFeasible",
            ("False", "CapInfeasible"),
            id="infeasible, least cap unknown",
        ),
        pytest.param({}, "CapHeld", ("True", "UnderCap"), id="held"),
        pytest.param(
            {"measurement": dataclasses.replace(MEASURED, watts=1200.0)},
            "CapHeld",
            ("False", "AboveCap"),
            id="above",
        ),
        pytest.param(
            {"measurement": None}, "CapHeld", ("Unknown", "PowerNotMeasured"), id="unseen"
        ),
        pytest.param(
            {"measurement": None}, "MetricsHealthy", ("False", "PowerNotMeasured"), id="no meter"
        ),
        pytest.param({}, "PlannerReachable", ("True", "Answered"), id="reachable"),
        pytest.param({}, "Ready", ("True", "Converging"), id="steps under way"),
    ],
)
def test_conditions_of_a_planned_cycle(
    given: dict[str, Any], kind: str, expected: tuple[str, str]
) -> None:
    assert _conditions(_final(_situation(**given)))[kind] == expected


@pytest.mark.parametrize("kind", list(FailureKind))
@pytest.mark.parametrize("seconds_left", [None, 60.0, -60.0])
def test_every_failure_ends_as_a_condition(kind: FailureKind, seconds_left: float | None) -> None:
    in_force = None
    if seconds_left is not None:
        expires_at = NOW + datetime.timedelta(seconds=seconds_left)
        in_force = PlanInForce(plan_id="old", expires_at=expires_at)
    situation = _situation(plan=None, failure=Failure(kind=kind, message="why"), in_force=in_force)

    made = _final(situation)

    assert _conditions(made)["Ready"] == ("False", kind.value)
    assert "why" in made["lastCycle"]["message"]
    expected = {None: "NoPlan", 60.0: "PlanHeld", -60.0: "SafeMaxima"}[seconds_left]
    assert made["lastCycle"]["outcome"] == expected


def test_an_invalid_spec_is_told_whatever_else_fails_and_is_not_remembered_as_valid() -> None:
    bad = {"cap": {"watts": 9, "fixedOverheadWatts": 9}}
    world = dataclasses.replace(WORLD, item={**WORLD.item, "spec": bad}, refusal="cap is bad")
    silent = Failure(kind=FailureKind.UNREACHABLE, message="gone")
    situation = _situation(plan=None, measurement=None, failure=silent, refusal="cap is bad")

    made = _final(situation, world)

    assert _conditions(made)["Ready"] == ("False", "InvalidSpec")
    assert _conditions(made)["PlannerReachable"] == ("False", "PlannerUnreachable")
    assert made["lastCycle"] == {
        "time": made["lastCycle"]["time"],
        "outcome": "InvalidSpec",
        "message": "cap is bad; gone",
    }
    assert "lastValidSpec" not in made


def test_the_least_cap_is_named() -> None:
    plan = dataclasses.replace(PLAN, is_feasible=False, least_cap_watts=1234.4)

    made = _final(_situation(plan=plan))

    found = next(item for item in made["conditions"] if item["type"] == "CapFeasible")
    assert "1234 W" in found["message"]


def test_a_write_that_failed_is_told_and_both_values_are_remembered() -> None:
    situation = _situation()
    decision = decide(situation)
    outcomes = [Outcome(step=step, error="a webhook refused it") for step in decision.steps]

    made = report.final(WORLD, situation, decision, outcomes)

    assert _conditions(made)["Ready"] == ("False", "WriteFailed")
    assert "ns/chat not written: a webhook refused it" in made["lastCycle"]["message"]
    (target,) = made["targets"]
    assert (target["written"], target["previous"], target["userMax"]) == (4, 8, 8)


def test_the_intent_holds_the_users_maximum_before_anything_is_written() -> None:
    situation = _situation()

    made = report.intent(WORLD, situation, decide(situation))

    (target,) = made["targets"]
    assert (target["userMax"], target["written"], target["previous"]) == (8, 4, 8)


def test_an_unknown_price_and_gap_are_left_out() -> None:
    made = _final(_situation(plan=dataclasses.replace(PLAN, shadow_price=None, gap=None)))

    assert "shadowPrice" not in made
    assert "gap" not in made["plan"]


def test_events_name_who_changed_and_why() -> None:
    subject = events.Subject(api_version="powercap.dev/v1alpha1", kind="PowerCap", name="cap")
    step = Step(key=("ns", "chat"), before=8, after=4, reason=StepReason.PLAN)
    decision = Decision(
        steps=(dataclasses.replace(step, reason=StepReason.SHED),), shed_watts=200.0
    )

    told = events.of_steps(subject, [step], {step.key: events.of_scaled_object(TARGET)})
    shed = events.of_shedding(subject, decision, measured=1200.0, cap=1000.0)

    assert [event.reason for event in told] == ["MaximumLowered", "PlanApplied"]
    assert "ns/chat 8 -> 4" in told[1].message
    assert shed.type is events.EventType.WARNING
    assert "200 W taken off: ns/chat 8 -> 4" in shed.message
