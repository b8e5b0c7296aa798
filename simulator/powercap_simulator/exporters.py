"""What the exporters of a real cluster would expose of the emulated one: names, labels, types.

After dcgm-exporter 4.5, Kepler 0.11 and 0.9, vLLM 0.33 and kube-state-metrics 2.20. Each function
reads the cluster and returns families; nothing here knows HTTP.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import numpy as np

from powercap_simulator.cluster import SimulatedCluster, replicaset_name
from powercap_simulator.curves import GPU_TYPES
from powercap_simulator.families import Family, LabelSet
from powercap_simulator.pods import Pod, PodState
from powercap_simulator.serving import COUNTERS, ITL_BUCKETS, ITL_SLICE, TTFT_BUCKETS, TTFT_SLICE

CONTAINER = "vllm"
# Zones overlap: package holds core. Who sums them over-counts, as on a real host.
_CORE_SHARE = 0.7
_LENGTH_BOUNDS = (
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0,
    float("inf"),
)  # fmt: skip


class KeplerVersion(enum.StrEnum):
    """The two incompatible products of that name."""

    REWRITE = "rewrite"
    """0.10 and later, 0.11 here; without its experimental GPU series."""
    LEGACY = "legacy"
    """0.9 and earlier."""


def dcgm_families(cluster: SimulatedCluster, *, node: int) -> list[Family]:
    """Return what dcgm-exporter exposes on one node, pods named by its own labels."""
    power = Family(name="DCGM_FI_DEV_POWER_USAGE", kind="gauge", description="Power draw (in W).")
    energy = Family(
        name="DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        kind="counter",
        description="Total energy consumption since boot (in mJ).",
    )
    busy = Family(name="DCGM_FI_DEV_GPU_UTIL", kind="gauge", description="GPU utilization (in %).")
    spec = cluster.scenario.nodes[node]
    holder = {int(gpu): pod for pod in cluster.pods for gpu in pod.gpus}
    first = sum(other.gpu_count for other in cluster.scenario.nodes[:node])
    for place in range(spec.gpu_count):
        gpu = first + place
        labels = {
            "gpu": str(place),
            "UUID": gpu_uuid(gpu),
            "pci_bus_id": f"00000000:{0x10 + place:02X}:00.0",
            "device": f"nvidia{place}",
            "modelName": GPU_TYPES[spec.gpu].name,
            "Hostname": spec.name,
            "DCGM_FI_DRIVER_VERSION": "590.48.01",
        }
        pod = holder.get(gpu)
        if pod is not None:
            labels["container"] = CONTAINER
            labels["namespace"] = cluster.scenario.deployments[pod.deployment].namespace
            labels["pod"] = pod.name
        power.add(round(float(cluster.gpu_reading_watts[gpu]), 3), **labels)
        energy.add(float(round(cluster.gpu_joules[gpu] * 1000)), **labels)
        is_busy = pod is not None and pod.state in (PodState.READY, PodState.TERMINATING)
        busy.add(100.0 if is_busy else 0.0, **labels)
    return [power, energy, busy]


def kepler_families(cluster: SimulatedCluster, *, node: int) -> list[Family]:
    """Return what Kepler 0.11 exposes on one node: active watts of pods, idle of the node."""
    spec = cluster.scenario.nodes[node]
    name = {"node_name": spec.name}
    build = Family(
        name="kepler_build_info",
        kind="gauge",
        description="A metric with a constant '1' value labeled with version information",
    )
    build.add(1.0, arch="amd64", branch="", revision="", version="v0.11.4", goversion="", **name)
    total = float(cluster.node_host_watts[node])
    idle = spec.host_idle_watts
    joules = float(cluster.node_host_joules[node])
    idle_joules = idle * (cluster.now_seconds - cluster.scenario.start_seconds)
    families = [build]
    for part, watts, energy in (
        ("", total, joules),
        ("active_", total - idle, joules - idle_joules),
        ("idle_", idle, idle_joules),
    ):
        gauge = _cpu_family(f"kepler_node_cpu_{part}watts", "gauge")
        counter = _cpu_family(f"kepler_node_cpu_{part}joules_total", "counter")
        for zone, share in (("package", 1.0), ("core", _CORE_SHARE)):
            labels = {"zone": zone, "path": f"/sys/class/powercap/intel-rapl:0/{zone}"} | name
            gauge.add(watts * share, **labels)
            counter.add(max(0.0, energy * share), **labels)
        families += [gauge, counter]
    ratio = _cpu_family("kepler_node_cpu_usage_ratio", "gauge")
    ratio.add((total - idle) / total, **name)
    gauge = _cpu_family("kepler_pod_cpu_watts", "gauge")
    counter = _cpu_family("kepler_pod_cpu_joules_total", "counter")
    for pod in _pods_on(cluster, node):
        for zone, share in (("package", 1.0), ("core", _CORE_SHARE)):
            labels = {
                "pod_id": pod.uid,
                "pod_name": pod.name,
                "pod_namespace": cluster.scenario.deployments[pod.deployment].namespace,
                "state": "running",
                "zone": zone,
            } | name
            gauge.add(pod.host_watts * share, **labels)
            counter.add(pod.host_joules * share, **labels)
    return [*families, ratio, gauge, counter]


def kepler_legacy_families(cluster: SimulatedCluster, *, node: int) -> list[Family]:
    """Return what Kepler 0.9 exposes on one node: energy counters, each as dynamic and idle."""
    spec = cluster.scenario.nodes[node]
    parked = GPU_TYPES[spec.gpu].parked_watts
    pods = _pods_on(cluster, node)
    seconds = cluster.now_seconds - cluster.scenario.start_seconds
    families = []
    for part in ("package", "core", "dram", "other", "gpu", ""):
        infix = f"{part}_" if part else ""
        family = _cpu_family(f"kepler_container_{infix}joules_total", "counter")
        for pod in pods:
            held = parked * pod.gpus.size * (cluster.now_seconds - pod.scheduled_seconds)
            dynamic = _legacy_part(part, pod.host_joules, max(0.0, pod.gpu_joules - held))
            idle = _legacy_part(part, pod.idle_joules, held)
            for mode, value in (("dynamic", dynamic), ("idle", idle)):
                family.add(
                    value,
                    container_id=pod.uid.replace("-", ""),
                    container_name=CONTAINER,
                    container_namespace=cluster.scenario.deployments[pod.deployment].namespace,
                    mode=mode,
                    pod_name=pod.name,
                    source="",
                )
        families.append(family)
    host_idle = spec.host_idle_watts * seconds
    host_dynamic = max(0.0, float(cluster.node_host_joules[node]) - host_idle)
    on_node = cluster.placement.node_of_gpu == node
    gpu_idle = parked * spec.gpu_count * seconds
    gpu_dynamic = max(0.0, float(cluster.gpu_joules[on_node].sum()) - gpu_idle)
    for part in ("package", "core", "dram", "other", "gpu"):
        family = _cpu_family(f"kepler_node_{part}_joules_total", "counter")
        for mode, host, gpu in (
            ("dynamic", host_dynamic, gpu_dynamic),
            ("idle", host_idle, gpu_idle),
        ):
            value = _legacy_part(part, host, gpu)
            labels = {"instance": spec.name, "mode": mode, "package": "0", "source": "intel_rapl"}
            family.add(value, **labels)
        families.append(family)
    return families


def vllm_families(cluster: SimulatedCluster, *, pod: Pod) -> list[Family]:
    """Return what the vLLM server in one pod exposes; it does not know its pod's name."""
    deployment = cluster.scenario.deployments[pod.deployment]
    labels: LabelSet = (("engine", "0"), ("model_name", deployment.curve.model_name))
    own = dict(labels)
    # Counts are whole on a real server; what is below one is not yet counted.
    counted = cluster.pod_counters(pod)
    buckets = np.floor(counted)
    prompt, generated, finished, aborted, ttft_sum, itl_sum = counted[: len(COUNTERS)].tolist()
    running = waiting = 0.0
    if pod.state is PodState.READY and cluster.records:
        last, place = cluster.last, pod.deployment
        ready = max(1.0, float(last.ready[place]))
        running = float(round(last.served.running_requests[place] / ready))
        waiting = float(round(last.served.waiting_requests[place] / ready))
    itl = deployment.curve.itl_mean_seconds[-1]
    usage = min(1.0, running / (deployment.curve.saturated_tps * float(itl)))
    families = []
    for name, kind, description, value in (
        ("num_requests_running", "gauge", "Number of requests in execution batches.", running),
        ("num_requests_waiting", "gauge", "Number of requests waiting.", waiting),
        ("kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", usage),
        ("num_preemptions_total", "counter", "Cumulative number of preemptions.", 0.0),
        ("prompt_tokens_total", "counter", "Number of prefill tokens processed.", prompt // 1),
        ("generation_tokens_total", "counter", "Number of generation tokens.", generated // 1),
    ):
        family = Family(name=f"vllm:{name}", kind=kind, description=description)
        family.add(value, **own)
        families.append(family)
    success = Family(
        name="vllm:request_success_total",
        kind="counter",
        description="Count of successfully processed requests.",
    )
    for reason, value in (("stop", finished // 1), ("length", 0.0), ("abort", aborted // 1)):
        success.add(value, **own, finished_reason=reason)
    ttft = Family(
        name="vllm:time_to_first_token_seconds",
        kind="histogram",
        description="Histogram of time to first token in seconds.",
    )
    ttft.add_histogram(
        bounds=TTFT_BUCKETS, cumulative=buckets[TTFT_SLICE].tolist(), total=ttft_sum, labels=labels
    )
    itls = Family(
        name="vllm:inter_token_latency_seconds",
        kind="histogram",
        description="Histogram of inter-token latency in seconds.",
    )
    itls.add_histogram(
        bounds=ITL_BUCKETS, cumulative=buckets[ITL_SLICE].tolist(), total=itl_sum, labels=labels
    )
    families += [success, ttft, itls]
    for name, mean, total in (
        ("prompt", deployment.workload.prompt_tokens, prompt),
        ("generation", deployment.workload.output_tokens, generated),
    ):
        family = Family(
            name=f"vllm:request_{name}_tokens",
            kind="histogram",
            description=f"Number of {name} tokens per request.",
        )
        cumulative = [finished // 1 if bound >= mean else 0.0 for bound in _LENGTH_BOUNDS]
        family.add_histogram(
            bounds=_LENGTH_BOUNDS, cumulative=cumulative, total=total, labels=labels
        )
        families.append(family)
    return families


def gpu_uuid(gpu: int) -> str:
    """Return the UUID of one of the cluster's GPUs."""
    return f"GPU-{0x5EED0000 + gpu:08x}-0000-4000-a000-{gpu:012x}"


def replicaset(cluster: SimulatedCluster, index: int) -> str:
    """Return the name of a deployment's ReplicaSet."""
    return replicaset_name(cluster.scenario.deployments[index])


def _pods_on(cluster: SimulatedCluster, node: int) -> list[Pod]:
    return [pod for pod in cluster.pods if pod.node == node]


def _cpu_family(name: str, kind: str) -> Family:
    what = name.removesuffix("_total").replace("_", " ")
    return Family(name=name, kind=kind, description=what)


def _legacy_part(part: str, host: float, gpu: float) -> float:
    """Split joules as 0.9 does; the nameless part is the container's total."""
    shares: dict[str, Iterable[float]] = {
        "package": (host, 0.0),
        "core": (host * _CORE_SHARE, 0.0),
        "dram": (0.0, 0.0),
        "other": (0.0, 0.0),
        "gpu": (0.0, gpu),
        "": (host, gpu),
    }
    return sum(shares[part])
