from collections import defaultdict
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.exporters import KeplerVersion
from powercap_simulator.families import render_text
from powercap_simulator.raw_history import RawHistory
from powercap_simulator.scenario import mixed_scenario
from powercap_simulator.scrape import ScrapeOptions, Target, scraped_labels, targets

# Names, types and labels as the exporters' own documentation states them.
DCGM = {
    "gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname", "DCGM_FI_DRIVER_VERSION",
}  # fmt: skip
POD = DCGM | {"container", "namespace", "pod"}
MODEL = {"engine", "model_name"}
NODE_ZONE = {"zone", "path", "node_name"}
POD_ZONE = {"pod_id", "pod_name", "pod_namespace", "state", "zone", "node_name"}
CONTAINER = {
    "container_id", "container_name", "container_namespace", "mode", "pod_name", "source",
}  # fmt: skip
LEGACY_NODE = {"instance", "mode", "package", "source"}
KUBE_POD = {"namespace", "pod", "uid"}
DEPLOYMENT = {"namespace", "deployment"}
HPA = {"namespace", "horizontalpodautoscaler"}
RESOURCES = KUBE_POD | {"container", "node", "resource", "unit"}
EXPECTED = {
    "dcgm-exporter": {
        "DCGM_FI_DEV_POWER_USAGE": ("gauge", DCGM, POD),
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("counter", DCGM, POD),
        "DCGM_FI_DEV_GPU_UTIL": ("gauge", DCGM, POD),
    },
    "kepler": {
        "kepler_build_info": (
            "gauge",
            {"arch", "branch", "revision", "version", "goversion", "node_name"},
        ),
        "kepler_node_cpu_watts": ("gauge", NODE_ZONE),
        "kepler_node_cpu_joules_total": ("counter", NODE_ZONE),
        "kepler_node_cpu_active_watts": ("gauge", NODE_ZONE),
        "kepler_node_cpu_active_joules_total": ("counter", NODE_ZONE),
        "kepler_node_cpu_idle_watts": ("gauge", NODE_ZONE),
        "kepler_node_cpu_idle_joules_total": ("counter", NODE_ZONE),
        "kepler_node_cpu_usage_ratio": ("gauge", {"node_name"}),
        "kepler_pod_cpu_watts": ("gauge", POD_ZONE),
        "kepler_pod_cpu_joules_total": ("counter", POD_ZONE),
    },
    "kepler-legacy": {
        **{
            f"kepler_container_{part}joules_total": ("counter", CONTAINER)
            for part in ("package_", "core_", "dram_", "other_", "gpu_", "")
        },
        **{
            f"kepler_node_{part}_joules_total": ("counter", LEGACY_NODE)
            for part in ("package", "core", "dram", "other", "gpu")
        },
    },
    "vllm": {
        "vllm:num_requests_running": ("gauge", MODEL),
        "vllm:num_requests_waiting": ("gauge", MODEL),
        "vllm:kv_cache_usage_perc": ("gauge", MODEL),
        "vllm:num_preemptions_total": ("counter", MODEL),
        "vllm:prompt_tokens_total": ("counter", MODEL),
        "vllm:generation_tokens_total": ("counter", MODEL),
        "vllm:request_success_total": ("counter", MODEL | {"finished_reason"}),
        "vllm:time_to_first_token_seconds": ("histogram", MODEL, MODEL | {"le"}),
        "vllm:inter_token_latency_seconds": ("histogram", MODEL, MODEL | {"le"}),
        "vllm:request_prompt_tokens": ("histogram", MODEL, MODEL | {"le"}),
        "vllm:request_generation_tokens": ("histogram", MODEL, MODEL | {"le"}),
    },
    "kube-state-metrics": {
        "kube_node_info": (
            "gauge",
            {"node", "kernel_version", "os_image", "container_runtime_version", "kubelet_version"}
            | {"kubeproxy_version", "pod_cidr", "provider_id", "system_uuid", "internal_ip"},
        ),
        "kube_node_status_capacity": ("gauge", {"node", "resource", "unit"}),
        "kube_node_status_allocatable": ("gauge", {"node", "resource", "unit"}),
        "kube_deployment_created": ("gauge", DEPLOYMENT),
        "kube_deployment_spec_replicas": ("gauge", DEPLOYMENT),
        "kube_deployment_status_replicas": ("gauge", DEPLOYMENT),
        "kube_deployment_status_replicas_ready": ("gauge", DEPLOYMENT),
        "kube_deployment_status_replicas_available": ("gauge", DEPLOYMENT),
        "kube_deployment_status_replicas_updated": ("gauge", DEPLOYMENT),
        "kube_deployment_status_replicas_unavailable": ("gauge", DEPLOYMENT),
        "kube_deployment_status_terminating_replicas": ("gauge", DEPLOYMENT),
        "kube_replicaset_owner": (
            "gauge",
            {"namespace", "replicaset", "owner_kind", "owner_name", "owner_is_controller"},
        ),
        "kube_horizontalpodautoscaler_info": (
            "gauge",
            HPA | {"scaletargetref_api_version", "scaletargetref_kind", "scaletargetref_name"},
        ),
        "kube_horizontalpodautoscaler_spec_max_replicas": ("gauge", HPA),
        "kube_horizontalpodautoscaler_spec_min_replicas": ("gauge", HPA),
        "kube_horizontalpodautoscaler_status_current_replicas": ("gauge", HPA),
        "kube_horizontalpodautoscaler_status_desired_replicas": ("gauge", HPA),
        "kube_pod_info": (
            "gauge",
            KUBE_POD
            | {"host_ip", "pod_ip", "node", "created_by_kind", "created_by_name"}
            | {"priority_class", "host_network"},
        ),
        "kube_pod_owner": (
            "gauge",
            KUBE_POD | {"owner_kind", "owner_name", "owner_is_controller"},
        ),
        "kube_pod_created": ("gauge", KUBE_POD),
        "kube_pod_start_time": ("gauge", KUBE_POD),
        "kube_pod_status_phase": ("gauge", KUBE_POD | {"phase"}),
        "kube_pod_status_ready": ("gauge", KUBE_POD | {"condition"}),
        "kube_pod_container_resource_requests": ("gauge", RESOURCES),
        "kube_pod_container_resource_limits": ("gauge", RESOURCES),
    },
}


@pytest.fixture(scope="module")
def cluster() -> SimulatedCluster:
    cluster = SimulatedCluster(mixed_scenario(), seed=2)
    cluster.step(1800.0)
    return cluster


def read(cluster: SimulatedCluster, job: str, kepler: KeplerVersion) -> list[Metric]:
    options = ScrapeOptions(kepler=kepler)
    found = [t for t in targets(cluster, options) if t.job == job and t.is_up]
    return [metric for target in found for metric in parse_text(render_text(target.read()))]


@pytest.mark.parametrize("expected", EXPECTED)
def test_names_types_and_labels_are_those_of_the_real_exporter(
    cluster: SimulatedCluster, expected: str
) -> None:
    is_legacy = expected == "kepler-legacy"
    version = KeplerVersion.LEGACY if is_legacy else KeplerVersion.REWRITE

    job = "kepler" if is_legacy else expected
    found = [t for t in targets(cluster, ScrapeOptions(kepler=version)) if t.job == job]
    families = [family for target in found if target.is_up for family in target.read()]

    seen: dict[str, set[frozenset[str]]] = defaultdict(set)
    for family in families:
        seen[family.name] |= {frozenset(dict(labels)) for _, labels, _ in family.samples}
    kinds = {family.name: family.kind for family in families if family.samples}
    assert kinds == {name: kind for name, (kind, *_) in EXPECTED[expected].items()}
    for name, (_, *label_sets) in EXPECTED[expected].items():
        assert seen[name] == {frozenset(labels) for labels in label_sets}, name


def test_no_series_is_exposed_twice_and_every_value_is_finite(cluster: SimulatedCluster) -> None:
    for version in KeplerVersion:
        for target in targets(cluster, ScrapeOptions(kepler=version)):
            metrics = parse_text(render_text(target.read()))
            samples = [sample for metric in metrics for sample in metric.samples]
            keys = [(s.name, tuple(sorted(s.labels.items()))) for s in samples]
            assert len(keys) == len(set(keys))
            assert all(0 <= s.value < 1e18 for s in samples)


def test_gpu_and_host_watts_add_up_to_what_is_measured(cluster: SimulatedCluster) -> None:
    dcgm = read(cluster, "dcgm-exporter", KeplerVersion.REWRITE)
    kepler = read(cluster, "kepler", KeplerVersion.REWRITE)

    gpus = sum(s.value for m in dcgm for s in m.samples if s.name == "DCGM_FI_DEV_POWER_USAGE")
    package = [s for m in kepler for s in m.samples if s.labels.get("zone") == "package"]
    by_name = defaultdict(float)
    for sample in package:
        by_name[sample.name] += sample.value

    hosts = by_name["kepler_node_cpu_watts"]
    assert gpus + hosts == pytest.approx(cluster.last.measured_watts, abs=0.1)
    assert by_name["kepler_node_cpu_active_watts"] + by_name[
        "kepler_node_cpu_idle_watts"
    ] == pytest.approx(hosts)
    assert by_name["kepler_pod_cpu_watts"] == pytest.approx(by_name["kepler_node_cpu_active_watts"])


def test_legacy_containers_add_up_to_their_parts(cluster: SimulatedCluster) -> None:
    metrics = read(cluster, "kepler", KeplerVersion.LEGACY)

    totals: dict[tuple[str, str], float] = defaultdict(float)
    for metric in metrics:
        for sample in metric.samples:
            part = sample.name.removeprefix("kepler_container_").removesuffix("joules_total")
            key = (sample.labels.get("pod_name", ""), sample.labels["mode"])
            if part == "":
                totals[key] -= sample.value
            elif part in ("package_", "dram_", "gpu_", "other_"):
                totals[key] += sample.value

    assert totals
    assert all(total == pytest.approx(0.0, abs=1e-3) for total in totals.values())


def test_a_label_of_the_target_wins_unless_the_job_honors_labels() -> None:
    target = Target(
        job="dcgm-exporter",
        path="/",
        labels={"instance": "i", "namespace": "gpu-operator", "pod": "dcgm-1"},
        read=list,
    )
    own = (("namespace", "chat"), ("pod", "assistant-1"), ("gpu", "0"), ("empty", ""))

    honored = dict(scraped_labels(own, target, is_honored=True))
    collided = dict(scraped_labels(own, target, is_honored=False))

    assert honored == {
        "gpu": "0",
        "instance": "i",
        "job": "dcgm-exporter",
        "namespace": "chat",
        "pod": "assistant-1",
    }
    assert collided["exported_pod"] == "assistant-1"
    assert collided["exported_namespace"] == "chat"
    assert (collided["pod"], collided["namespace"]) == ("dcgm-1", "gpu-operator")


def test_counters_never_fall_from_scrape_to_scrape() -> None:
    for version in KeplerVersion:
        cluster = SimulatedCluster(mixed_scenario().starting_at(1_767_603_600.0), seed=9)
        options = ScrapeOptions(kepler=version)
        before: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
        for _ in range(12):
            cluster.step(300.0)
            for target in targets(cluster, options):
                for family in target.read():
                    if family.kind == "gauge":
                        continue
                    for name, labels, value in family.samples:
                        key = (target.path, name, labels)
                        assert value >= before.get(key, 0.0), key
                        before[key] = value


def test_a_paused_scaled_object_has_no_hpa(cluster: SimulatedCluster) -> None:
    paused = SimulatedCluster(mixed_scenario(), seed=2)
    paused.set_paused("chat/assistant-8b", is_paused=True)
    paused.step(15.0)

    metrics = read(paused, "kube-state-metrics", KeplerVersion.REWRITE)

    names = {
        sample.labels["horizontalpodautoscaler"]
        for metric in metrics
        for sample in metric.samples
        if "horizontalpodautoscaler" in sample.labels
    }
    assert "keda-hpa-assistant-8b" not in names
    assert "keda-hpa-assistant-70b" in names


def test_openmetrics_text_passes_the_strict_parser(tmp_path: Path) -> None:
    cluster = SimulatedCluster(mixed_scenario(), seed=2)
    cluster.step(600.0)
    for version in KeplerVersion:
        history = RawHistory(ScrapeOptions(kepler=version))
        history.scrape(cluster)

        history.write_openmetrics(tmp_path / "history.om")

        metrics = list(parse_openmetrics((tmp_path / "history.om").read_text()))
        samples = [sample for metric in metrics for sample in metric.samples]
        assert len(samples) == history.sample_count
        assert {float(sample.timestamp) for sample in samples} == {cluster.now_seconds}
        assert all(sample.labels["job"] for sample in samples)
