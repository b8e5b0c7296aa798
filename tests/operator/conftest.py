"""A running operator, a scripted planner, and ScaledObjects on the real API server.

The scripted planner speaks the real contract but answers what the test tells it to: what the
operator does with an answer is under test here, not how good the answer is.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Event, Namespace
from lightkube.types import PatchType

from powercap_proto.v1 import planner_pb2, planner_pb2_grpc

PowerCap = create_global_resource("powercap.dev", "v1alpha1", "PowerCap", "powercaps")
ScaledObject = create_namespaced_resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")

WAIT_SECONDS = 120.0
"""Only a test that fails waits so long; a loaded machine takes many times its usual second."""
_numbers = itertools.count()


@dataclass
class Answer:
    """What the scripted planner says about one workload."""

    replicas: int
    watts: float = 100.0
    safe_max: int = 1
    status: int = planner_pb2.DeploymentReplicas.STATUS_PLANNED


@dataclass
class ScriptedPlanner(planner_pb2_grpc.PlannerServicer):
    """Answers from ``answers``; a workload without one is allowed all it asks for."""

    port: int = 0
    """Taken at the first start, kept over restarts."""
    answers: dict[str, Answer] = field(default_factory=dict)
    base_watts: float = 0.0
    measured_watts: float | None = 0.0
    valid_seconds: float = 600.0
    """Longer than any test: a plan expires where the test says so."""
    error: tuple[grpc.StatusCode, str] | None = None
    requests: list[planner_pb2.CalculateOptimalReplicasRequest] = field(default_factory=list)
    _server: grpc.Server | None = None

    def allow(self, name: str, replicas: int, **answer: Any) -> None:
        """Answer this for one workload from now on."""
        self.answers[name] = Answer(replicas=replicas, **answer)

    def start(self) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        planner_pb2_grpc.add_PlannerServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        assert self.port in (0, port)
        self.port = port
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def CalculateOptimalReplicas(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        if self.error is not None:
            context.abort(*self.error)
        now = datetime.datetime.now(datetime.UTC)
        response = planner_pb2.CalculateOptimalReplicasResponse(
            plan_id=f"plan-{len(self.requests)}", rung="exact", status="optimal"
        )
        response.expires_at.FromDatetime(now + datetime.timedelta(seconds=self.valid_seconds))
        charged = fixed = 0.0
        for asked in request.deployments:
            answer = self.answers.get(asked.name) or Answer(replicas=asked.max_replicas)
            item = response.deployment_replicas.add(
                namespace=asked.namespace,
                name=asked.name,
                optimal_replicas=answer.replicas,
                safe_max_replicas=min(answer.safe_max, answer.replicas),
                charged_watts_per_replica=answer.watts,
                planned_watts=answer.watts * answer.replicas,
                status=answer.status,
                reason="as the test says",
            )
            if asked.is_fixed_charge:
                item.status = planner_pb2.DeploymentReplicas.STATUS_CHARGED
                most = max(asked.allowed_replicas, asked.present_replicas)
                item.optimal_replicas = most
                item.charged_watts = most * answer.watts
                fixed += item.charged_watts
            elif answer.status == planner_pb2.DeploymentReplicas.STATUS_HELD:
                fixed += max(asked.allowed_replicas, asked.present_replicas) * answer.watts
                item.charged_watts = (
                    max(asked.allowed_replicas, asked.present_replicas) * answer.watts
                )
            else:
                charged += answer.replicas * answer.watts
        cap = request.caps[0]
        device_watts = (cap.watts - cap.fixed_overhead_watts) / (cap.overhead_factor or 1)
        total = charged + fixed + self.base_watts
        response.caps.add(
            name="cluster",
            cap_watts=cap.watts,
            charged_watts=total,
            planned_watts=total,
            base_watts=self.base_watts,
            fixed_watts=fixed,
            available_watts=device_watts - self.base_watts - fixed,
            headroom_watts=device_watts - total,
        )
        return response

    def GetStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        response = planner_pb2.GetStatusResponse()
        cap = response.caps.add(name="cluster", source="script")
        if self.measured_watts is not None:
            cap.measured_watts = self.measured_watts
            cap.measured_at.GetCurrentTime()
        else:
            cap.reason = "the test took the meter away"
        return response


class RunningOperator:
    """The operator as its own process, by its real entry point."""

    def __init__(self, kubeconfig: Path, log: Path, *arguments: str) -> None:
        self.log_path = log
        self._log = log.open("ab")
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        environment.pop("KUBERNETES_SERVICE_HOST", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "powercap_operator.main", *arguments],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
        )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            self.kill()


@dataclass
class Site:
    """One namespace with ScaledObjects, and PowerCaps that select it."""

    client: Client
    namespace: str
    caps: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        *,
        replicas: int = 1,
        minimum: int | None = 1,
        maximum: int | None = 10,
        **metadata: Any,
    ) -> None:
        """Create a Deployment and the ScaledObject that scales it."""
        labels = {"app": name}
        self.client.create(
            Deployment.from_dict(
                {
                    "metadata": {"name": name, "namespace": self.namespace},
                    "spec": {
                        "replicas": replicas,
                        "selector": {"matchLabels": labels},
                        "template": {
                            "metadata": {"labels": labels},
                            "spec": {"containers": [{"name": "c", "image": "none.test/none:1"}]},
                        },
                    },
                }
            )
        )
        spec: dict[str, Any] = {
            "scaleTargetRef": {"name": name},
            "triggers": [{"type": "cpu", "metadata": {"value": "50"}}],
        }
        if minimum is not None:
            spec["minReplicaCount"] = minimum
        if maximum is not None:
            spec["maxReplicaCount"] = maximum
        body = {"metadata": {"name": name, "namespace": self.namespace, **metadata}, "spec": spec}
        self.client.create(ScaledObject(body))
        self.wait(lambda: self.present(name) == replicas, f"{name} has {replicas} pods")

    def cap(self, name: str = "", *, watts: float, **spec: Any) -> str:
        """Create a PowerCap over this namespace, Auto and with short intervals by default."""
        name = name or f"{self.namespace}-cap"
        body = {
            "cap": {"watts": watts, "windowSeconds": 1},
            "selector": {"namespaces": [self.namespace]},
            "rollout": "Auto",
            "intervalSeconds": 1,
            **spec,
        }
        self.client.create(PowerCap({"metadata": {"name": name}, "spec": body}))
        self.caps.append(name)
        return name

    def patch_cap(self, name: str, **spec: Any) -> None:
        self.client.patch(PowerCap, name, {"spec": spec}, patch_type=PatchType.MERGE)

    def delete_cap(self, name: str) -> None:
        self.client.delete(PowerCap, name)
        self.wait(lambda: not self.exists(name), f"PowerCap {name} is gone")

    def exists(self, name: str) -> bool:
        try:
            self.client.get(PowerCap, name)
        except ApiError as error:
            if error.status.code == 404:
                return False
            raise
        return True

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.client.get(PowerCap, name).get("status") or {})

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        found = self.status(name).get("conditions") or []
        return next((dict(item) for item in found if item["type"] == kind), {})

    def target(self, cap: str, name: str) -> dict[str, Any]:
        found = self.status(cap).get("targets") or []
        return next((dict(item) for item in found if item["name"] == name), {})

    def maximum(self, name: str) -> int | None:
        """Return ``spec.maxReplicaCount``; None where it is unset."""
        spec = self.client.get(ScaledObject, name, namespace=self.namespace).spec
        return spec.get("maxReplicaCount")

    def set_maximum(self, name: str, maximum: int | None) -> None:
        body = {"spec": {"maxReplicaCount": maximum}}
        self.client.patch(
            ScaledObject, name, body, namespace=self.namespace, patch_type=PatchType.MERGE
        )

    def scale(self, name: str, replicas: int) -> None:
        body = {"spec": {"replicas": replicas}}
        self.client.patch(
            Deployment, name, body, namespace=self.namespace, patch_type=PatchType.MERGE
        )

    def present(self, name: str) -> int:
        status = self.client.get(Deployment, name, namespace=self.namespace).status
        return (status.replicas or 0) if status else 0

    def versions(self) -> dict[str, str]:
        """Return the resource version of every ScaledObject."""
        found = self.client.list(ScaledObject, namespace=self.namespace)
        return {item.metadata.name: item.metadata.resourceVersion for item in found}

    def events(self, *, of: str = "") -> list[tuple[str, str]]:
        """Return reason and message of the Events on the ScaledObjects, or on a PowerCap."""
        if not of:
            found = self.client.list(Event, namespace=self.namespace)
            return [(e.reason, e.message) for e in found if e.involvedObject.kind == "ScaledObject"]
        found = self.client.list(Event, namespace="default")
        return [(e.reason, e.message) for e in found if e.involvedObject.name == of]

    def event(self, reason: str, *, of: str = "") -> str:
        """Wait for an Event with this reason and return its message."""
        self.wait(lambda: reason in dict(self.events(of=of)), f"an Event {reason}")
        return dict(self.events(of=of))[reason]

    def cycles(self, cap: str, count: int) -> None:
        """Wait until ``count`` further full cycles have ended."""
        for _ in range(count):
            before = self.status(cap).get("lastCycle", {}).get("time")
            self.wait(
                lambda before=before: (
                    self.status(cap).get("lastCycle", {}).get("time") not in (None, before)
                ),
                "the next cycle ends",
            )

    @staticmethod
    def wait(claim: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not claim():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s: {what}")
            time.sleep(0.05)


@dataclass
class Watched:
    """Every change of the maxima, in the order the API server made them."""

    site: Site
    told: list[tuple[str, int | None]] = field(default_factory=list)
    written_at: list[datetime.datetime] = field(default_factory=list)
    """When each change was told of: not before it was written."""
    versions: dict[str, str] = field(default_factory=dict)
    """The newest version of each ScaledObject that the watch has told of."""

    @property
    def changes(self) -> list[tuple[str, int | None]]:
        """All changes up to now: a watch may tell of a write later than a read shows it."""
        self.site.wait(lambda: self.versions == self.site.versions(), "the watch has told all")
        return list(self.told)


@pytest.fixture
def maxima(site: Site) -> Iterator[Watched]:
    """Watch the namespace's ScaledObjects from now on."""
    watched = Watched(site)
    known: dict[str, int | None] = {}
    closing = threading.Event()
    # From here on even if the watch connects late.
    listed = site.client.list(ScaledObject, namespace=site.namespace)
    assert not list(listed)
    start = listed.resourceVersion

    def follow() -> None:
        for _, item in site.client.watch(
            ScaledObject, namespace=site.namespace, resource_version=start
        ):
            if closing.is_set():
                return
            name, maximum = item.metadata.name, item.spec.get("maxReplicaCount")
            if name not in known or known[name] != maximum:
                known[name] = maximum
                watched.told.append((name, maximum))
                watched.written_at.append(datetime.datetime.now(datetime.UTC))
            watched.versions[name] = item.metadata.resourceVersion

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    yield watched
    closing.set()
    # Any further change ends the watch.
    body = {"metadata": {"annotations": {"closing": "true"}}}
    site.client.patch(
        ScaledObject,
        next(iter(known)),
        body,
        namespace=site.namespace,
        patch_type=PatchType.MERGE,
    )
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


@pytest.fixture
def older_schema(kube_admin: Client, crds: object) -> Iterator[None]:
    """Take the rules over two fields out of our CRD, as a server before 1.25 has none."""
    name = "powercaps.powercap.dev"

    def patch_rules(rules: Any) -> None:
        body = [{"op": "test", "path": "/metadata/name", "value": name}, *rules]
        kube_admin.patch(CustomResourceDefinition, name, body, patch_type=PatchType.JSON)

    def code() -> int:
        bad = {"cap": {"watts": 1, "fixedOverheadWatts": 2}}
        try:
            kube_admin.create(PowerCap({"metadata": {"name": "probe"}, "spec": bad}), dry_run=True)
            list(kube_admin.list(PowerCap))
        except ApiError as error:
            return int(error.status.code)
        return 201

    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/cap"
    path += "/x-kubernetes-validations"
    shipped = kube_admin.get(CustomResourceDefinition, name).to_dict()
    schema = shipped["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    cap = schema["properties"]["spec"]["properties"]["cap"]
    rules = cap.get("x-kubernetes-validations")
    if rules is None:
        yield
        return
    patch_rules([{"op": "remove", "path": path}])
    Site.wait(lambda: code() == 201, "the server takes what the rule refused")
    yield
    patch_rules([{"op": "add", "path": path, "value": rules}])
    Site.wait(lambda: code() == 422, "the server refuses it again")


@pytest.fixture
def planner() -> Iterator[ScriptedPlanner]:
    scripted = ScriptedPlanner()
    scripted.start()
    yield scripted
    scripted.stop()


@pytest.fixture
def start_operator(
    operator_kubeconfig: Path, planner: ScriptedPlanner, tmp_path: Path
) -> Iterator[Callable[..., RunningOperator]]:
    """Return a function that starts the operator; its log is checked at the end."""
    started: list[RunningOperator] = []

    def start(*arguments: str, interval: float | None = 0.4) -> RunningOperator:
        pace = () if interval is None else (f"--interval={interval}",)
        operator = RunningOperator(
            operator_kubeconfig,
            tmp_path / f"operator-{len(started)}.log",
            f"--planner=127.0.0.1:{planner.port}",
            "--planner-timeout=20",
            "--settle=1",
            "--liveness-port=0",
            *pace,
            *arguments,
        )
        started.append(operator)
        return operator

    yield start
    for operator in started:
        if operator.process.poll() is None:
            operator.stop()
    for operator in started:
        log = operator.log
        assert "orbidden" not in log, log[-6000:]
        assert "Traceback" not in log, log[-6000:]


@pytest.fixture
def site(kube_admin: Client, start_operator: Callable[..., RunningOperator]) -> Iterator[Site]:
    """Return a fresh namespace; its PowerCaps are deleted while the operator still runs."""
    namespace = f"site-{os.getpid()}-{next(_numbers)}"
    kube_admin.create(Namespace(metadata=ObjectMeta(name=namespace)))
    made = Site(client=kube_admin, namespace=namespace)
    yield made
    for cap in made.caps:
        with contextlib.suppress(ApiError):
            kube_admin.delete(PowerCap, cap)
    deadline = time.monotonic() + 30
    while any(made.exists(cap) for cap in made.caps) and time.monotonic() < deadline:
        time.sleep(0.05)
    for cap in made.caps:
        # An operator that a test killed leaves its finalizer; the next test must not meet it.
        with contextlib.suppress(ApiError):
            none: dict[str, Any] = {"metadata": {"finalizers": None}}
            kube_admin.patch(PowerCap, cap, none, patch_type=PatchType.MERGE)
    kube_admin.delete(Namespace, namespace)
