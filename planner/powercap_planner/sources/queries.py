"""The PromQL of the workloads, by name, with its unit and why it is so.

The same expressions are unit-tested with ``promtool test rules`` and listed in
``docs/prometheus.md``. Common shape: one series per (namespace, deployment), joined from pods over
kube-state-metrics' owner chain; values of a device or pod outside its physical range (sentinels
such as 9223372036854775794, negative, NaN) drop out, and a count beside each sum tells how many
parts it has, so that a part that is missing makes the sum missing, never smaller.
"""

from __future__ import annotations

from powercap_planner.sources.meter_queries import (
    cluster_queries,
    device_queries,
    meter_queries,
)
from powercap_planner.sources.promql import (
    GPU_WATTS,
    RUNNING_REQUESTS,
    Expressions,
    KeplerFlavour,
    Query,
    renamed,
)

INVENTORY = "inventory"
_HOST_WHY = {
    KeplerFlavour.REWRITE: "CPU watts of its pods, running only, one zone: zones overlap.",
    KeplerFlavour.LEGACY: "CPU joules/s of its pods, dynamic only: idle is in host_idle_watts.",
    KeplerFlavour.NONE: "No Kepler is scraped; asked all the same.",
}

REQUIRED_METRICS = {
    GPU_WATTS: "GPU watts, from dcgm-exporter",
    "kube_pod_owner": "pods' owners, from kube-state-metrics",
    "kube_replicaset_owner": "ReplicaSets' owners, from kube-state-metrics",
    "kube_deployment_status_replicas": "replicas, from kube-state-metrics",
    "kube_pod_container_resource_requests": "GPU requests, from kube-state-metrics",
    "vllm:generation_tokens_total": "generated tokens, from vLLM",
    "vllm:num_requests_running": "running requests, from vLLM",
    "vllm:request_success_total": "finished requests, from vLLM",
}
"""Metrics without which something is missing, and what they are for."""
_KEPLER_METRICS = {
    "kepler_node_cpu_watts": KeplerFlavour.REWRITE,
    "kepler_pod_cpu_watts": KeplerFlavour.REWRITE,
    "kepler_node_package_joules_total": KeplerFlavour.LEGACY,
    "kepler_container_package_joules_total": KeplerFlavour.LEGACY,
}


def inventory() -> Query:
    """Return the query that tells which of the metrics exist now, and how many series each has."""
    names = "|".join((*REQUIRED_METRICS, *_KEPLER_METRICS))
    return Query(
        name=INVENTORY,
        promql=f'count by (__name__) ({{__name__=~"{names}"}})',
        unit="series",
        why="Which exporters are scraped, and which Kepler.",
    )


def flavour_of(names: set[str]) -> KeplerFlavour:
    """Tell which Kepler is scraped; the rewrite where both are."""
    found = {_KEPLER_METRICS[name] for name in names if name in _KEPLER_METRICS}
    for flavour in (KeplerFlavour.REWRITE, KeplerFlavour.LEGACY):
        if flavour in found:
            return flavour
    return KeplerFlavour.NONE


def all_queries(make: Expressions) -> tuple[Query, ...]:
    """Return every query, in the order of the documentation."""
    return (
        inventory(),
        *workload_queries(make),
        *cluster_queries(make),
        *device_queries(make),
        *meter_queries(make),
    )


def workload_queries(make: Expressions) -> tuple[Query, ...]:
    """Return the queries with one series per (namespace, deployment)."""
    return (*_power(make), *_replicas(make), *_serving(make))


def _power(make: Expressions) -> tuple[Query, ...]:
    model = make.labels.gpu_model
    stamps = make.gpu_by_pod(lambda metric: f"timestamp({metric})", make.labels.gpu_uuid)
    running = make.kube('kube_pod_status_phase{phase="Running"}') + " == 1"
    gpus = make.gpu_of_pods()
    host = make.pod_host()
    owned, over = make.by_deployment, make.over_window
    return (
        Query(
            name="gpu_watts",
            promql=over(owned("sum", f"sum by (namespace, pod) ({gpus})")),
            unit="W",
            why="Watts of the GPUs that the deployment's pods held, whole devices; mean.",
        ),
        Query(
            name="gpus_measured",
            promql=over(owned("sum", f"count by (namespace, pod) ({gpus})")),
            unit="GPUs",
            why="How many GPUs that mean has.",
        ),
        Query(
            name="gpus_running",
            promql=over(owned("sum", f"{make.gpu_requests()} and on (namespace, pod) ({running})")),
            unit="GPUs",
            why="GPUs its running pods requested: far fewer measured makes the mean missing.",
        ),
        Query(
            name="gpu_sample_time",
            promql=owned("min", f"min by (namespace, pod) ({stamps})"),
            unit="Unix s",
            why="Oldest latest sample among its GPUs.",
        ),
        Query(
            name="gpu_types",
            promql=f"count by (namespace, deployment, {model}) ({gpus} * on (namespace, pod) "
            f"group_left (deployment) ({make.owner()}))",
            unit="GPUs",
            why="GPU types its pods run on, by DCGM's model name.",
        ),
        Query(
            name="host_watts",
            promql=over(owned("sum", host)),
            unit="W",
            why=_HOST_WHY[make.flavour],
        ),
        Query(
            name="host_pods",
            promql=over(owned("count", host)),
            unit="pods",
            why="How many pods that mean has.",
        ),
    )


def _replicas(make: Expressions) -> tuple[Query, ...]:
    name = make.kube_deployment
    alive = make.kube('kube_pod_status_phase{phase=~"Pending|Running|Unknown"}') + " == 1"
    pods = f"{make.owner()} and on (namespace, pod) ({alive})"
    limit = (
        "max by (namespace, deployment) (label_replace({fold}, "
        '"deployment", "$1", "scaletargetref_name", "(.*)"))'
    )
    space = make.labels.kube_namespace

    def bound(which: str, span: str = "") -> str:
        def of(metric: str) -> str:
            return f"max_over_time({metric}{span})" if span else metric

        info = of('kube_horizontalpodautoscaler_info{scaletargetref_kind="Deployment"}')
        joined = (
            f"max by ({space}, horizontalpodautoscaler, scaletargetref_name) ({info}) "
            f"* on ({space}, horizontalpodautoscaler) group_left () "
            f"max by ({space}, horizontalpodautoscaler) "
            f"({of(f'kube_horizontalpodautoscaler_spec_{which}_replicas')})"
        )
        return limit.format(fold=renamed(joined, namespace=space))

    return (
        Query(
            name="ready_replicas",
            promql=name("kube_deployment_status_replicas_ready"),
            unit="replicas",
            why="Replicas that serve.",
        ),
        Query(
            name="status_replicas",
            promql=name("kube_deployment_status_replicas"),
            unit="replicas",
            why="Pending and ready.",
        ),
        Query(
            name="terminating_replicas",
            promql=name("kube_deployment_status_terminating_replicas"),
            unit="replicas",
            why="Terminating pods still burn power; absent before Kubernetes 1.33.",
        ),
        Query(
            name="pods",
            promql=f"count by (namespace, deployment) ({pods})",
            unit="pods",
            why="All pods of the owner chain, terminating ones too: the larger counts.",
        ),
        Query(
            name="mean_pods",
            promql=make.over_window(f"count by (namespace, deployment) ({pods})"),
            unit="pods",
            why="The same over the window: the pods that the window's watts are of.",
        ),
        Query(
            name="mean_ready_replicas",
            promql=make.over_window(name("kube_deployment_status_replicas_ready")),
            unit="replicas",
            why="Replicas that served over the window.",
        ),
        Query(
            name="gpus_per_replica",
            promql=make.by_deployment("max", make.gpu_requests()),
            unit="GPUs",
            why="GPU requests of one pod.",
        ),
        Query(
            name="min_replicas",
            promql=bound("min"),
            unit="replicas",
            why="Of the autoscaler (KEDA's HPA), where there is one.",
        ),
        Query(
            name="max_replicas",
            promql=bound("max", f"[{make.window}]"),
            unit="replicas",
            why="The same, the highest of the window: a client may have lowered it since.",
        ),
        Query(
            name="highest_max_replicas",
            promql=bound("max", make.maximum_memory),
            unit="replicas",
            why="The highest of all the time that maxima are remembered, hour by hour.",
        ),
    )


def _serving(make: Expressions) -> tuple[Query, ...]:
    rate = make.served_in_window

    def p95(*metrics: str) -> str:
        # Never mix the buckets of two names: one quantile each, the first that exists.
        return " or ".join(
            f"histogram_quantile(0.95, {rate(f'{metric}_bucket', 'le')})" for metric in metrics
        )

    requests = "(vllm:num_requests_running + vllm:num_requests_waiting)"
    return (
        Query(
            name="served_tps",
            promql=rate("vllm:generation_tokens_total"),
            unit="tokens/s",
            why="Generated tokens; summed over engines (data-parallel ranks).",
        ),
        Query(
            name="finished_rps",
            promql=rate("vllm:request_success_total"),
            unit="requests/s",
            why="Finished requests; with the growth of the queue they give arrivals.",
        ),
        Query(
            name="requests_in_system",
            promql=make.serving_by_deployment(requests),
            unit="requests",
            why="Running and waiting at the window's end; its growth is load not served.",
        ),
        Query(
            name="tokens_per_request",
            promql=f"{rate('vllm:request_generation_tokens_sum')} / "
            f"{rate('vllm:request_generation_tokens_count')}",
            unit="tokens",
            why="Mean generated tokens of finished requests; NaN when none finished.",
        ),
        Query(
            name="running_requests",
            promql=make.over_window(make.serving_by_deployment("vllm:num_requests_running")),
            unit="requests",
            why="In execution, mean over the window.",
        ),
        Query(
            name="waiting_requests",
            promql=make.over_window(make.serving_by_deployment("vllm:num_requests_waiting")),
            unit="requests",
            why="Queued, mean over the window.",
        ),
        Query(
            name="serving_pods",
            promql=make.by_deployment(
                "count", f"max by (namespace, pod) ({make.serving_fold(RUNNING_REQUESTS)})"
            ),
            unit="pods",
            why="Pods whose server reports: fewer than ready makes its load missing.",
        ),
        Query(
            name="ttft_p95_seconds",
            promql=p95("vllm:time_to_first_token_seconds"),
            unit="s",
            why="Time to first token, queueing included; NaN without traffic.",
        ),
        Query(
            name="itl_p95_seconds",
            promql=p95("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
            unit="s",
            why="Time between tokens; the second name is that of older vLLM.",
        ),
    )
