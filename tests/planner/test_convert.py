"""Messages into requests: documented defaults for what is unset, a field path for what is wrong."""

from __future__ import annotations

import math

import pytest

from powercap_planner.convert import caps_from_status_request, request_from_message
from powercap_planner.errors import RequestError
from powercap_planner.observations import ReplicaRule
from powercap_planner.request import CapSpec, ObjectiveKind, ObjectiveSpec
from powercap_proto.prototype import planner_pb2 as prototype
from powercap_proto.v1 import planner_pb2 as pb

Request = pb.CalculateOptimalReplicasRequest


def request(**changes: object) -> Request:
    fields = {"deployments": [pb.Deployment(name="a", namespace="llm")], "power_cap_watts": 5000}
    return Request(**{**fields, **changes})


def with_target(**fields: object) -> Request:
    return request(deployments=[pb.Deployment(name="ok"), pb.Deployment(name="a", **fields)])


def with_cap(**fields: object) -> Request:
    return request(caps=[pb.Cap(**fields)], power_cap_watts=0)


def test_bare_prototype_request_means_the_documented_defaults():
    bare = prototype.CalculateOptimalReplicasRequest(
        deployments=[prototype.Deployment(name="a")], powerCap=5000
    )

    asked = request_from_message(Request.FromString(bare.SerializeToString()))

    assert asked.caps == (CapSpec(watts=5000, window_seconds=60, overhead_factor=1),)
    assert asked.objective == ObjectiveSpec(price_weight=0.5, carbon_weight=0.5)
    assert asked.valid_seconds == 180
    assert asked.grid_zone == ""
    (target,) = asked.targets
    assert target.key == "default/a"
    assert (target.min_replicas, target.max_replicas) == (None, None)
    assert (target.weight, target.priority, target.min_served_fraction) == (1, 0, 0)
    assert target.replica_rule is ReplicaRule.CEILING
    assert (target.allowed_replicas, target.present_replicas) == (None, None)
    assert not target.is_fixed_charge


def test_everything_set_arrives():
    message = Request(
        deployments=[
            pb.Deployment(
                name="a",
                namespace="llm",
                min_replicas=0,
                max_replicas=9,
                weight=2.5,
                priority=-3,
                min_served_fraction=0.4,
                replica_rule=pb.Deployment.REPLICA_RULE_FIXED,
                allowed_replicas=0,
                present_replicas=7,
                is_fixed_charge=True,
            )
        ],
        caps=[
            pb.Cap(
                name="cluster",
                watts=9000,
                window_seconds=900,
                overhead_factor=1.3,
                fixed_overhead_watts=250,
            )
        ],
        objective=pb.Objective(
            kind=pb.Objective.KIND_THROUGHPUT,
            price_weight=0,
            carbon_weight=1.5,
            served_share_fraction=0,
        ),
        grid_zone="DE-LU",
        valid_seconds=90,
    )

    asked = request_from_message(message)

    (target,) = asked.targets
    assert (target.min_replicas, target.max_replicas) == (0, 9)
    assert (target.weight, target.priority, target.min_served_fraction) == (2.5, -3, 0.4)
    assert target.replica_rule is ReplicaRule.FIXED
    assert (target.allowed_replicas, target.present_replicas) == (0, 7)
    assert target.is_fixed_charge
    assert asked.caps == (
        CapSpec(watts=9000, window_seconds=900, overhead_factor=1.3, fixed_overhead_watts=250),
    )
    assert asked.objective == ObjectiveSpec(
        kind=ObjectiveKind.THROUGHPUT,
        price_weight=0,
        carbon_weight=1.5,
        served_share_fraction=0,
    )
    assert (asked.grid_zone, asked.valid_seconds) == ("DE-LU", 90)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        pytest.param(request(power_cap_watts=0), "power_cap_watts", id="cap-missing"),
        pytest.param(request(power_cap_watts=-1), "power_cap_watts", id="cap-negative"),
        pytest.param(request(power_cap_watts=math.nan), "power_cap_watts", id="cap-nan"),
        pytest.param(request(power_cap_watts=math.inf), "power_cap_watts", id="cap-infinite"),
        pytest.param(request(deployments=[]), "deployments", id="nothing-asked"),
        pytest.param(request(deployments=[pb.Deployment()]), "deployments[0].name", id="no-name"),
        pytest.param(
            request(deployments=[pb.Deployment(name="a"), pb.Deployment(name="a")]),
            "deployments[1]",
            id="twice",
        ),
        pytest.param(
            request(
                deployments=[pb.Deployment(name="a"), pb.Deployment(name="a", namespace="default")]
            ),
            "deployments[1]",
            id="twice-by-default-namespace",
        ),
        pytest.param(with_target(weight=-1), "deployments[1].weight", id="weight-negative"),
        pytest.param(with_target(weight=0), "deployments[1].weight", id="weight-zero"),
        pytest.param(with_target(weight=math.nan), "deployments[1].weight", id="weight-nan"),
        pytest.param(with_target(min_replicas=-1), "deployments[1].min_replicas", id="min"),
        pytest.param(
            with_target(min_replicas=3, max_replicas=2),
            "deployments[1].max_replicas",
            id="min-above-max",
        ),
        pytest.param(with_target(max_replicas=0), "deployments[1].max_replicas", id="max-zero"),
        pytest.param(
            with_target(min_served_fraction=1.5),
            "deployments[1].min_served_fraction",
            id="fraction",
        ),
        pytest.param(with_target(replica_rule=9), "deployments[1].replica_rule", id="enum"),
        pytest.param(
            request(objective=pb.Objective(kind=7)), "objective.kind", id="objective-enum"
        ),
        pytest.param(
            request(objective=pb.Objective(price_weight=-1)),
            "objective.price_weight",
            id="price-weight",
        ),
        pytest.param(with_cap(watts=0), "caps[0].watts", id="caps-zero"),
        pytest.param(with_cap(watts=math.nan), "caps[0].watts", id="caps-nan"),
        pytest.param(with_cap(watts=9, name="rack-7"), "caps[0].name", id="caps-unknown"),
        pytest.param(
            with_cap(watts=9, overhead_factor=0.5), "caps[0].overhead_factor", id="overhead"
        ),
        pytest.param(with_cap(watts=9, window_seconds=-5), "caps[0].window_seconds", id="window"),
        pytest.param(
            request(caps=[pb.Cap(watts=5), pb.Cap(watts=6)], power_cap_watts=0),
            "caps",
            id="two-caps",
        ),
        pytest.param(
            request(caps=[pb.Cap(watts=5001)]), "power_cap_watts", id="cap-and-caps-differ"
        ),
        pytest.param(request(valid_seconds=-1), "valid_seconds", id="valid"),
        pytest.param(request(valid_seconds=math.nan), "valid_seconds", id="valid-nan"),
    ],
)
def test_what_cannot_be_is_refused_by_the_path_of_its_field(message, field):
    with pytest.raises(RequestError) as raised:
        request_from_message(message)

    assert raised.value.field == field
    assert str(raised.value).startswith(f"{field}: ")


def test_cap_and_caps_may_agree():
    asked = request_from_message(request(caps=[pb.Cap(watts=5000, overhead_factor=1.2)]))

    assert asked.caps == (CapSpec(watts=5000, overhead_factor=1.2),)


def test_status_of_no_cap_is_that_of_the_bare_cluster():
    (cap,) = caps_from_status_request(pb.GetStatusRequest())

    assert (cap.name, cap.overhead_factor, cap.fixed_overhead_watts) == ("cluster", 1, 0)


def test_status_needs_the_meter_of_a_cap_not_its_watts():
    (cap,) = caps_from_status_request(pb.GetStatusRequest(caps=[pb.Cap(overhead_factor=1.5)]))

    assert (cap.name, cap.overhead_factor, cap.window_seconds) == ("cluster", 1.5, 60)


def test_status_of_an_unknown_cap_is_refused():
    with pytest.raises(RequestError) as raised:
        caps_from_status_request(pb.GetStatusRequest(caps=[pb.Cap(name="rack-7")]))

    assert raised.value.field == "caps[0].name"
