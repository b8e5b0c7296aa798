"""Scenarios: which nodes, which deployments, which load."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from powercap_planner.observations import ReplicaRule
from powercap_simulator.curves import GPU_TYPES, ReplicaCurve, builtin_curve
from powercap_simulator.errors import ScenarioError
from powercap_simulator.workload import DailyWorkload, Workload

DEFAULT_START_SECONDS = 1_767_571_200.0
"""Monday 5 January 2026, 00:00 UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """One node with GPUs of one type."""

    name: str
    gpu: str
    """A key of ``GPU_TYPES``."""
    gpu_count: int
    host_idle_watts: float = 300.0
    """CPUs and memory without load. Assumed: two server CPUs, 1 to 2 TB of memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeploymentSpec:
    """One deployment and its ScaledObject."""

    namespace: str
    name: str
    curve: ReplicaCurve
    workload: Workload
    min_replicas: int
    max_replicas: int
    priority: int = 0
    weight: float = 1.0
    target_utilisation: float = 0.7
    """Load per replica that the autoscaler aims at, as a share of the saturated throughput."""
    replica_rule: ReplicaRule = ReplicaRule.CEILING
    startup_seconds: float = 150.0
    """From scheduled to ready: image and weights are loaded."""
    grace_seconds: float = 60.0
    """From the request to terminate until the pod is gone."""
    patience_seconds: float = 90.0
    """A request that would wait longer is given up."""
    host_watts_per_gpu: float = 25.0
    """Host watts above idle for each GPU of a saturated replica. Assumed."""

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenario:
    """A cluster to emulate."""

    name: str
    nodes: tuple[NodeSpec, ...]
    deployments: tuple[DeploymentSpec, ...]
    start_seconds: float = DEFAULT_START_SECONDS
    """Unix time at which the emulation begins."""
    rate_noise_fraction: float = 0.06
    """Standard deviation of the slow wander of each arrival rate."""
    power_noise_fraction: float = 0.015
    """Standard deviation of a replica's watts over 15 s (measured: 3 to 5 % over 1 s)."""
    power_drift_fraction: float = 0.02
    """Standard deviation of the slow wander of watts (measured: repeated runs differ 3 to 14 %)."""
    sensor_noise_fraction: float = 0.01
    """Standard deviation of one reading of one GPU."""

    def __post_init__(self) -> None:
        """Check what spans fields.

        Raises:
            ScenarioError: naming what does not fit.
        """
        if not self.nodes or not self.deployments:
            raise ScenarioError("nodes and deployments: at least one of each is needed")
        for what, names in (
            ("nodes", [node.name for node in self.nodes]),
            ("deployments", [deployment.key for deployment in self.deployments]),
        ):
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ScenarioError(f"{what} holds {twice[0]!r} twice")
        for node in self.nodes:
            _check(f"node {node.name}: gpu_count", node.gpu_count, node.gpu_count > 0, "1 or more")
            if node.gpu not in GPU_TYPES:
                raise ScenarioError(
                    f"node {node.name}: gpu is {node.gpu!r}; accepted: {[*GPU_TYPES]}"
                )
        for deployment in self.deployments:
            self._check_deployment(deployment)

    def _check_deployment(self, deployment: DeploymentSpec) -> None:
        key, curve = deployment.key, deployment.curve
        low, high = deployment.min_replicas, deployment.max_replicas
        _check(f"{key}: min_replicas", low, low >= 0, "0 or more")
        _check(f"{key}: max_replicas", high, high >= max(1, low), f"{max(1, low)} or more")
        use = deployment.target_utilisation
        _check(f"{key}: target_utilisation", use, 0 < use <= 1, "above 0, up to 1")
        _check(f"{key}: weight", deployment.weight, deployment.weight > 0, "more than 0")
        widest = max((n.gpu_count for n in self.nodes if n.gpu == curve.gpu), default=0)
        if curve.gpus_per_replica > widest:
            raise ScenarioError(
                f"{key}: one replica needs {curve.gpus_per_replica} {curve.gpu} on one node; "
                f"the largest node has {widest}"
            )

    def starting_at(self, start_seconds: float) -> Scenario:
        """Return the same scenario at another Unix time, s."""
        return replace(self, start_seconds=start_seconds)

    @property
    def gpu_count(self) -> dict[str, int]:
        """GPUs by the type's exporter name."""
        count: dict[str, int] = {}
        for node in self.nodes:
            name = GPU_TYPES[node.gpu].name
            count[name] = count.get(name, 0) + node.gpu_count
        return count


def mixed_scenario() -> Scenario:
    """Return the built-in mixed cluster: 8 deployments on H100, B200 and A100, some GPUs idle.

    Parameters of our own making: sizes such that the day's peak wants about 30 of 40 GPUs, so
    that a cap of a few kilowatts less than that makes the deployments compete.
    """

    def deployment(
        namespace: str,
        name: str,
        model: str,
        gpu: str,
        *,
        peak_replicas: float,
        prompt: float,
        output: float,
        limits: tuple[int, int],
        priority: int,
        weight: float = 1.0,
        peak_hour: float = 14.0,
        trough: float = 0.25,
        startup: float = 150.0,
    ) -> DeploymentSpec:
        curve = builtin_curve(model=model, gpu=gpu)
        peak_rps = peak_replicas * 0.7 * curve.saturated_tps / output
        return DeploymentSpec(
            namespace=namespace,
            name=name,
            curve=curve,
            workload=DailyWorkload(
                peak_rps=peak_rps,
                prompt_tokens=prompt,
                output_tokens=output,
                peak_hour=peak_hour,
                trough_fraction=trough,
            ),
            min_replicas=limits[0],
            max_replicas=limits[1],
            priority=priority,
            weight=weight,
            startup_seconds=startup,
        )

    return Scenario(
        name="mixed",
        nodes=(
            NodeSpec(name="node-h100-a", gpu="H100", gpu_count=8, host_idle_watts=320.0),
            NodeSpec(name="node-h100-b", gpu="H100", gpu_count=8, host_idle_watts=320.0),
        NodeSpec(name="node-h100-c", gpu="H100", gpu_count=8, host_idle_watts=320.0),
            NodeSpec(name="node-b200-a", gpu="B200", gpu_count=8, host_idle_watts=360.0),
            NodeSpec(name="node-a100-a", gpu="A100", gpu_count=8, host_idle_watts=260.0),
        ),
        deployments=(
            deployment(
                "chat", "assistant-70b", "llama-3.3-70b", "H100", peak_replicas=1.8, prompt=900,
                output=400, limits=(1, 2), priority=10, weight=2.0, startup=240.0,
            ),
            deployment(
                "chat", "assistant-8b", "llama-3.1-8b", "H100", peak_replicas=2.8, prompt=500,
                output=390, limits=(1, 4), priority=5,
            ),
            deployment(
                "search", "rerank-14b", "qwen3-14b", "H100", peak_replicas=2.6, prompt=1200,
                output=250, limits=(1, 4), priority=5, peak_hour=11.0,
            ),
            deployment(
                "batch", "summaries-70b", "llama-3.3-70b", "B200", peak_replicas=1.7, prompt=3000,
                output=350, limits=(1, 2), priority=0, peak_hour=20.0, trough=0.5, startup=240.0,
            ),
            deployment(
                "agents", "tools-20b", "gpt-oss-20b", "B200", peak_replicas=1.8, prompt=1500,
                output=600, limits=(1, 3), priority=5, peak_hour=16.0,
            ),
            deployment(
                "code", "complete-7b", "codellama-7b", "A100", peak_replicas=2.7, prompt=800,
                output=100, limits=(1, 4), priority=3, peak_hour=13.0, trough=0.15,
            ),
            deployment(
                "legal", "contracts-13b", "llama-2-13b", "A100", peak_replicas=1.7, prompt=2500,
                output=300, limits=(1, 2), priority=2, peak_hour=10.0, trough=0.1,
            ),
            deployment(
                "research", "vision-12b", "gemma-3-12b", "H100", peak_replicas=1.8, prompt=1000,
                output=500, limits=(1, 3), priority=1, peak_hour=17.0,
            ),
        ),
    )  # fmt: skip


def _check(field: str, value: float, is_accepted: bool, accepted: str) -> None:
    if not (math.isfinite(value) and is_accepted):
        raise ScenarioError(f"{field} is {value}; accepted: {accepted}")
