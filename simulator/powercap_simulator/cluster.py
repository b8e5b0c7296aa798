"""The emulated cluster: stepped in virtual time, deterministic from its scenario and seed.

Every tick, in this order: pods whose time has come change state; requests arrive and are served;
replicas, GPUs and hosts draw; the autoscalers sync. Watts are conserved:

    total = sum over GPUs + sum over nodes of host idle + host watts of pods
    a pod's GPUs draw what the pod draws; every other GPU draws its parked watts
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from powercap_simulator.curves import GPU_TYPES
from powercap_simulator.errors import ScenarioError
from powercap_simulator.keda import SYNC_SECONDS, ScaledObject
from powercap_simulator.pods import Placement, Pod, PodState
from powercap_simulator.scenario import DeploymentSpec, Scenario
from powercap_simulator.serving import COUNTER_WIDTH, ServedTick, Serving

FloatArray = NDArray[np.float64]

METRIC_SECONDS = 120.0
"""Window of the rate that the autoscalers look at, and the time they give a queue."""
_RATE_WANDER_SECONDS = 1800.0
_POWER_WANDER_SECONDS = 7200.0
_RATE_BLOCK = 240
_CHARACTERS = np.array(list("bcdfghjklmnpqrstvwxz2456789"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TickRecord:
    """What was true over one tick; arrays float64[deployment] unless said otherwise."""

    time_seconds: float
    """Unix time of the tick's end, s."""
    served: ServedTick
    pod_watts: FloatArray
    """GPUs and attributed host share of all pods, as the sensors read them."""
    ready: FloatArray
    present: FloatArray
    max_replicas: FloatArray
    total_watts: float
    """GPUs and hosts of the whole cluster, true."""
    measured_watts: float
    """The same as the sensors read it."""


class SimulatedCluster:
    """A cluster in virtual time."""

    def __init__(
        self, scenario: Scenario, *, seed: int, tick_seconds: float = SYNC_SECONDS
    ) -> None:
        """Bring the cluster up with the replicas its load at the start needs, all ready.

        Raises:
            ScenarioError: when the tick does not divide the autoscaler's 15 s.
        """
        if tick_seconds <= 0 or SYNC_SECONDS % tick_seconds:
            raise ScenarioError(f"tick_seconds is {tick_seconds}; accepted: a divisor of 15 s")
        self.scenario = scenario
        self.tick_seconds = tick_seconds
        self.now_seconds = scenario.start_seconds
        self.serving = Serving(scenario.deployments)
        self.placement = Placement(scenario.nodes)
        self.pods: list[Pod] = []
        self.records: list[TickRecord] = []
        self.energy_joules = 0.0
        count = len(scenario.deployments)
        gpus = self.placement.node_of_gpu.size
        self._saturated_tps = np.array([d.curve.saturated_tps for d in scenario.deployments])
        self._output_tokens = np.array([d.workload.output_tokens for d in scenario.deployments])
        types = [GPU_TYPES[scenario.nodes[node].gpu] for node in self.placement.node_of_gpu]
        self._parked_watts = np.array([kind.parked_watts for kind in types])
        self.gpu_watts = self._parked_watts.copy()
        """float64[gpu], true."""
        self.gpu_reading_watts = self._parked_watts.copy()
        """float64[gpu], as the sensor reads it."""
        self.gpu_joules = np.zeros(gpus)
        """float64[gpu], since the start."""
        self.node_host_watts = np.array([node.host_idle_watts for node in scenario.nodes])
        """float64[node]: idle and dynamic."""
        self.node_host_joules = np.zeros(len(scenario.nodes))
        self.scaled_objects = [_scaled_object(deployment) for deployment in scenario.deployments]
        self.spec_replicas = np.zeros(count, dtype=np.int64)
        self._index = {d.key: i for i, d in enumerate(scenario.deployments)}
        # Arrivals have a stream of their own: equal whatever is done to the replicas.
        self._arrivals, self._random = (np.random.default_rng([seed, part]) for part in (0, 1))
        self._rate_wander = np.zeros(count)
        self._power_wander = np.zeros(count)
        self._rates = np.empty((0, count))
        self._owed_seconds = 0.0
        self._ticks = 0
        self._start()

    def step(self, seconds: float) -> None:
        """Advance virtual time; what is less than a tick is kept for the next call.

        Raises:
            ScenarioError: when ``seconds`` is negative.
        """
        if seconds < 0:
            raise ScenarioError(f"seconds is {seconds}; accepted: 0 or more")
        self._owed_seconds += seconds
        while self._owed_seconds >= self.tick_seconds - 1e-9:
            self._owed_seconds -= self.tick_seconds
            self._tick()

    def set_max_replicas(self, key: str, replicas: int) -> None:
        """Patch ``maxReplicaCount``; the HPA follows at its next sync.

        Raises:
            ScenarioError: for an unknown deployment or a maximum below the minimum.
        """
        self.scaled_objects[self.index(key)].set_limits(max_replicas=replicas)

    def set_min_replicas(self, key: str, replicas: int) -> None:
        """Patch ``minReplicaCount``.

        Raises:
            ScenarioError: for an unknown deployment or a minimum above the maximum.
        """
        self.scaled_objects[self.index(key)].set_limits(min_replicas=replicas)

    def set_paused(self, key: str, *, is_paused: bool, replicas: int | None = None) -> None:
        """Set or remove KEDA's pause annotation; with ``replicas``, ``paused-replicas``.

        Raises:
            ScenarioError: for an unknown deployment.
        """
        scaled_object = self.scaled_objects[self.index(key)]
        scaled_object.is_paused = is_paused
        scaled_object.paused_replicas = replicas if is_paused else None

    def index(self, key: str) -> int:
        """Return the place of ``namespace/name`` among the scenario's deployments.

        Raises:
            ScenarioError: naming the deployments there are.
        """
        if key not in self._index:
            raise ScenarioError(f"unknown deployment {key!r}; accepted: {', '.join(self._index)}")
        return self._index[key]

    def pods_of(self, index: int) -> list[Pod]:
        """Return the pods of one deployment, oldest first, whatever their state."""
        return [pod for pod in self.pods if pod.deployment == index]

    def pod_counters(self, pod: Pod) -> FloatArray:
        """Return what the pod's server has counted since it became ready, float64[counter]."""
        if pod.counters_at_ready is None:
            return np.zeros(COUNTER_WIDTH)
        until = pod.counters_at_end
        now = self.serving.counters[pod.deployment] if until is None else until
        counted: FloatArray = now - pod.counters_at_ready
        return counted

    @property
    def total_watts(self) -> float:
        """GPUs and hosts of the whole cluster now, true."""
        return float(self.gpu_watts.sum() + self.node_host_watts.sum())

    @property
    def last(self) -> TickRecord:
        """What the latest tick recorded."""
        return self.records[-1]

    def _start(self) -> None:
        now = np.array([self.now_seconds])
        for index, deployment in enumerate(self.scenario.deployments):
            rate = float(deployment.workload.rate_rps(now)[0]) * deployment.workload.output_tokens
            aim = deployment.target_utilisation * deployment.curve.saturated_tps
            scaled = self.scaled_objects[index]
            replicas = int(np.clip(np.ceil(rate / aim), scaled.min_replicas, scaled.max_replicas))
            self.spec_replicas[index] = scaled.desired_replicas = replicas
            self._reconcile(index)
        for pod in self.pods:
            if pod.state is PodState.STARTING:
                self._make_ready(pod)

    def _tick(self) -> None:
        self.now_seconds += self.tick_seconds
        self._ticks += 1
        self._change_states()
        served = self.serving.serve(
            arrived_tokens=self._arrive(),
            ready=self._count(PodState.READY),
            seconds=self.tick_seconds,
        )
        pod_watts = self._draw(served)
        self._record(served, pod_watts)
        if round(self._ticks * self.tick_seconds / SYNC_SECONDS, 9).is_integer():
            self._sync(served)

    def _change_states(self) -> None:
        kept = []
        for pod in self.pods:
            if pod.changes_at_seconds <= self.now_seconds:
                if pod.state is PodState.TERMINATING:
                    self.placement.release(pod)
                    continue
                self._make_ready(pod)
            kept.append(pod)
        self.pods = kept
        for pod in self.pods:
            if pod.state is PodState.UNSCHEDULED:
                self._schedule(pod)

    def _make_ready(self, pod: Pod) -> None:
        pod.state, pod.changes_at_seconds = PodState.READY, np.inf
        pod.counters_at_ready = self.serving.counters[pod.deployment].copy()

    def _schedule(self, pod: Pod) -> None:
        deployment = self.scenario.deployments[pod.deployment]
        curve = deployment.curve
        if self.placement.place(pod, gpu=curve.gpu, gpu_count=curve.gpus_per_replica):
            pod.state, pod.scheduled_seconds = PodState.STARTING, self.now_seconds
            pod.changes_at_seconds = self.now_seconds + deployment.startup_seconds

    def _arrive(self) -> FloatArray:
        deployments = self.scenario.deployments
        place = (self._ticks - 1) % _RATE_BLOCK
        if place == 0:
            times = self.now_seconds + self.tick_seconds * np.arange(_RATE_BLOCK, dtype=np.float64)
            self._rates = np.column_stack([d.workload.rate_rps(times) for d in deployments])
        noise = self._arrivals.standard_normal(len(deployments))
        self._rate_wander = _wander(
            self._rate_wander, noise, self.tick_seconds / _RATE_WANDER_SECONDS
        )
        sigma = self.scenario.rate_noise_fraction
        factor = np.exp(sigma * self._rate_wander - sigma**2 / 2)
        requests = self._arrivals.poisson(self._rates[place] * factor * self.tick_seconds)
        tokens: FloatArray = requests * self._output_tokens
        return tokens

    def _draw(self, served: ServedTick) -> FloatArray:
        scenario, seconds = self.scenario, self.tick_seconds
        deployments = scenario.deployments
        self._power_wander = _wander(
            self._power_wander,
            self._random.standard_normal(len(deployments)),
            seconds / _POWER_WANDER_SECONDS,
        )
        share = (served.load_per_replica_tps / self._saturated_tps).tolist()
        ready_watts = served.power_per_replica_watts.tolist()
        factor = (1 + scenario.power_drift_fraction * self._power_wander).tolist()
        shakes = self._random.standard_normal(len(self.pods)).tolist()
        self.gpu_watts = self._parked_watts.copy()
        hosts = [node.host_idle_watts for node in scenario.nodes]
        idle_share = [
            watts / max(1, pods)
            for watts, pods in zip(hosts, self.placement.pods_on_node, strict=True)
        ]
        by_pods = [0.0] * len(deployments)
        for pod, shake in zip(self.pods, shakes, strict=True):
            if pod.state is PodState.UNSCHEDULED:
                continue
            deployment = deployments[pod.deployment]
            curve = deployment.curve
            # A terminating pod finishes what it has: it draws as it last did until it is gone.
            if pod.state is PodState.READY:
                pod.power_watts = ready_watts[pod.deployment]
                host_watts = deployment.host_watts_per_gpu * curve.gpus_per_replica
                pod.host_watts = host_watts * share[pod.deployment]
            elif pod.state is PodState.STARTING:
                pod.power_watts = curve.idle_watts
            noise = factor[pod.deployment] * (1 + scenario.power_noise_fraction * shake)
            watts = min(pod.power_watts * noise, curve.limit_watts)
            self.gpu_watts[pod.gpus] = watts / pod.gpus.size
            hosts[pod.node] += pod.host_watts
            by_pods[pod.deployment] += pod.host_watts
            pod.gpu_joules += watts * seconds
            pod.host_joules += pod.host_watts * seconds
            pod.idle_joules += idle_share[pod.node] * seconds
        self.node_host_watts = np.array(hosts)
        self.node_host_joules += self.node_host_watts * seconds
        self.gpu_joules += self.gpu_watts * seconds
        self.energy_joules += self.total_watts * seconds
        sensor = self._random.standard_normal(self.gpu_watts.size)
        self.gpu_reading_watts = self.gpu_watts * (1 + scenario.sensor_noise_fraction * sensor)
        owner, reading = self.placement.owner, self.gpu_reading_watts
        gpus = np.bincount(owner + 1, weights=reading, minlength=len(deployments) + 1)
        read: FloatArray = gpus[1:] + np.array(by_pods)
        return read

    def _record(self, served: ServedTick, pod_watts: FloatArray) -> None:
        self.records.append(
            TickRecord(
                time_seconds=self.now_seconds,
                served=served,
                pod_watts=pod_watts,
                ready=self._count(PodState.READY),
                present=self._count(*PodState),
                max_replicas=np.array([float(s.max_replicas) for s in self.scaled_objects]),
                total_watts=self.total_watts,
                measured_watts=float(self.gpu_reading_watts.sum() + self.node_host_watts.sum()),
            )
        )

    def _count(self, *states: PodState) -> FloatArray:
        owners = [pod.deployment for pod in self.pods if pod.state in states]
        count: FloatArray = np.zeros(len(self.scenario.deployments))
        np.add.at(count, np.array(owners, dtype=np.int64), 1.0)
        return count

    def _sync(self, served: ServedTick) -> None:
        recent = self.records[-max(1, round(METRIC_SECONDS / self.tick_seconds)) :]
        tokens = sum((r.served.served_tokens for r in recent), np.zeros(served.served_tokens.size))
        rate = tokens / (len(recent) * self.tick_seconds)
        metric = (rate + self.serving.queue_tokens / METRIC_SECONDS).tolist()
        alive = self._count(PodState.UNSCHEDULED, PodState.STARTING, PodState.READY)
        for index, scaled_object in enumerate(self.scaled_objects):
            if self.scenario.deployments[index].replica_rule == "fixed":
                self.spec_replicas[index] = scaled_object.max_replicas
            else:
                self.spec_replicas[index] = scaled_object.sync(
                    now_seconds=self.now_seconds,
                    current=int(self.spec_replicas[index]),
                    metric=metric[index],
                )
            if self.spec_replicas[index] != alive[index]:
                self._reconcile(index)

    def _reconcile(self, index: int) -> None:
        """Do what the ReplicaSet controller does: make or end pods until the spec is met."""
        alive = [pod for pod in self.pods_of(index) if pod.state is not PodState.TERMINATING]
        for _ in range(int(self.spec_replicas[index]) - len(alive)):
            pod = self._new_pod(index)
            self.pods.append(pod)
            self._schedule(pod)
        # Kubernetes ends pods that are not ready first, then the youngest.
        alive.sort(key=lambda pod: (pod.state is PodState.READY, -pod.created_seconds))
        for pod in alive[: max(0, len(alive) - int(self.spec_replicas[index]))]:
            if pod.state is PodState.UNSCHEDULED:
                self.pods.remove(pod)
                continue
            pod.state = PodState.TERMINATING
            pod.counters_at_end = self.serving.counters[index].copy()
            if pod.counters_at_ready is None:
                pod.counters_at_ready = pod.counters_at_end
            grace = self.scenario.deployments[index].grace_seconds
            pod.changes_at_seconds = self.now_seconds + grace

    def _new_pod(self, index: int) -> Pod:
        suffix = "".join(self._random.choice(_CHARACTERS, size=5))
        first, *rest = (f"{word:04x}" for word in self._random.integers(0, 1 << 16, size=8))
        uid = f"{first}{rest[0]}-{rest[1]}-4{rest[2][1:]}-a{rest[3][1:]}-{''.join(rest[4:])}"
        return Pod(
            name=f"{replicaset_name(self.scenario.deployments[index])}-{suffix}",
            uid=uid,
            deployment=index,
            created_seconds=self.now_seconds,
        )


def replicaset_name(deployment: DeploymentSpec) -> str:
    """Return the name of the deployment's only ReplicaSet, as Kubernetes would shape it."""
    digest = sum((place + 1) * ord(letter) for place, letter in enumerate(deployment.key))
    return f"{deployment.name}-{digest % 0xFFFFFF:06x}f9"


def _scaled_object(deployment: DeploymentSpec) -> ScaledObject:
    return ScaledObject(
        min_replicas=deployment.min_replicas,
        max_replicas=deployment.max_replicas,
        target=deployment.target_utilisation * deployment.curve.saturated_tps,
    )


def _wander(state: FloatArray, noise: FloatArray, share: float) -> FloatArray:
    """Advance a unit-variance first-order autoregressive process by ``share`` of its time."""
    keep = np.exp(-share)
    moved: FloatArray = keep * state + np.sqrt(1 - keep**2) * noise
    return moved
