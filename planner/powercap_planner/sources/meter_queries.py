"""The PromQL of the whole cluster: its GPUs and hosts, in use or not, and the measured total."""

from __future__ import annotations

from powercap_planner.sources.promql import (
    GPU_WATTS,
    GPU_WATTS_LIMIT,
    Expressions,
    Query,
    in_range,
)


def cluster_queries(make: Expressions) -> tuple[Query, ...]:
    """Return the queries about the whole cluster."""
    uuid, model = make.labels.gpu_uuid, make.labels.gpu_model
    devices = make.gpu_devices(model)
    assigned = (
        f"count by ({uuid}) ({make.gpu_of_pods()} * on (namespace, pod) group_left () "
        f"({make.gpu_requests()} > bool 0))"
    )
    return (
        Query(
            name="gpu_count",
            promql=f"count by ({model}) ({make.gpu_lately(model)})",
            unit="GPUs",
            why="GPUs of the last hour by type, one per UUID (MIG repeats a device).",
        ),
        Query(
            name="parked_gpu_watts",
            promql=f"avg by ({model}) ({devices} unless on ({uuid}) {assigned})",
            unit="W",
            why="Mean watts of one GPU that no pod holds, by type.",
        ),
        Query(
            name="host_idle_watts",
            promql=f"sum({make.node_host(idle=True)})",
            unit="W",
            why="Idle watts of all hosts: pods' host watts hold the active share only.",
        ),
        Query(
            name="gpu_watts_all",
            promql=make.over_window(f"sum({devices})"),
            unit="W",
            why="All GPUs, taken at the same moments as the deployments' share of them.",
        ),
        Query(
            name="gpus_reporting",
            promql=make.over_window(f"count by (node) ({make.gpu_devices_by_node()})"),
            unit="GPUs",
            why="How many GPUs of each node that mean has: fewer than before makes it missing.",
        ),
        Query(
            name="host_watts_all",
            promql=f"sum({make.node_host(idle=False)})",
            unit="W",
            why="All hosts measured in the window, active and idle, one Kepler zone.",
        ),
        Query(
            name="hosts_reporting",
            promql=f"count by (node) ({make.node_host(idle=False)})",
            unit="nodes",
            why="Which hosts that sum has.",
        ),
        Query(
            name="nodes",
            promql=make.nodes(),
            unit="nodes",
            why="Which nodes exist: what a node that is gone had is no longer expected.",
        ),
        Query(
            name="gpu_values_dropped",
            promql=f"count({GPU_WATTS} unless ({GPU_WATTS} >= 0 <= {GPU_WATTS_LIMIT}))",
            unit="series",
            why="GPU series whose value is NaN, negative or a sentinel now.",
        ),
        Query(
            name="gpus_shared",
            promql=f"count(count by ({uuid}) ({make.gpu_of_pods()} * on (namespace, pod) "
            f"group_left () ({make.gpu_requests()} > bool 0)) > 1)",
            unit="GPUs",
            why="GPUs held by several pods (MIG, time slicing): each is charged all of it.",
        ),
    )


def device_queries(make: Expressions) -> tuple[Query, ...]:
    """Return the queries about which GPUs and hosts exist, by node."""
    hosts = f"{make.node_host(idle=False)} or {make.node_host_lately()}"
    return (
        Query(
            name="gpu_hosts",
            promql=f"count by (node) ({make.gpu_lately('node')})",
            unit="GPUs",
            why="GPUs of each host in the last hour by dcgm-exporter.",
        ),
        Query(
            name="silent_gpus",
            promql=make.gpu_long_silent("node", make.labels.gpu_model),
            unit="W",
            why="The most of each GPU that has been silent for over an hour and still exists.",
        ),
        Query(
            name="kube_gpus",
            promql=make.node_gpus(),
            unit="GPUs",
            why="GPUs of each node by Kubernetes: more than dcgm-exporter's, and some are unseen.",
        ),
        Query(
            name="kepler_hosts",
            promql=f"count by (node) ({hosts})",
            unit="nodes",
            why="Hosts that Kepler reports; others are charged as assumed.",
        ),
        Query(
            name="silent_hosts",
            promql=make.node_host_long_silent(),
            unit="W",
            why="The most of each host that has been silent for over an hour and still exists.",
        ),
    )


def meter_queries(make: Expressions) -> tuple[Query, ...]:
    """Return the queries behind the measured total and its age."""
    uuid = make.labels.gpu_uuid
    devices = make.gpu_devices_mean()
    hosts = make.node_host(idle=False)
    valued = f"{devices} or {in_range(make.gpu_lately(), GPU_WATTS_LIMIT)}"
    hosts_valued = f"{hosts} or {make.node_host_lately()}"
    return (
        Query(
            name="gpu_total_watts",
            promql=f"sum({valued})",
            unit="W",
            why="All GPUs; one that fell silent counts with its last hour's maximum.",
        ),
        Query(
            name="gpus_measured_now",
            promql=f"count({devices})",
            unit="GPUs",
            why="GPUs measured in the window.",
        ),
        Query(
            name="gpus_valued",
            promql=f"count({valued})",
            unit="GPUs",
            why="How many GPUs that total has.",
        ),
        Query(
            name="gpus_known",
            promql=f"count({devices} or {make.gpu_lately()})",
            unit="GPUs",
            why="GPUs seen in the last hour: more than valued, and no total is given.",
        ),
        Query(
            name="oldest_gpu_sample",
            promql=f"min(max by ({uuid}) (timestamp({GPU_WATTS})) and on ({uuid}) {devices})",
            unit="Unix s",
            why="Age check: a value alone cannot tell fresh from five minutes old.",
        ),
        Query(
            name="host_total_watts",
            promql=f"sum({hosts_valued})",
            unit="W",
            why="All hosts; one that fell silent counts with its last hour's maximum.",
        ),
        Query(
            name="hosts_measured_now",
            promql=f"count({hosts})",
            unit="nodes",
            why="Hosts measured in the window.",
        ),
        Query(
            name="hosts_valued",
            promql=f"count({hosts_valued})",
            unit="nodes",
            why="How many hosts that total has.",
        ),
        Query(
            name="oldest_host_sample",
            promql=f"min({make.node_host_stamp()} and on (node) {hosts})",
            unit="Unix s",
            why="The age check of the hosts.",
        ),
    )
