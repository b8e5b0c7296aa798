"""The published prototype stays as it was, and v1 stays compatible with it in bytes and JSON."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from powercap_proto.prototype import planner_pb2 as prototype
from powercap_proto.v1 import planner_pb2 as v1

PROTO = Path(__file__).resolve().parents[2] / "proto" / "powercap_proto"

# The published definition, verbatim. It is frozen: others have built clients from it.
PUBLISHED = """\
syntax = "proto3";

service Planner {
  rpc CalculateOptimalReplicas(CalculateOptimalReplicasRequest) returns (CalculateOptimalReplicasResponse) {}
}

message CalculateOptimalReplicasRequest {
  repeated Deployment deployments = 1;
  double powerCap = 2;
}

message Deployment {
  string name = 1;
  string namespace = 2;
}

message CalculateOptimalReplicasResponse {
  repeated DeploymentReplicas deploymentReplicas = 1;
}

message DeploymentReplicas {
  string name = 1;
  string namespace = 2;
  int32 optimalReplicas = 3;
}
"""  # noqa: E501 (verbatim)
PUBLISHED_SHA256 = "ad58d3de3b9434cf71b90552b506dfc6fa8a68c9997e3c105f2b5b991f8fe0ff"

names = st.text(st.characters(codec="utf-8"), max_size=20)
watts = st.floats(allow_nan=False)
replicas = st.integers(-(2**31), 2**31 - 1)
named = st.lists(st.tuples(names, names), max_size=4)
counted = st.lists(st.tuples(names, names, replicas), max_size=4)


def old_request(deployments, cap) -> prototype.CalculateOptimalReplicasRequest:
    return prototype.CalculateOptimalReplicasRequest(
        deployments=[
            prototype.Deployment(name=name, namespace=space) for name, space in deployments
        ],
        powerCap=cap,
    )


def new_request(deployments, cap) -> v1.CalculateOptimalReplicasRequest:
    return v1.CalculateOptimalReplicasRequest(
        deployments=[v1.Deployment(name=name, namespace=space) for name, space in deployments],
        power_cap_watts=cap,
    )


def old_response(answers) -> prototype.CalculateOptimalReplicasResponse:
    return prototype.CalculateOptimalReplicasResponse(
        deploymentReplicas=[
            prototype.DeploymentReplicas(name=name, namespace=space, optimalReplicas=count)
            for name, space, count in answers
        ]
    )


def new_response(answers) -> v1.CalculateOptimalReplicasResponse:
    return v1.CalculateOptimalReplicasResponse(
        deployment_replicas=[
            v1.DeploymentReplicas(name=name, namespace=space, optimal_replicas=count)
            for name, space, count in answers
        ]
    )


def test_prototype_is_the_published_text():
    kept = (PROTO / "prototype" / "planner.proto").read_bytes()

    assert kept == PUBLISHED.encode()
    assert hashlib.sha256(kept).hexdigest() == PUBLISHED_SHA256


@given(deployments=named, cap=watts)
def test_requests_are_the_same_bytes_and_json(deployments, cap):
    old, new = old_request(deployments, cap), new_request(deployments, cap)

    assert old.SerializeToString(deterministic=True) == new.SerializeToString(deterministic=True)
    assert json_format.MessageToJson(old) == json_format.MessageToJson(new)


@given(answers=counted)
def test_responses_are_the_same_bytes_and_json(answers):
    old, new = old_response(answers), new_response(answers)

    assert old.SerializeToString(deterministic=True) == new.SerializeToString(deterministic=True)
    assert json_format.MessageToJson(old) == json_format.MessageToJson(new)


@given(deployments=named, cap=watts)
def test_either_side_reads_the_others_requests(deployments, cap):
    old, new = old_request(deployments, cap), new_request(deployments, cap)

    assert v1.CalculateOptimalReplicasRequest.FromString(old.SerializeToString()) == new
    assert prototype.CalculateOptimalReplicasRequest.FromString(new.SerializeToString()) == old
    parsed = json_format.Parse(json_format.MessageToJson(old), v1.CalculateOptimalReplicasRequest())
    assert parsed == new


@given(answers=counted, reason=names, load=watts)
def test_prototype_reads_the_answer_past_what_it_does_not_know(answers, reason, load):
    new = new_response(answers)
    new.plan_id = "abc"
    for one in new.deployment_replicas:
        one.reason, one.load_tps = reason, load
        one.status = v1.DeploymentReplicas.STATUS_PLANNED

    read = prototype.CalculateOptimalReplicasResponse.FromString(new.SerializeToString())

    assert [
        (one.name, one.namespace, one.optimalReplicas) for one in read.deploymentReplicas
    ] == answers


@given(answers=counted, reason=names)
def test_what_the_prototype_does_not_know_survives_it(answers, reason):
    new = new_response(answers)
    for one in new.deployment_replicas:
        one.reason = reason

    through = prototype.CalculateOptimalReplicasResponse.FromString(new.SerializeToString())

    assert v1.CalculateOptimalReplicasResponse.FromString(through.SerializeToString()) == new


@pytest.mark.parametrize(
    "message",
    [
        "CalculateOptimalReplicasRequest",
        "CalculateOptimalReplicasResponse",
        "Deployment",
        "DeploymentReplicas",
    ],
)
def test_extensions_start_at_ten(message):
    old = prototype.DESCRIPTOR.message_types_by_name[message].fields_by_number
    new = v1.DESCRIPTOR.message_types_by_name[message].fields_by_number

    assert {number for number in new if number < 10} == set(old)
    for number, field in old.items():
        assert new[number].json_name == field.json_name
        assert new[number].type == field.type


def test_only_prototype_names_break_with_the_style_of_v1():
    fields = [
        field.name
        for message in v1.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    ]

    assert [name for name in fields if name != name.lower()] == []
