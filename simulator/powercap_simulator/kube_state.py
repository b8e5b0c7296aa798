"""What kube-state-metrics would expose of the emulated cluster (v2.20 names and labels)."""

from __future__ import annotations

from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.exporters import CONTAINER, replicaset
from powercap_simulator.families import Family
from powercap_simulator.pods import Pod, PodState
from powercap_simulator.scenario import NodeSpec

GPU_RESOURCE = "nvidia_com_gpu"
_PHASES = ("Pending", "Succeeded", "Failed", "Unknown", "Running")


class _Families:
    """Families by name, in the order of their first sample."""

    def __init__(self) -> None:
        self._by_name: dict[str, Family] = {}

    def add(self, name: str, value: float, /, **labels: str) -> None:
        family = self._by_name.get(name)
        if family is None:
            described = name.removeprefix("kube_").replace("_", " ")
            family = Family(name=name, kind="gauge", description=described)
            self._by_name[name] = family
        family.add(value, **labels)

    def all(self) -> list[Family]:
        return list(self._by_name.values())


def kube_state_families(cluster: SimulatedCluster) -> list[Family]:
    """Return nodes, deployments, ReplicaSets, pods and KEDA's HPAs."""
    found = _Families()
    for node in cluster.scenario.nodes:
        _add_node(found, node)
    for index, _ in enumerate(cluster.scenario.deployments):
        _add_deployment(found, cluster, index)
        _add_autoscaler(found, cluster, index)
    for pod in cluster.pods:
        _add_pod(found, cluster, pod)
    return found.all()


def _add_node(found: _Families, node: NodeSpec) -> None:
    found.add(
        "kube_node_info",
        1.0,
        node=node.name,
        kernel_version="6.8.0",
        os_image="Ubuntu 24.04 LTS",
        container_runtime_version="containerd://2.1.4",
        kubelet_version="v1.34.0",
        kubeproxy_version="",
        pod_cidr="",
        provider_id="",
        system_uuid="",
        internal_ip="",
    )
    for which in ("capacity", "allocatable"):
        found.add(
            f"kube_node_status_{which}",
            float(node.gpu_count),
            node=node.name,
            resource=GPU_RESOURCE,
            unit="integer",
        )


def _add_deployment(found: _Families, cluster: SimulatedCluster, index: int) -> None:
    spec = cluster.scenario.deployments[index]
    own = {"namespace": spec.namespace, "deployment": spec.name}
    states = [pod.state for pod in cluster.pods_of(index)]
    ready = float(states.count(PodState.READY))
    terminating = float(states.count(PodState.TERMINATING))
    alive = len(states) - terminating
    found.add("kube_deployment_created", cluster.scenario.start_seconds, **own)
    found.add("kube_deployment_spec_replicas", float(cluster.spec_replicas[index]), **own)
    for name, value in (
        ("replicas", alive),
        ("replicas_ready", ready),
        ("replicas_available", ready),
        ("replicas_updated", alive),
        ("replicas_unavailable", alive - ready),
        ("terminating_replicas", terminating),
    ):
        found.add(f"kube_deployment_status_{name}", value, **own)
    found.add(
        "kube_replicaset_owner",
        1.0,
        namespace=spec.namespace,
        replicaset=replicaset(cluster, index),
        owner_kind="Deployment",
        owner_name=spec.name,
        owner_is_controller="true",
    )


def _add_autoscaler(found: _Families, cluster: SimulatedCluster, index: int) -> None:
    spec, scaled = cluster.scenario.deployments[index], cluster.scaled_objects[index]
    # KEDA deletes the HPA while a ScaledObject is paused; without autoscaler there is none.
    if scaled.is_paused or spec.replica_rule == "fixed":
        return
    own = {"namespace": spec.namespace, "horizontalpodautoscaler": f"keda-hpa-{spec.name}"}
    found.add(
        "kube_horizontalpodautoscaler_info",
        1.0,
        **own,
        scaletargetref_api_version="apps/v1",
        scaletargetref_kind="Deployment",
        scaletargetref_name=spec.name,
    )
    alive = sum(pod.state is not PodState.TERMINATING for pod in cluster.pods_of(index))
    for name, value in (
        ("spec_max_replicas", scaled.max_replicas),
        ("spec_min_replicas", max(1, scaled.min_replicas)),
        ("status_current_replicas", alive),
        ("status_desired_replicas", scaled.desired_replicas),
    ):
        found.add(f"kube_horizontalpodautoscaler_{name}", float(value), **own)


def _add_pod(found: _Families, cluster: SimulatedCluster, pod: Pod) -> None:
    spec = cluster.scenario.deployments[pod.deployment]
    node = cluster.scenario.nodes[pod.node].name if pod.node >= 0 else ""
    own = {"namespace": spec.namespace, "pod": pod.name, "uid": pod.uid}
    owner = replicaset(cluster, pod.deployment)
    found.add(
        "kube_pod_info",
        1.0,
        **own,
        host_ip="",
        pod_ip="",
        node=node,
        created_by_kind="ReplicaSet",
        created_by_name=owner,
        priority_class="",
        host_network="false",
    )
    found.add(
        "kube_pod_owner",
        1.0,
        **own,
        owner_kind="ReplicaSet",
        owner_name=owner,
        owner_is_controller="true",
    )
    found.add("kube_pod_created", pod.created_seconds, **own)
    if pod.state is not PodState.UNSCHEDULED:
        found.add("kube_pod_start_time", pod.scheduled_seconds, **own)
    phase = "Pending" if pod.state is PodState.UNSCHEDULED else "Running"
    for name in _PHASES:
        found.add("kube_pod_status_phase", float(name == phase), **own, phase=name)
    is_ready = pod.state is PodState.READY
    for condition, holds in (("true", is_ready), ("false", not is_ready), ("unknown", False)):
        found.add("kube_pod_status_ready", float(holds), **own, condition=condition)
    for which in ("requests", "limits"):
        found.add(
            f"kube_pod_container_resource_{which}",
            float(spec.curve.gpus_per_replica),
            **own,
            container=CONTAINER,
            node=node,
            resource=GPU_RESOURCE,
            unit="integer",
        )
