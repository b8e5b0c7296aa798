"""The whole system on real servers: what the end-to-end tests stand on.

Real: Prometheus (seeded history, then live scrapes), etcd, kube-apiserver, the Deployment
controller, KEDA's CRD, the planner and the operator as their own processes with their own entry
points, the shipped RBAC. Emulated: the GPUs and engines behind the exporters. Played: KEDA, the HPA
and the kubelet.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from control_plane import die_with_parent, free_port
from lightkube import Client, codecs
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_global_resource
from lightkube.resources.core_v1 import Event
from lightkube.types import PatchType
from played_keda import PlayedKeda, ScaledObject
from prometheus import Prometheus

from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.curves import builtin_curve
from powercap_simulator.live import LiveExporters, LiveRun
from powercap_simulator.raw_history import RawHistory
from powercap_simulator.scenario import DeploymentSpec, NodeSpec, Scenario
from powercap_simulator.scrape import ScrapeOptions

PowerCap = create_global_resource("powercap.dev", "v1alpha1", "PowerCap", "powercaps")

NAMESPACE = "serving"
HISTORY_SECONDS = 6 * 3600.0
HISTORY_STEP_SECONDS = 60.0
WAIT_SECONDS = 300.0
"""Only a test that fails waits so long."""
SEED = 20260105


class SteadyWorkload:
    """Requests at one rate, which a test may change while the cluster runs."""

    def __init__(self, *, load_tps: float, prompt_tokens: float, output_tokens: float) -> None:
        self.load_tps = load_tps
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens

    def rate_rps(self, time_seconds: np.ndarray) -> np.ndarray:
        return np.full(time_seconds.shape, self.load_tps / self.output_tokens)


@dataclass(frozen=True)
class Workload:
    """One deployment of the test cluster: what it asks for, and its user's limits."""

    name: str
    model: str
    gpu: str
    replicas_wanted: float
    max_replicas: int
    priority: int


WORKLOADS = (
    Workload("assistant", "llama-3.1-8b", "H100", 4.3, 6, 10),
    Workload("reasoner", "qwen3-14b", "H100", 3.4, 6, 5),
    Workload("tools", "gpt-oss-20b", "B200", 3.6, 5, 5),
    Workload("completion", "codellama-7b", "A100", 3.2, 5, 0),
)


def scenario(start_seconds: float) -> Scenario:
    """Return a small mixed cluster whose pods start and stop within seconds."""
    deployments = []
    for workload in WORKLOADS:
        curve = builtin_curve(model=workload.model, gpu=workload.gpu)
        load_tps = workload.replicas_wanted * 0.7 * curve.saturated_tps
        deployments.append(
            DeploymentSpec(
                namespace=NAMESPACE,
                name=workload.name,
                curve=curve,
                workload=SteadyWorkload(load_tps=load_tps, prompt_tokens=400, output_tokens=250),
                min_replicas=1,
                max_replicas=workload.max_replicas,
                priority=workload.priority,
                startup_seconds=3.0,
                grace_seconds=2.0,
            )
        )
    return Scenario(
        name="end-to-end",
        nodes=(
            NodeSpec(name="h100-a", gpu="H100", gpu_count=8),
            NodeSpec(name="h100-b", gpu="H100", gpu_count=8),
            NodeSpec(name="b200-a", gpu="B200", gpu_count=8),
            NodeSpec(name="a100-a", gpu="A100", gpu_count=8),
        ),
        deployments=tuple(deployments),
        start_seconds=start_seconds,
    )


class ManagedProcess:
    """One of our entry points as its own process, its output kept in a file."""

    def __init__(self, name: str, command: list[str], folder: Path, **environment: str) -> None:
        self.name = name
        self.command = command
        self.log_path = folder / f"{name}.log"
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                preexec_fn=die_with_parent,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def stop(self) -> int:
        """End it as Kubernetes would, and return its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        return self._process.wait(30)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None


@dataclass
class World:
    """Everything that runs, and short words for what tests ask of it."""

    client: Client
    exporters: LiveExporters
    prometheus: Prometheus
    planner: ManagedProcess
    operator: ManagedProcess
    records: Path
    """Where the planner records each problem and plan, by plan id."""
    user_maxima: dict[str, int] = field(
        default_factory=lambda: {workload.name: workload.max_replicas for workload in WORKLOADS}
    )

    def maxima(self) -> dict[str, int]:
        return {
            scaled_object.metadata.name: scaled_object.spec.get("maxReplicaCount")
            for scaled_object in self.client.list(ScaledObject, namespace=NAMESPACE)
        }

    def status(self, name: str) -> dict[str, Any]:
        return self.client.get(PowerCap, name).status or {}

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        conditions = self.status(name).get("conditions", [])
        return next((found for found in conditions if found["type"] == kind), {})

    def create_cap(self, name: str, *, watts: float, **spec: Any) -> None:
        body = {
            "apiVersion": "powercap.dev/v1alpha1",
            "kind": "PowerCap",
            "metadata": {"name": name},
            "spec": {
                "cap": {"watts": watts, "windowSeconds": 15},
                "selector": {"namespaces": [NAMESPACE]},
                "rollout": "Auto",
                "intervalSeconds": 3,
                "feedbackIntervalSeconds": 1,
                **spec,
            },
        }
        self.client.create(PowerCap(body))

    def patch_cap(self, name: str, spec: dict[str, Any]) -> None:
        self.client.patch(PowerCap, name, {"spec": spec}, patch_type=PatchType.MERGE)

    def delete_cap(self, name: str) -> None:
        self.client.delete(PowerCap, name)
        self.wait(lambda: not self.exists(name), "the PowerCap to be gone")

    def exists(self, name: str) -> bool:
        try:
            self.client.get(PowerCap, name)
        except ApiError as error:
            if error.status.code == 404:
                return False
            raise
        return True

    def events(self) -> list[Event]:
        return list(self.client.list(Event, namespace="*"))

    def recorded(self, plan_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return problem and plan, as recorded, of one plan."""
        problem = json.loads((self.records / f"{plan_id}.problem.json").read_text())
        plan = json.loads((self.records / f"{plan_id}.plan.json").read_text())
        return problem, plan

    def wait(self, holds: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert self.operator.is_running(), self.operator.log[-3000:]
            if time.monotonic() > end:
                raise TimeoutError(
                    f"waited {seconds} s for {what}; maxima {self.maxima()}\n"
                    f"operator: {self.operator.log[-3000:]}\nplanner: {self.planner.log[-2000:]}"
                )
            time.sleep(0.2)


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    prometheus_binaries: Path,
    kube_admin: Client,
    operator_kubeconfig: Path,
) -> Iterator[World]:
    """Bring everything up; take it down in the opposite order."""
    folder = tmp_path_factory.mktemp("world")
    start = time.time() - HISTORY_SECONDS
    cluster = SimulatedCluster(scenario(start), seed=SEED)
    options = ScrapeOptions(scrape_seconds=1.0)
    history = RawHistory(options)
    _live_through(cluster, history)
    exporters = LiveExporters(cluster, options=options)
    exporters.write_prometheus_config(folder / "prometheus.yml")
    _create_workloads(kube_admin, cluster)
    keda = PlayedKeda(
        kube_admin,
        cluster=cluster,
        lock=exporters.lock,
        present=lambda key: len(cluster.pods_of(cluster.index(key))),
    )
    config = (folder / "prometheus.yml").read_text()
    with Prometheus(prometheus_binaries, config_text=config) as prometheus:
        # Before the exporters answer: once a newer sample is stored, older ones are refused.
        history.remote_write(f"{prometheus.url}/api/v1/write")
        records = folder / "records"
        address = f"127.0.0.1:{free_port()}"
        planner = ManagedProcess(
            "planner",
            [
                str(Path(sys.executable).with_name("powercap-planner")),
                f"--listen={address}",
                f"--prometheus={prometheus.url}",
                "--refresh-seconds=2",
                f"--record={records}",
            ],
            folder,
            POWERCAP_PROMETHEUS_POWER_WINDOW_SECONDS="15",
        )
        operator = ManagedProcess(
            "operator",
            [
                str(Path(sys.executable).with_name("powercap-operator")),
                f"--planner={address}",
                "--settle=5",
            ],
            folder,
            KUBECONFIG=str(operator_kubeconfig),
        )
        run = LiveRun(exporters)
        run.catch_up(time.time())
        with exporters, run:
            keda.start()
            planner.start()
            operator.start()
            try:
                yield World(kube_admin, exporters, prometheus, planner, operator, records)
            finally:
                operator.stop()
                planner.stop()
                keda.close()


def _live_through(cluster: SimulatedCluster, history: RawHistory) -> None:
    """Fill the history; for a while each deployment is held at one replica.

    Only so is its saturation seen, and its peak learned instead of taken from the nameplate.
    """
    quarter = HISTORY_SECONDS / 4
    history.run(cluster, seconds=quarter, scrape_seconds=HISTORY_STEP_SECONDS)
    for workload in WORKLOADS:
        cluster.set_max_replicas(f"{NAMESPACE}/{workload.name}", 1)
    history.run(cluster, seconds=quarter, scrape_seconds=HISTORY_STEP_SECONDS)
    for workload in WORKLOADS:
        cluster.set_max_replicas(f"{NAMESPACE}/{workload.name}", workload.max_replicas)
    history.run(cluster, seconds=2 * quarter, scrape_seconds=HISTORY_STEP_SECONDS)


def _create_workloads(client: Client, cluster: SimulatedCluster) -> None:
    client.create(
        codecs.from_dict({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    )
    for workload in WORKLOADS:
        index = cluster.index(f"{NAMESPACE}/{workload.name}")
        labels = {"app": workload.name}
        client.create(
            codecs.from_dict(
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {"name": workload.name, "namespace": NAMESPACE},
                    "spec": {
                        "replicas": len(cluster.pods_of(index)),
                        "selector": {"matchLabels": labels},
                        "template": {
                            "metadata": {"labels": labels},
                            "spec": {"containers": [{"name": "engine", "image": "engine:test"}]},
                        },
                    },
                }
            )
        )
        client.create(
            ScaledObject(
                {
                    "apiVersion": "keda.sh/v1alpha1",
                    "kind": "ScaledObject",
                    "metadata": {"name": workload.name, "namespace": NAMESPACE},
                    "spec": {
                        "scaleTargetRef": {"name": workload.name},
                        "minReplicaCount": 1,
                        "maxReplicaCount": workload.max_replicas,
                        "triggers": [
                            {
                                "type": "prometheus",
                                "metadata": {
                                    "serverAddress": "http://prometheus",
                                    "query": "sum(vllm:num_requests_running)",
                                    "threshold": "5",
                                },
                            }
                        ],
                    },
                }
            )
        )
