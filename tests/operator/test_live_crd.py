"""The shipped CRD on a real API server: bad values are refused by name, defaults are filled in."""

from __future__ import annotations

import re
from typing import Any

import pytest
from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_global_resource

from powercap_operator.errors import PolicyError
from powercap_operator.policy import parse_spec

pytestmark = pytest.mark.servers

PowerCap = create_global_resource("powercap.dev", "v1alpha1", "PowerCap", "powercaps")

TARGET = {"namespace": "a", "name": "b"}
BAD = [
    pytest.param({"cap": {"watts": 0}}, "spec.cap.watts", id="cap-zero"),
    pytest.param({"cap": {"watts": -5}}, "spec.cap.watts", id="cap-negative"),
    pytest.param({"cap": {}}, "spec.cap.watts", id="cap-missing"),
    pytest.param({"cap": {"watts": "9kW"}}, "spec.cap.watts", id="cap-text"),
    pytest.param(
        {"cap": {"watts": 9, "overheadFactor": 0.5}}, "spec.cap.overheadFactor", id="overhead"
    ),
    pytest.param(
        {"cap": {"watts": 9, "fixedOverheadWatts": 9}},
        "spec.cap.fixedOverheadWatts",
        id="fixed-overhead-is-all",
    ),
    pytest.param(
        {"cap": {"watts": 9}, "targets": [{**TARGET, "minReplicas": 3, "maxReplicas": 2}]},
        r"spec.targets\[0\]",
        id="min-above-max",
    ),
    pytest.param(
        {"cap": {"watts": 9}, "targets": [TARGET, TARGET]}, r"spec.targets\[1\]", id="twice"
    ),
    pytest.param(
        {"cap": {"watts": 9}, "targets": [{**TARGET, "weight": 0}]},
        r"spec.targets\[0\].weight",
        id="weight-zero",
    ),
    pytest.param(
        {"cap": {"watts": 9}, "floors": {"minServedFraction": 1.5}},
        "spec.floors.minServedFraction",
        id="fraction-above-one",
    ),
    pytest.param({"cap": {"watts": 9}, "rollout": "Yolo"}, "spec.rollout", id="rollout"),
    pytest.param(
        {"cap": {"watts": 9}, "intervalSeconds": 10, "feedbackIntervalSeconds": 20},
        "spec.feedbackIntervalSeconds",
        id="feedback-slower-than-cycle",
    ),
]


@pytest.mark.parametrize(("spec", "field"), BAD)
def test_server_and_operator_refuse_the_same_by_name(
    spec: dict[str, Any], field: str, kube_admin: Client, crds: object, control_plane: Any
) -> None:
    needs_cel = "fixedOverheadWatts" in field or "feedback" in field or "maxReplicas" in str(spec)

    with pytest.raises(PolicyError, match=field):
        parse_spec(spec)
    if needs_cel and control_plane.version() < (1, 25):
        return
    with pytest.raises(ApiError) as refusal:
        kube_admin.create(PowerCap({"metadata": {"name": "bad"}, "spec": spec}))

    assert refusal.value.status.code == 422
    assert re.search(field, str(refusal.value)), str(refusal.value)


def test_server_and_operator_agree_on_the_defaults(kube_admin: Client, crds: object) -> None:
    name = "defaults"
    given = {"cap": {"watts": 1000}, "targets": [TARGET]}

    made = kube_admin.create(PowerCap({"metadata": {"name": name}, "spec": given}))
    kube_admin.delete(PowerCap, name)

    assert parse_spec(made.spec) == parse_spec(given)
    assert made.spec["rollout"] == "Advisory"
