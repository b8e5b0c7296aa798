"""The operator on a real API server among others: owners, pauses, people, other PowerCaps."""

from __future__ import annotations

from typing import Any

import pytest
from lightkube import Client
from lightkube.generic_resource import create_namespaced_resource

pytestmark = pytest.mark.servers

ScaledObject = create_namespaced_resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")

InferenceService = create_namespaced_resource(
    "serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices"
)


@pytest.fixture
def owner(site: Any, kube_admin: Client, crds: dict[str, Any]) -> dict[str, Any]:
    """Return the reference to an InferenceService: a real one where KServe's CRD is given."""
    uid = "6f1d3c1a-0000-4000-8000-000000000000"
    if "inferenceservices.serving.kserve.io" in crds:
        uid = kube_admin.create(InferenceService(_service(site.namespace))).metadata.uid
    # As KServe's reconciler sets it.
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "name": "llm",
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _service(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "llm",
            "namespace": namespace,
            "annotations": {"serving.kserve.io/autoscalerClass": "keda"},
        },
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "maxReplicas": 6,
                "model": {
                    "modelFormat": {"name": "huggingface"},
                    "storageUri": "hf://meta-llama/Llama-3.1-8B",
                },
            }
        },
    }


def test_what_a_controller_owns_is_reported_and_not_patched(
    site: Any, planner: Any, start_operator: Any, owner: dict[str, Any]
) -> None:
    site.add("owned", replicas=2, maximum=6, ownerReferences=[owner])
    site.add("chat", maximum=10)
    planner.allow("owned", 1)
    planner.allow("chat", 2)
    version = site.versions()["owned"]
    start_operator()

    cap = site.cap(watts=1000)
    site.wait(lambda: site.maximum("chat") == 2, "its neighbour is planned")
    site.cycles(cap, 2)

    assert site.maximum("owned") == 6
    assert site.versions()["owned"] == version
    target = site.target(cap, "owned")
    assert target["state"] == "OwnedElsewhere"
    assert "InferenceService/llm" in target["reason"]
    asked = {item.name: item for item in planner.requests[-1].deployments}
    assert asked["owned"].is_fixed_charge
    assert (asked["owned"].allowed_replicas, asked["owned"].present_replicas) == (6, 2)
    assert site.status(cap)["managedTargets"] == "1/2"


def test_kserves_own_crd_takes_the_service_and_nobody_writes_it(
    site: Any,
    planner: Any,
    start_operator: Any,
    owner: dict[str, Any],
    kube_admin: Client,
    crds: dict[str, Any],
) -> None:
    if "inferenceservices.serving.kserve.io" not in crds:
        pytest.skip("POWERCAP_TEST_CRDS names no folder with KServe's CRDs")
    site.add("owned", replicas=2, maximum=6, ownerReferences=[owner])
    before = kube_admin.get(InferenceService, "llm", namespace=site.namespace)
    start_operator()

    cap = site.cap(watts=1000)
    site.wait(lambda: site.target(cap, "owned").get("state") == "OwnedElsewhere", "it is reported")
    site.cycles(cap, 2)

    after = kube_admin.get(InferenceService, "llm", namespace=site.namespace)
    assert after.metadata.resourceVersion == before.metadata.resourceVersion
    # Its owner is there, so the garbage collector keeps it, and its user's maximum stays.
    assert after.spec["predictor"]["maxReplicas"] == site.maximum("owned") == 6


def test_what_keda_pauses_is_charged_and_not_patched(
    site: Any, planner: Any, start_operator: Any
) -> None:
    pause = {"autoscaling.keda.sh/paused-replicas": "2"}
    site.add("paused", replicas=2, maximum=6, annotations=pause)
    planner.allow("paused", 1)
    start_operator()

    cap = site.cap(watts=1000)
    site.cycles(cap, 2)

    assert site.maximum("paused") == 6
    assert site.target(cap, "paused")["state"] == "Paused"
    assert planner.requests[-1].deployments[0].is_fixed_charge


def test_a_foreign_change_becomes_the_original_and_the_plan_comes_back(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 3)
    start_operator()
    cap = site.cap(watts=1000)
    site.wait(lambda: site.maximum("chat") == 3, "planned")
    site.cycles(cap, 1)

    site.set_maximum("chat", 20)
    site.wait(lambda: site.target(cap, "chat").get("userMax") == 20, "adopted")
    site.wait(lambda: site.maximum("chat") == 3, "the plan comes back")
    # Told after the write: a PowerCap that is deleted in between has no cycle left to tell in.
    told = site.event("ForeignChange")
    site.delete_cap(cap)

    assert site.maximum("chat") == 20
    assert "set to 20 by someone else" in told


def test_who_keeps_changing_it_back_is_not_fought(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 3)
    start_operator()
    cap = site.cap(watts=1000)
    site.wait(lambda: site.maximum("chat") == 3, "planned")

    for attempt in (11, 12):
        site.set_maximum("chat", attempt)
        site.wait(lambda: site.maximum("chat") == 3, "written back")
        site.cycles(cap, 1)
    site.set_maximum("chat", 13)
    site.wait(lambda: site.target(cap, "chat").get("state") == "Contended", "given up")
    site.cycles(cap, 2)

    assert site.maximum("chat") == 13
    assert planner.requests[-1].deployments[0].is_fixed_charge


def test_of_two_power_caps_the_lower_name_wins_and_both_say_so(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 4)
    start_operator()
    loser = site.cap(f"{site.namespace}-b", watts=1000)
    site.wait(lambda: site.maximum("chat") == 4, "the first one writes")

    winner = site.cap(f"{site.namespace}-a", watts=1000)
    site.wait(lambda: site.target(loser, "chat").get("state") == "Contested", "it yields")
    site.wait(lambda: site.target(winner, "chat").get("state") == "Managed", "taken over")
    site.cycles(loser, 1)
    kept = site.maximum("chat")
    remembered = site.target(winner, "chat")["userMax"]
    reasons = (site.target(loser, "chat")["reason"], site.target(winner, "chat")["reason"])
    site.delete_cap(winner)
    site.wait(lambda: site.target(loser, "chat").get("state") == "Managed", "handed back")
    site.wait(lambda: site.maximum("chat") == 4, "planned again")
    site.delete_cap(loser)

    assert (kept, remembered) == (4, 10)
    assert winner in reasons[0]
    assert loser in reasons[1]
    assert site.maximum("chat") == 10


def test_what_another_power_cap_may_run_is_charged_and_not_what_it_draws(
    site: Any, planner: Any, start_operator: Any
) -> None:
    site.add("chat", replicas=1, maximum=10, labels={"tier": "a"})
    site.add("batch", replicas=1, maximum=9, labels={"tier": "b"})
    planner.allow("chat", 4)
    planner.allow("batch", 3)
    start_operator()
    labels = ({"matchLabels": {"tier": tier}, "namespaces": [site.namespace]} for tier in "ab")
    one = site.cap(f"{site.namespace}-a", watts=1000, selector=next(labels))
    site.wait(lambda: site.target(one, "chat").get("allowed") == 4, "one writes")
    other = site.cap(f"{site.namespace}-b", watts=2000, selector=next(labels))
    site.wait(lambda: site.maximum("batch") == 3, "the other writes")
    site.cycles(one, 2)
    site.cycles(other, 2)

    asked = {request.caps[0].watts: request for request in planner.requests}
    charged = {
        watts: [
            (item.name, item.allowed_replicas, item.present_replicas)
            for item in request.deployments
            if item.is_fixed_charge
        ]
        for watts, request in asked.items()
    }
    assert charged == {1000: [("batch", 3, 1)], 2000: [("chat", 4, 1)]}
    assert site.status(one)["chargedWatts"] == pytest.approx(700)
    assert site.status(other)["chargedWatts"] == pytest.approx(700)
    assert not site.target(one, "batch")


def test_a_workload_that_is_no_deployment_is_reported(
    site: Any, planner: Any, start_operator: Any, kube_admin: Any
) -> None:
    kube_admin.create(
        ScaledObject(
            {
                "metadata": {"name": "lws", "namespace": site.namespace},
                "spec": {
                    "scaleTargetRef": {
                        "apiVersion": "leaderworkerset.x-k8s.io/v1",
                        "kind": "LeaderWorkerSet",
                        "name": "lws",
                    },
                    "maxReplicaCount": 4,
                    "triggers": [{"type": "cpu", "metadata": {"value": "50"}}],
                },
            }
        )
    )
    planner.allow("lws", 1)
    start_operator()

    cap = site.cap(watts=1000)
    site.cycles(cap, 2)

    assert site.maximum("lws") == 4
    target = site.target(cap, "lws")
    assert target["state"] == "Unsupported"
    assert "LeaderWorkerSet" in target["reason"]
