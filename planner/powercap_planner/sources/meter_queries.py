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
            promql=f"count by ({model}) (count by ({uuid}, {model}) "
            f"(last_over_time({GPU_WATTS}[1h])))",
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
            promql=make.over_window(f"count({devices})"),
            unit="GPUs",
            why="How many GPUs that mean has: fewer than in the last hour makes it missing.",
        ),
        Query(
            name="host_watts_all",
            promql=f"sum({make.node_host(idle=False)})",
            unit="W",
            why="All hosts measured in the window, active and idle, one Kepler zone.",
        ),
        Query(
            name="hosts_reporting",
            promql=f"count({make.node_host(idle=False)})",
            unit="nodes",
            why="How many hosts that sum has.",
        ),
        Query(
            name="gpu_nodes",
            promql=f"count(count by (Hostname, hostname) (last_over_time({GPU_WATTS}[1h])))",
            unit="nodes",
            why="Hosts with GPUs; the label's case changed after dcgm-exporter 4.5.3.",
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


def meter_queries(make: Expressions) -> tuple[Query, ...]:
    """Return the queries behind the measured total and its age."""
    uuid = make.labels.gpu_uuid
    recent = f"max by ({uuid}) ({in_range(f'max_over_time({GPU_WATTS}[1h])', GPU_WATTS_LIMIT)})"
    devices = make.gpu_devices_mean()
    hosts = make.node_host(idle=False)
    nodes = make.node_label
    stamp = f"timestamp({make.node_metric()})"
    return (
        Query(
            name="gpu_total_watts",
            promql=f"sum({devices} or {recent})",
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
            promql=f"count({devices} or {recent})",
            unit="GPUs",
            why="How many GPUs that total has.",
        ),
        Query(
            name="gpus_known",
            promql=f"count(count by ({uuid}) (last_over_time({GPU_WATTS}[1h])))",
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
            promql=f"sum({hosts} or {make.node_host_recent()})",
            unit="W",
            why="All hosts; a silent one counts with its last hour's maximum.",
        ),
        Query(
            name="hosts_measured_now",
            promql=f"count({hosts})",
            unit="nodes",
            why="Hosts measured in the window.",
        ),
        Query(
            name="hosts_valued",
            promql=f"count({hosts} or {make.node_host_recent()})",
            unit="nodes",
            why="How many hosts that total has.",
        ),
        Query(
            name="oldest_host_sample",
            promql=f"min(max by ({nodes}) ({stamp}) and on ({nodes}) {hosts})",
            unit="Unix s",
            why="The age check of the hosts.",
        ),
    )
