"""The Prometheus source against a real Prometheus that holds small series of known content."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from control_plane import free_port
from prometheus import Points, Prometheus

from powercap_planner.config import PrometheusConfig, PrometheusLabels
from powercap_planner.errors import DataMissingError, SourceError
from powercap_planner.sources.prometheus import PrometheusMetricsSource

STEP = 300
SCRAPE = 30
HISTORY = 3600
H100 = "NVIDIA H100 80GB HBM3"
A100 = "NVIDIA A100-SXM4-40GB"
SENTINEL = 9223372036854775794.0

Labels = dict[str, str]
Series = list[tuple[Labels, Points]]
_places = itertools.count(1)


@pytest.fixture(scope="module")
def server(prometheus_binaries: Path) -> Iterator[Prometheus]:
    with Prometheus(prometheus_binaries) as running:
        yield running


@pytest.fixture
def end() -> float:
    """Return a moment of its own for each test: four hours apart, one server serves all."""
    return math.floor(time.time() / 60) * 60 - 4 * 3600.0 * next(_places)


def source(server: Prometheus, **changes: object) -> PrometheusMetricsSource:
    # Shorter than a day: the other tests' series are four hours away.
    settings = {"remember_seconds": 9000.0, **changes}
    return PrometheusMetricsSource(PrometheusConfig(url=server.url, **settings))  # type: ignore[arg-type]


def observe(server: Prometheus, end: float, **changes: object):
    one = source(server, **changes)
    try:
        return one.observe(now_seconds=end, history_seconds=HISTORY, step_seconds=STEP)
    finally:
        one.close()


def measure(server: Prometheus, end: float, **changes: object):
    one = source(server, **changes)
    try:
        return one.measure(now_seconds=end, window_seconds=60)
    finally:
        one.close()


def moments(end: float) -> np.ndarray:
    return np.arange(end - HISTORY - 4 * STEP, end + 1, SCRAPE)


def constant(value: float, end: float) -> Points:
    return [(at, value) for at in moments(end)]


def rising(per_second: float, end: float) -> Points:
    start = moments(end)[0]
    return [(at, 1000.0 + per_second * (at - start)) for at in moments(end)]


def gpu(uuid: str, model: str, pod: str, watts: float, end: float, style: str = "plain"):
    labels = {"__name__": "DCGM_FI_DEV_POWER_USAGE", "UUID": uuid, "modelName": model}
    labels |= {"Hostname": "node-1", "gpu": uuid[-1]}
    if style == "exported":
        labels |= {"namespace": "monitoring", "pod": "dcgm-exporter-x"}
        if pod:
            labels |= {"exported_namespace": "llm", "exported_pod": pod}
    elif pod:
        labels |= {"namespace": "llm", "pod": pod}
    return labels, constant(watts, end)


def workload(name: str, *, pods: int, gpus: int, end: float, copies: int = 1) -> Series:
    """Return what kube-state-metrics, scraped ``copies`` times over, says of a deployment."""
    series: Series = []
    for copy in range(copies):
        common = {"namespace": "llm", "instance": f"ksm-{copy}"}

        def add(metric: str, value: float, common: Labels = common, **labels: str) -> None:
            series.append(({"__name__": metric, **common, **labels}, constant(value, end)))

        owner = {"owner_kind": "Deployment", "owner_name": name}
        add("kube_replicaset_owner", 1, replicaset=f"{name}-rs", **owner)
        add("kube_deployment_status_replicas", pods, deployment=name)
        add("kube_deployment_status_replicas_ready", pods, deployment=name)
        hpa = {"horizontalpodautoscaler": f"keda-hpa-{name}"}
        add(
            "kube_horizontalpodautoscaler_info",
            1,
            **hpa,
            scaletargetref_kind="Deployment",
            scaletargetref_name=name,
        )
        add("kube_horizontalpodautoscaler_spec_min_replicas", 1, **hpa)
        add("kube_horizontalpodautoscaler_spec_max_replicas", 6, **hpa)
        for pod in range(pods):
            one = {"pod": f"{name}-{pod}"}
            add("kube_pod_owner", 1, owner_kind="ReplicaSet", owner_name=f"{name}-rs", **one)
            add("kube_pod_status_phase", 1, phase="Running", **one)
            add(
                "kube_pod_container_resource_requests",
                gpus,
                container="server",
                resource="nvidia_com_gpu",
                **one,
            )
    return series


def serving(pod: str, end: float, *, tokens: float = 100.0, queue_growth: float = 0.0) -> Series:
    """Return vLLM's series: ``tokens``/s by requests of 50 tokens, and a queue that grows."""
    common = {"namespace": "llm", "pod": pod, "model_name": "m", "engine": "0"}
    start = moments(end)[0]
    waiting = [(at, 3 + queue_growth * (at - start)) for at in moments(end)]
    rps = tokens / 50
    series: Series = [
        ({"__name__": "vllm:generation_tokens_total", **common}, rising(tokens, end)),
        (
            {"__name__": "vllm:request_success_total", "finished_reason": "stop", **common},
            rising(rps, end),
        ),
        ({"__name__": "vllm:request_generation_tokens_sum", **common}, rising(tokens, end)),
        ({"__name__": "vllm:request_generation_tokens_count", **common}, rising(rps, end)),
        ({"__name__": "vllm:num_requests_running", **common}, constant(8, end)),
        ({"__name__": "vllm:num_requests_waiting", **common}, waiting),
    ]
    for le, share in (("0.5", 0.5), ("1.0", 1.0), ("+Inf", 1.0)):
        bucket = {"__name__": "vllm:time_to_first_token_seconds_bucket", "le": le, **common}
        series.append((bucket, rising(rps * share, end)))
        bucket = {"__name__": "vllm:inter_token_latency_seconds_bucket", "le": le, **common}
        series.append((bucket, rising(tokens * share, end)))
    return series


def kepler(pods: list[str], end: float) -> Series:
    """Return Kepler >= 0.10: 50 W for each pod, 200 W idle, overlapping zones beside them."""
    series: Series = []
    for zone, factor in (("package", 1.0), ("psys", 1.5), ("core", 0.7)):
        for pod in pods:
            labels = {"pod_namespace": "llm", "pod_name": pod, "zone": zone, "pod_id": pod}
            for state in ("running", "terminated"):
                series.append(
                    (
                        {"__name__": "kepler_pod_cpu_watts", "state": state, **labels},
                        constant(50 * factor, end),
                    )
                )
        node = {"node_name": "node-1", "zone": zone, "path": "/rapl"}
        active = 50.0 * len(pods)
        for metric, watts in (("cpu_idle", 200.0), ("cpu_active", active), ("cpu", 200 + active)):
            labels = {"__name__": f"kepler_node_{metric}_watts", **node}
            series.append((labels, constant(watts * factor, end)))
    return series


def old_kepler(pods: list[str], end: float) -> Series:
    """Return Kepler <= 0.9 with the same watts as joules counters, idle mode beside them."""
    series: Series = []
    for pod in pods:
        labels = {"container_namespace": "llm", "pod_name": pod, "container_name": "server"}
        labels |= {"namespace": "kepler", "pod": "kepler-x", "container_id": pod}
        for mode, watts in (("dynamic", 50.0), ("idle", 30.0)):
            name = {"__name__": "kepler_container_package_joules_total", "mode": mode}
            series.append(({**name, **labels}, rising(watts, end)))
    for mode, watts in (("dynamic", 50.0 * len(pods)), ("idle", 200.0)):
        node = {"instance": "node-1:9102", "package": "0", "mode": mode}
        name = {"__name__": "kepler_node_package_joules_total"}
        series.append(({**name, **node}, rising(watts, end)))
    return series


def cluster(end: float, *, style: str = "plain", copies: int = 1) -> Series:
    """Return two deployments: alpha, two pods of one H100; beta, one pod of two A100."""
    pods = ["alpha-0", "alpha-1", "beta-0"]
    return [
        *workload("alpha", pods=2, gpus=1, end=end, copies=copies),
        *workload("beta", pods=1, gpus=2, end=end, copies=copies),
        gpu("GPU-1", H100, "alpha-0", 400, end, style),
        gpu("GPU-2", H100, "alpha-1", 500, end, style),
        gpu("GPU-3", A100, "beta-0", 250, end, style),
        gpu("GPU-4", A100, "beta-0", 260, end, style),
        gpu("GPU-5", H100, "", 70, end, style),
        *kepler(pods, end),
        *(one for pod in pods for one in serving(pod, end)),
    ]


def nodes(end: float, **gpus: int) -> Series:
    """Return what kube-state-metrics says of nodes: they exist, and how many GPUs they offer."""
    series: Series = []
    for name, count in gpus.items():
        node = {"node": name.replace("_", "-"), "instance": "ksm-0"}
        series.append(({"__name__": "kube_node_info", **node}, constant(1, end)))
        resource = {"resource": "nvidia_com_gpu", "unit": "integer"}
        for metric in ("capacity", "allocatable"):
            labels = {"__name__": f"kube_node_status_{metric}", **node, **resource}
            series.append((labels, constant(count, end)))
    return series


def second_host(end: float) -> Series:
    """Return a host with one parked GPU, which Kepler and kube-state-metrics know too."""
    labels, points = gpu("GPU-9", H100, "", 90, end)
    host = {"node_name": "node-2", "zone": "package", "path": "/rapl"}
    return [
        ({**labels, "Hostname": "node-2"}, points),
        ({"__name__": "kepler_node_cpu_watts", **host}, constant(150, end)),
        ({"__name__": "kepler_node_cpu_idle_watts", **host}, constant(150, end)),
        *nodes(end, node_1=5, node_2=1),
    ]


def until(series: Series, last: float, which: Callable[[Labels], bool]) -> Series:
    return [
        (labels, [one for one in points if one[0] <= last] if which(labels) else points)
        for labels, points in series
    ]


def of_second_host(labels: Labels) -> bool:
    return "node-2" in (labels.get("Hostname"), labels.get("node_name"), labels.get("node"))


def without(series: Series, drop: Callable[[Labels], bool]) -> Series:
    return [one for one in series if not drop(one[0])]


def by_name(observation):
    return {one.name: one for one in observation.deployments}


def reasons(observation) -> set[str]:
    return {one.reason for one in observation.findings}


@pytest.mark.parametrize("style", ["plain", "exported"])
def test_power_of_a_deployment_is_its_gpus_and_its_share_of_the_host(server, end, style):
    server.write(cluster(end, style=style))

    observation = observe(server, end)

    alpha, beta = by_name(observation)["alpha"], by_name(observation)["beta"]
    np.testing.assert_allclose(alpha.power_watts, 400 + 500 + 2 * 50)
    np.testing.assert_allclose(beta.power_watts, 250 + 260 + 50)
    assert (alpha.gpu_type, beta.gpu_type) == (H100, A100)
    assert (alpha.gpus_per_replica, beta.gpus_per_replica) == (1, 2)
    assert (alpha.min_replicas, alpha.max_replicas) == (1, 6)
    assert observation.gpu_count == {H100: 3, A100: 2}
    assert observation.parked_gpu_watts == {H100: 70.0}
    assert observation.findings == ()


def test_parts_add_up_to_the_total(server, end):
    server.write(cluster(end))

    observation = observe(server, end)

    attributed = sum(one.power_watts for one in observation.deployments)
    np.testing.assert_allclose(
        observation.total_watts, attributed + 70 + observation.host_idle_watts
    )
    assert observation.host_idle_watts == pytest.approx(200)
    assert observation.measured is not None
    assert observation.measured.power_watts == pytest.approx(400 + 500 + 250 + 260 + 70 + 350)
    assert observation.measured.source == "dcgm+kepler"
    assert observation.measured.measured_at_seconds == end


def test_old_kepler_gives_the_same_watts_as_the_new_one(server, end):
    pods = ["alpha-0", "alpha-1", "beta-0"]
    new = without(cluster(end), lambda one: one["__name__"].startswith("kepler"))
    server.write([*new, *old_kepler(pods, end)])

    observation = observe(server, end)

    np.testing.assert_allclose(by_name(observation)["alpha"].power_watts, 1000, rtol=1e-6)
    assert observation.host_idle_watts == pytest.approx(200)
    np.testing.assert_allclose(observation.total_watts, 400 + 500 + 250 + 260 + 70 + 350)
    assert observation.measured is not None
    assert observation.measured.power_watts == pytest.approx(1830)
    assert observation.findings == ()


def test_grid_ends_at_the_one_evaluation_time(server, end):
    server.write(cluster(end))

    observation = observe(server, end + 0.7)

    assert observation.time_seconds[-1] == end
    assert observation.time_seconds.size == HISTORY // STEP
    assert set(np.diff(observation.time_seconds)) == {STEP}


def test_load_counts_what_queues_up_beside_what_is_served(server, end):
    series = without(cluster(end), lambda one: one.get("pod") == "beta-0" and "engine" in one)
    server.write([*series, *serving("beta-0", end, queue_growth=0.5)])

    observation = observe(server, end)

    alpha, beta = by_name(observation)["alpha"], by_name(observation)["beta"]
    np.testing.assert_allclose(alpha.served_tps, 200, rtol=1e-6)
    np.testing.assert_allclose(alpha.arrived_tps, 200, rtol=1e-6)
    np.testing.assert_allclose(beta.served_tps, 100, rtol=1e-6)
    # 2 requests/s finish and 0.5/s more queue up, of 50 tokens each.
    np.testing.assert_allclose(beta.arrived_tps, 125, rtol=1e-6)
    np.testing.assert_allclose(beta.running_requests, 8)
    np.testing.assert_allclose(alpha.ttft_p95_seconds, 0.95, rtol=1e-3)
    np.testing.assert_allclose(alpha.itl_p95_seconds, 0.95, rtol=1e-3)


def test_older_name_of_inter_token_latency_is_read(server, end):
    old, new = "vllm:time_per_output_token_seconds_bucket", "vllm:inter_token_latency"
    series = [
        ({**labels, "__name__": old} if labels["__name__"].startswith(new) else labels, points)
        for labels, points in cluster(end)
    ]
    server.write(series)

    observation = observe(server, end)

    np.testing.assert_allclose(by_name(observation)["alpha"].itl_p95_seconds, 0.95, rtol=1e-3)


def test_maximum_is_the_highest_there_was_and_not_what_was_written_since(server, end):
    def lowered(labels: Labels, points: Points) -> Points:
        if not labels["__name__"].endswith("spec_max_replicas"):
            return points
        return [(at, 6.0 if at < end - 600 else 2.0) for at, _ in points]

    server.write([(labels, lowered(labels, points)) for labels, points in cluster(end)])

    observation = observe(server, end)

    assert by_name(observation)["alpha"].max_replicas == 6


def test_copies_of_kube_state_metrics_change_nothing(server, end):
    server.write(cluster(end, copies=2))

    observation = observe(server, end)

    np.testing.assert_allclose(by_name(observation)["alpha"].power_watts, 1000)
    assert by_name(observation)["alpha"].gpus_per_replica == 1


def test_gpu_repeated_by_its_mig_instances_counts_once(server, end):
    labels, points = gpu("GPU-1", H100, "alpha-0", 400, end)
    repeated = [({**labels, "GPU_I_ID": str(number)}, points) for number in range(7)]
    series = without(cluster(end), lambda one: one.get("UUID") == "GPU-1")
    server.write([*series, *repeated])

    observation = observe(server, end)

    np.testing.assert_allclose(by_name(observation)["alpha"].power_watts, 1000)
    assert observation.gpu_count[H100] == 3


@pytest.mark.parametrize(
    "watts",
    [
        pytest.param(SENTINEL, id="sentinel"),
        pytest.param(math.nan, id="nan"),
        pytest.param(-5.0, id="negative"),
        pytest.param(math.inf, id="infinite"),
    ],
)
def test_impossible_gpu_value_makes_the_sum_missing_not_smaller(server, end, watts):
    series = without(cluster(end), lambda one: one.get("UUID") == "GPU-1")
    server.write([*series, gpu("GPU-1", H100, "alpha-0", watts, end)])

    observation = observe(server, end)

    assert np.isnan(by_name(observation)["alpha"].power_watts).all()
    np.testing.assert_allclose(by_name(observation)["beta"].power_watts, 560)
    assert {"GpuValueDropped", "PowerIncomplete"} <= reasons(observation)
    assert observation.measured is None


def test_pod_without_gpu_watts_makes_the_sum_missing(server, end):
    server.write(without(cluster(end), lambda one: one.get("UUID") == "GPU-2"))

    observation = observe(server, end)

    assert np.isnan(by_name(observation)["alpha"].power_watts).all()
    assert "PowerIncomplete" in reasons(observation)


def test_pod_without_host_watts_makes_the_sum_missing(server, end):
    server.write(without(cluster(end), lambda one: one.get("pod_name") == "alpha-1"))

    observation = observe(server, end)

    assert np.isnan(by_name(observation)["alpha"].power_watts).all()
    assert "PowerIncomplete" in reasons(observation)


def test_pod_that_reports_no_tokens_makes_the_load_missing(server, end):
    server.write(without(cluster(end), lambda one: one.get("pod") == "alpha-1" and "engine" in one))

    observation = observe(server, end)

    assert np.isnan(by_name(observation)["alpha"].arrived_tps).all()
    assert np.isfinite(by_name(observation)["beta"].arrived_tps).all()
    assert "LoadIncomplete" in reasons(observation)


def test_series_that_stopped_is_stale_and_not_the_present(server, end):
    def shortened(labels: Labels, points: Points) -> Points:
        if labels.get("UUID") != "GPU-1":
            return points
        return [(at, value) for at, value in points if at <= end - 240]

    server.write([(labels, shortened(labels, points)) for labels, points in cluster(end)])

    observation = observe(server, end)

    power = by_name(observation)["alpha"].power_watts
    assert np.isnan(power[-1])
    assert np.isfinite(power[:-1]).all()
    assert "PowerStale" in reasons(observation)


def test_silent_gpu_counts_with_its_hours_maximum_in_the_measured_total(server, end):
    def shortened(labels: Labels, points: Points) -> Points:
        if labels.get("UUID") != "GPU-1":
            return points
        return [(at, 640.0) for at, _ in points if at <= end - 600]

    server.write([(labels, shortened(labels, points)) for labels, points in cluster(end)])

    reading = source(server).measure(now_seconds=end, window_seconds=60)

    assert reading is not None
    assert reading.power_watts == pytest.approx(640 + 500 + 250 + 260 + 70 + 350)
    assert "1 silent GPUs" in reading.source


def test_reading_is_as_old_as_its_oldest_part(server, end):
    server.write(
        [
            (labels, [one for one in points if one[0] <= end - 30])
            if labels.get("UUID") == "GPU-3"
            else (labels, points)
            for labels, points in cluster(end)
        ]
    )

    reading = source(server).measure(now_seconds=end, window_seconds=60)

    assert reading is not None
    assert reading.measured_at_seconds == end - 30


def test_nothing_measured_is_no_reading(server, end):
    reading = source(server).measure(now_seconds=end, window_seconds=60)

    assert reading is None


def test_terminating_pods_are_present(server, end):
    extra = workload("alpha", pods=4, gpus=1, end=end)
    only_pods = [one for one in extra if one[0]["__name__"].startswith("kube_pod")]
    kept = without(
        cluster(end), lambda one: one["__name__"].startswith("kube_pod") and "alpha" in one["pod"]
    )
    server.write([*kept, *only_pods])

    observation = observe(server, end)

    np.testing.assert_allclose(by_name(observation)["alpha"].ready_replicas, 2)
    np.testing.assert_allclose(by_name(observation)["alpha"].present_replicas, 4)


def test_deployment_without_pods_draws_nothing(server, end):
    idle = workload("gamma", pods=0, gpus=1, end=end)
    past = [
        (labels, [one for one in points if one[0] < end - 2 * STEP])
        for labels, points in [
            *[one for one in workload("gamma", pods=1, gpus=1, end=end) if "pod" in one[0]],
            gpu("GPU-6", H100, "gamma-0", 300, end),
        ]
    ]
    server.write([*cluster(end), *idle, *past])

    observation = observe(server, end)

    gamma = by_name(observation)["gamma"]
    assert gamma.power_watts[-1] == 0
    assert gamma.present_replicas[-1] == 0
    assert gamma.gpus_per_replica == 1


def test_missing_gpu_exporter_is_an_error_and_not_zero_watts(server, end):
    server.write(without(cluster(end), lambda one: one["__name__"].startswith("DCGM")))

    with pytest.raises(DataMissingError, match="dcgm-exporter"):
        observe(server, end)


def test_missing_kepler_is_an_error_unless_host_watts_are_stated(server, end):
    server.write(without(cluster(end), lambda one: one["__name__"].startswith("kepler")))

    with pytest.raises(DataMissingError, match="assumed_host_watts_per_node"):
        observe(server, end)
    observation = observe(server, end, assumed_host_watts_per_node=900.0)

    assert observation.host_idle_watts == 900
    np.testing.assert_allclose(by_name(observation)["alpha"].power_watts, 900)
    np.testing.assert_allclose(observation.total_watts, 400 + 500 + 250 + 260 + 70 + 900)
    assert observation.measured is not None
    assert "assumed" in observation.measured.source
    assert "HostPowerAssumed" in reasons(observation)


def test_missing_vllm_is_named(server, end):
    server.write(without(cluster(end), lambda one: one["__name__"].startswith("vllm")))

    observation = observe(server, end)

    assert np.isnan(by_name(observation)["alpha"].arrived_tps).all()
    assert {"MetricMissing", "LoadIncomplete"} <= reasons(observation)


def test_label_names_of_the_scrape_can_be_set(server, end):
    def renamed(labels: Labels) -> Labels:
        if labels["__name__"].startswith("kube_"):
            names = {"namespace": "exported_namespace", "pod": "exported_pod"}
            return {names.get(key, key): value for key, value in labels.items()} | {
                "namespace": "monitoring",
                "pod": "kube-state-metrics-0",
            }
        if labels["__name__"].startswith("vllm"):
            names = {"namespace": "kubernetes_namespace", "pod": "pod_name"}
            return {names.get(key, key): value for key, value in labels.items()}
        return labels

    server.write([(renamed(labels), points) for labels, points in cluster(end)])
    labels = PrometheusLabels(
        kube_namespace="exported_namespace",
        kube_pod="exported_pod",
        serving_namespace="kubernetes_namespace",
        serving_pod="pod_name",
    )

    observation = observe(server, end, labels=labels)

    alpha = by_name(observation)["alpha"]
    np.testing.assert_allclose(alpha.power_watts, 1000)
    np.testing.assert_allclose(alpha.arrived_tps, 200, rtol=1e-6)
    assert (alpha.min_replicas, alpha.max_replicas) == (1, 6)
    assert observation.findings == ()


def test_long_history_is_read_in_parts_below_the_servers_limit(server, end):
    server.write(cluster(end))
    one = source(server)

    observation = one.observe(now_seconds=end, history_seconds=12_500 * 5, step_seconds=5)
    one.close()

    assert observation.time_seconds.size == 12_500
    alpha = by_name(observation)["alpha"]
    assert np.isfinite(alpha.power_watts[-700:]).all()
    assert np.isnan(alpha.power_watts[0])


def test_same_moment_gives_the_same_observation(server, end):
    server.write(cluster(end))

    first, second = observe(server, end), observe(server, end)

    assert [one.key for one in first.deployments] == [one.key for one in second.deployments]
    for one, other in zip(first.deployments, second.deployments, strict=True):
        np.testing.assert_array_equal(one.power_watts, other.power_watts)
        np.testing.assert_array_equal(one.arrived_tps, other.arrived_tps)


def message(observation, reason: str) -> str:
    return next(one.message for one in observation.findings if one.reason == reason)


HOST = 800.0
"""Assumed for a host that Kepler does not report: two sockets at 400 W."""


def test_host_that_kepler_never_reported_is_charged_and_not_read_as_nothing(server, end):
    kept = without(second_host(end), lambda one: one["__name__"].startswith("kepler"))
    server.write([*cluster(end), *kept])

    observation = observe(server, end)

    assert observation.measured is not None
    assert observation.measured.power_watts == pytest.approx(1830 + 90 + HOST)
    assert "1 hosts without Kepler at 800 W" in observation.measured.source
    assert observation.host_idle_watts == pytest.approx(200 + HOST)
    np.testing.assert_allclose(observation.total_watts, 1830 + 90 + HOST)
    assert "node-2" in message(observation, "HostPowerAssumed")


def test_host_watts_that_are_stated_are_charged_where_kepler_is_missing(server, end):
    kept = without(second_host(end), lambda one: one["__name__"].startswith("kepler"))
    server.write([*cluster(end), *kept])

    reading = measure(server, end, assumed_host_watts_per_node=350.0)

    assert reading is not None
    assert reading.power_watts == pytest.approx(1830 + 90 + 350)


def test_host_is_found_by_its_short_name_in_old_kepler_too(server, end):
    pods = ["alpha-0", "alpha-1", "beta-0"]
    new = without(cluster(end), lambda one: one["__name__"].startswith("kepler"))
    full = [
        ({**labels, "Hostname": "node-1.rack.example"} if "UUID" in labels else labels, points)
        for labels, points in new
    ]
    server.write([*full, *old_kepler(pods, end)])

    observation = observe(server, end)

    assert observation.measured is not None
    assert observation.measured.power_watts == pytest.approx(1830)
    assert "HostPowerAssumed" not in reasons(observation)


def test_devices_silent_for_over_an_hour_still_count_with_their_maximum(server, end):
    last = end - 3600 - 600
    server.write(
        [*cluster(end), *until(second_host(end), last, lambda one: "kube" not in str(one))]
    )

    observation = observe(server, end)

    assert observation.measured is not None
    assert observation.measured.power_watts == pytest.approx(1830 + 90 + 150)
    assert "1 silent GPUs" in observation.measured.source
    assert "1 silent hosts" in observation.measured.source
    assert observation.gpu_count == {H100: 4, A100: 2}


def test_windows_after_a_device_fell_silent_have_no_total(server, end):
    last = end - 4200
    series = until(second_host(end), last, lambda one: "kube" not in str(one))
    server.write([*cluster(end), *series])

    one = source(server)
    observation = one.observe(now_seconds=end, history_seconds=4800, step_seconds=STEP)
    one.close()

    total = observation.total_watts
    late = observation.time_seconds > last + STEP
    assert np.isnan(total[late]).all()
    np.testing.assert_allclose(total[observation.time_seconds <= last], 1830 + 90 + 150)


def test_devices_of_a_node_that_is_gone_no_longer_count(server, end):
    server.write([*cluster(end), *until(second_host(end), end - 1800, of_second_host)])

    observation = observe(server, end)

    assert observation.measured is not None
    assert observation.measured.power_watts == pytest.approx(1830)
    assert observation.measured.source == "dcgm+kepler"
    assert observation.gpu_count == {H100: 3, A100: 2}
    assert observation.total_watts[-1] == pytest.approx(1830)


def test_silence_of_kube_state_metrics_takes_no_device_away(server, end):
    gone = [*cluster(end), *until(second_host(end), end - 1800, of_second_host)]
    nobody = until(gone, end - 900, lambda one: one["__name__"].startswith("kube_node"))
    server.write(nobody)

    reading = measure(server, end)

    assert reading is not None
    assert reading.power_watts == pytest.approx(1830 + 90 + 150)


def test_gpus_that_kubernetes_counts_and_nobody_measures_refuse_the_measurement(server, end):
    unseen = without(second_host(end), lambda one: "UUID" in one)
    server.write([*cluster(end), *unseen])

    with pytest.raises(DataMissingError, match="node-2: 1"):
        measure(server, end)
    observation = observe(server, end)

    assert observation.measured is None
    assert "node-2: 1" in message(observation, "PowerUnmeasured")
    assert sum(observation.gpu_count.values()) == 5 + 1
    # In the plan they count at the most that any GPU draws.
    np.testing.assert_allclose(observation.total_watts, 1830 + 150 + 2000)
    assert "GpuUnreported" in reasons(observation)


def test_one_gpu_missing_on_a_node_refuses_the_measurement(server, end):
    server.write([*cluster(end), *nodes(end, node_1=6)])

    with pytest.raises(DataMissingError, match="node-1: 1"):
        measure(server, end)


def test_gpus_that_kubernetes_counts_several_times_are_not_missing(server, end):
    server.write([*cluster(end), *nodes(end, node_1=5 * 4)])

    reading = measure(server, end)

    assert reading is not None
    assert reading.power_watts == pytest.approx(1830)


def test_impossible_value_refuses_the_measurement_with_its_reason(server, end):
    series = without(cluster(end), lambda one: one.get("UUID") == "GPU-1")
    server.write([*series, gpu("GPU-1", H100, "alpha-0", SENTINEL, end)])

    with pytest.raises(DataMissingError, match="4 of 5 GPUs"):
        measure(server, end)


def test_unreachable_prometheus_is_told_at_once(end):
    nobody = PrometheusConfig(url=f"http://127.0.0.1:{free_port()}", timeout_seconds=2)
    one = PrometheusMetricsSource(nobody)
    started = time.monotonic()

    with pytest.raises(SourceError, match="did not answer"):
        one.observe(now_seconds=end, history_seconds=HISTORY, step_seconds=STEP)

    one.close()
    assert time.monotonic() - started < 5


def test_refused_query_names_the_server_and_the_query(server, end):
    labels = replace(PrometheusLabels(), gpu_uuid="not a label")

    with pytest.raises(SourceError, match="refused a query"):
        source(server, labels=labels).measure(now_seconds=end, window_seconds=60)
