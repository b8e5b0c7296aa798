"""Building blocks of PromQL: who owns a pod, what a device, a pod and a node draw.

Every block yields the labels that all queries share (``namespace``, ``pod``, ``deployment``),
whatever the exporters and the scrape call them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from powercap_planner.config import PrometheusLabels

GPU_WATTS_LIMIT = 2000
"""No GPU draws more than this, W: a larger value is a sentinel."""
POD_HOST_WATTS_LIMIT = 5000
NODE_HOST_WATTS_LIMIT = 20000
MOMENTS = 10
"""Moments of a window at which sums are taken."""
LEAST_MOMENTS = 4
LEAST_MOMENT_SECONDS = 15
"""Exporters are scraped about this often: closer moments tell nothing more, s."""
MAXIMUM_STEP_SECONDS = 3600
"""Maxima are looked for in the past this often, s."""
MEMORY_STEP_SECONDS = 900
"""Devices that have been silent for over an hour are looked for this often, s."""


GPU_WATTS = "DCGM_FI_DEV_POWER_USAGE"
RUNNING_REQUESTS = "vllm:num_requests_running"


class KeplerFlavour(enum.StrEnum):
    """The two incompatible products that share the name Kepler."""

    REWRITE = "kepler >= 0.10"
    LEGACY = "kepler <= 0.9"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One named expression."""

    name: str
    promql: str
    unit: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expressions:
    """The building blocks for one cluster, Kepler flavour and averaging window."""

    window_seconds: int
    flavour: KeplerFlavour
    labels: PrometheusLabels
    rate_seconds: int = 120
    """Window of rates that are taken at each moment of ``over_window``, s."""
    remember_seconds: int = 86400
    """A device that falls silent is expected for so long, s."""
    remember_maximum_seconds: int = 2_592_000
    """The highest maximum of an autoscaler counts for so long, s."""

    @property
    def window(self) -> str:
        """The window as PromQL writes it."""
        return f"{self.window_seconds}s"

    @property
    def moments(self) -> str:
        """The window as a subquery: about ten moments, at absolute times, the same for all."""
        apart = max(LEAST_MOMENT_SECONDS, self.window_seconds // MOMENTS)
        # Never so far apart that a short window holds none.
        apart = max(1, min(apart, self.window_seconds // LEAST_MOMENTS))
        return f"[{self.window_seconds}s:{apart}s]"

    @property
    def memory(self) -> str:
        """The time that devices are remembered, as a subquery."""
        return f"[{self.remember_seconds}s:{MEMORY_STEP_SECONDS}s]"

    @property
    def maximum_memory(self) -> str:
        """The time that maxima are remembered, as a subquery."""
        return f"[{self.remember_maximum_seconds}s:{MAXIMUM_STEP_SECONDS}s]"

    def over_window(self, expression: str) -> str:
        """Return the mean of an expression over the window's moments; absent counts as nothing.

        Pods come and go within a window, and their GPUs change hands. Sums taken at the same
        moments and then averaged agree with each other; means of single series do not: they
        stop at another time, and a join at the window's end would lose whoever has left.
        """
        ticks = f"scalar(count_over_time(vector(1){self.moments}))"
        return f"sum_over_time(({expression}){self.moments}) / {ticks}"

    def owner(self) -> str:
        """Return {namespace, pod, deployment} = 1, deduplicated over kube-state-metrics' copies."""
        return self._owner(
            'kube_pod_owner{owner_kind="ReplicaSet"}',
            'kube_replicaset_owner{owner_kind="Deployment"}',
        )

    def owner_in_window(self) -> str:
        """Return the same for every pod of the window, gone ones too."""
        return self._owner(
            f'max_over_time(kube_pod_owner{{owner_kind="ReplicaSet"}}[{self.window}])',
            f'max_over_time(kube_replicaset_owner{{owner_kind="Deployment"}}[{self.window}])',
        )

    def _owner(self, pod_owner: str, set_owner: str) -> str:
        space, pod = self.labels.kube_namespace, self.labels.kube_pod
        pods = (
            f"label_replace(max by ({space}, {pod}, owner_name) ({pod_owner}), "
            '"replicaset", "$1", "owner_name", "(.*)")'
        )
        sets = (
            f"label_replace(max by ({space}, replicaset, owner_name) ({set_owner}), "
            '"deployment", "$1", "owner_name", "(.*)")'
        )
        joined = f"{pods} * on ({space}, replicaset) group_left (deployment) {sets}"
        folded = renamed(joined, namespace=space, pod=pod)
        return f"max by (namespace, pod, deployment) ({folded})"

    def by_deployment(self, aggregate: str, by_pod: str) -> str:
        """Join a (namespace, pod) expression to deployments and aggregate."""
        return (
            f"{aggregate} by (namespace, deployment) (({by_pod}) * on (namespace, pod) "
            f"group_left (deployment) ({self.owner()}))"
        )

    def kube(self, metric: str) -> str:
        """Return a kube-state-metrics series by (namespace, pod), its copies deduplicated."""
        labels = self.labels
        folded = renamed(metric, namespace=labels.kube_namespace, pod=labels.kube_pod)
        return f"max by (namespace, pod) ({folded})"

    def kube_deployment(self, metric: str) -> str:
        """Return a kube-state-metrics series by (namespace, deployment)."""
        folded = renamed(metric, namespace=self.labels.kube_namespace)
        return f"max by (namespace, deployment) ({folded})"

    def gpu_requests(self) -> str:
        """GPUs requested by pod."""
        selector = f'kube_pod_container_resource_requests{{resource="{self.labels.gpu_resource}"}}'
        labels = self.labels
        folded = renamed(selector, namespace=labels.kube_namespace, pod=labels.kube_pod)
        return f"sum by (namespace, pod) (max by (namespace, pod, container) ({folded}))"

    def gpu_of_pods(self) -> str:
        """Watts now by {UUID, model, namespace, pod}, whichever labels name the pod."""
        return self.gpu_by_pod(gpu_now, self.labels.gpu_uuid, self.labels.gpu_model)

    def gpu_devices(self, *keep: str) -> str:
        """Watts now of each device, once, whoever holds it."""
        return f"max by ({', '.join((self.labels.gpu_uuid, *keep))}) ({gpu_now(GPU_WATTS)})"

    def gpu_devices_mean(self) -> str:
        """Return the mean of each device over the window's moments at which it was measured."""
        # Not of each series: a device has another one when a pod takes or leaves it.
        return f"avg_over_time(({self.gpu_devices()}){self.moments})"

    def gpu_devices_by_node(self) -> str:
        """Watts now of each device with the node it is on."""
        return f"max by ({self.labels.gpu_uuid}, node) ({_on_node(gpu_now(GPU_WATTS))})"

    def gpu_lately(self, *keep: str) -> str:
        """Return the most watts of each device in the last hour, unless its node is gone."""
        return self._not_gone(f"max_over_time({GPU_WATTS}[1h])", "[1h]", *keep)

    def gpu_long_silent(self, *keep: str) -> str:
        """Return the same of devices that are remembered and were not seen in the last hour."""
        # A day of all series is slow to read: asked apart, and not each time.
        longer = self._not_gone(f"max_over_time({GPU_WATTS}{self.memory})", self.memory, *keep)
        return f"{longer} unless on ({self.labels.gpu_uuid}) max_over_time({GPU_WATTS}[1h])"

    def _not_gone(self, of_devices: str, span: str, *keep: str) -> str:
        labels = ", ".join((self.labels.gpu_uuid, *keep))
        gone = self.gone_nodes(span)
        return f"max by ({labels}) ({_on_node(of_devices)} unless on (node) ({gone}))"

    def nodes(self) -> str:
        """Return {node} = 1 for each node of Kubernetes."""
        return f"max by (node) ({renamed('kube_node_info', node=self.labels.kube_node)})"

    def gone_nodes(self, span: str) -> str:
        """Return the nodes that kube-state-metrics knew and no longer knows, while it answers."""
        before = renamed(f"max_over_time(kube_node_info{span})", node=self.labels.kube_node)
        return (
            f"max by (node) ({before}) unless on (node) {self.nodes()} "
            "and on () count(kube_node_info)"
        )

    def node_gpus(self) -> str:
        """GPUs that Kubernetes counts by node, healthy or not."""
        selector = (
            '{__name__=~"kube_node_status_(capacity|allocatable)",'
            f'resource="{self.labels.gpu_resource}"}}'
        )
        return f"max by (node) ({renamed(selector, node=self.labels.kube_node)}) > 0"

    def gpu_by_pod(self, of_metric: Callable[[str], str], *keep: str) -> str:
        """Return an expression of the GPU metric by (namespace, pod) and the labels to keep."""
        # Without honorLabels the workload is in exported_pod, and pod names the exporter: that
        # one requests no GPU and is in no ReplicaSet, so the joins drop it.
        exported = renamed(
            of_metric(f'{GPU_WATTS}{{exported_pod!=""}}'),
            namespace="exported_namespace",
            pod="exported_pod",
        )
        plain = of_metric(f'{GPU_WATTS}{{exported_pod="",pod!=""}}')
        return f"max by ({', '.join(keep)}, namespace, pod) ({exported} or {plain})"

    def pod_host(self) -> str:
        """Active host watts now by (namespace, pod)."""
        if self.flavour is KeplerFlavour.LEGACY:
            by_container = (
                "max by (container_namespace, pod_name, container_name, container_id) (rate("
                f'kepler_container_package_joules_total{{mode="dynamic"}}[{self.rate_seconds}s]))'
            )
            by_pod = renamed(
                f"sum by (container_namespace, pod_name) ({by_container})",
                namespace="container_namespace",
                pod="pod_name",
            )
        else:
            # state: a terminated pod is exported once more with its last watts.
            by_pod = renamed(
                f'kepler_pod_cpu_watts{{zone="{self.labels.kepler_zone}",state="running"}}',
                namespace="pod_namespace",
                pod="pod_name",
            )
        return in_range(f"max by (namespace, pod) ({by_pod})", POD_HOST_WATTS_LIMIT)

    def node_metric(self) -> str:
        """Return the selector of the hosts' watts."""
        if self.flavour is KeplerFlavour.LEGACY:
            return "kepler_node_package_joules_total"
        return f'kepler_node_cpu_watts{{zone="{self.labels.kepler_zone}"}}'

    def node_host(self, *, idle: bool) -> str:
        """Host watts by node; the total is active and idle."""
        if self.flavour is KeplerFlavour.LEGACY:
            selector = '{mode="idle"}' if idle else ""
            of_part = f"rate(kepler_node_package_joules_total{selector}[{self.window}])"
        else:
            metric = "kepler_node_cpu_idle_watts" if idle else "kepler_node_cpu_watts"
            zone = f'{{zone="{self.labels.kepler_zone}"}}'
            of_part = f"avg_over_time({metric}{zone}[{self.window}])"
        return self._summed_by_node(of_part)

    def node_host_lately(self) -> str:
        """Return the most watts of each host in the last hour, unless its node is gone."""
        span = "[1h:1m]" if self.flavour is KeplerFlavour.LEGACY else "[1h]"
        return f"({self._most_by_node(span)} unless on (node) ({self.gone_nodes('[1h]')}))"

    def node_host_long_silent(self) -> str:
        """Return the same of hosts that are remembered and were not seen in the last hour."""
        span = "[1h:1m]" if self.flavour is KeplerFlavour.LEGACY else "[1h]"
        return (
            f"{self._most_by_node(self.memory)} unless on (node) {self._most_by_node(span)} "
            f"unless on (node) ({self.gone_nodes(self.memory)})"
        )

    def _most_by_node(self, span: str) -> str:
        of_part = self.node_metric()
        if self.flavour is KeplerFlavour.LEGACY:
            of_part = f"rate({of_part}[{self.rate_seconds}s])"
        return self._summed_by_node(f"max_over_time({of_part}{span})")

    def node_host_stamp(self) -> str:
        """Return the time of each host's latest sample by node."""
        return f"max by (node) ({self._on_kepler_node(f'timestamp({self.node_metric()})')})"

    def _summed_by_node(self, of_part: str) -> str:
        is_legacy = self.flavour is KeplerFlavour.LEGACY
        node = "instance, exported_instance" if is_legacy else "node_name"
        parts = "package, mode" if is_legacy else "path"
        total = f"sum by ({node}) (max by ({node}, {parts}) ({of_part}))"
        return in_range(f"max by (node) ({self._on_kepler_node(total)})", NODE_HOST_WATTS_LIMIT)

    def _on_kepler_node(self, expression: str) -> str:
        if self.flavour is not KeplerFlavour.LEGACY:
            return renamed(expression, node="node_name")
        # Kepler's own label wins over the scraped address, whose port is cut off.
        by_address = _copied(expression, "node", "instance", "(.*?)(:[0-9]+)?")
        return _copied(by_address, "node", "exported_instance", "(.+)")

    def serving_fold(self, expression: str) -> str:
        """Rename the labels that name the pod of an inference server."""
        labels = self.labels
        return renamed(expression, namespace=labels.serving_namespace, pod=labels.serving_pod)

    def served_in_window(self, counter: str, *more: str) -> str:
        """Return the rate of a counter over the window by deployment, of gone pods too."""
        rate = f"rate({counter}[{self.window}])"
        return self.serving_by_deployment(rate, *more, owner=self.owner_in_window())

    def serving_by_deployment(self, expression: str, *more: str, owner: str = "") -> str:
        """Sum an expression of the inference servers by deployment."""
        extra = "".join(f", {label}" for label in more)
        by_pod = f"sum by (namespace, pod{extra}) ({self.serving_fold(expression)})"
        return (
            f"sum by (namespace, deployment{extra}) ({by_pod} * on (namespace, pod) "
            f"group_left (deployment) ({owner or self.owner()}))"
        )


def gpu_now(metric: str) -> str:
    """Return the possible values of a GPU watts selector: a sentinel drops out."""
    return in_range(metric, GPU_WATTS_LIMIT)


def in_range(expression: str, limit_watts: int) -> str:
    """Keep the values from 0 to a limit; NaN is in no range."""
    return f"({expression} >= 0 <= {limit_watts})"


def renamed(expression: str, **names: str) -> str:
    """Copy labels to the names all queries share."""
    for target, label in names.items():
        if label != target:
            expression = f'label_replace({expression}, "{target}", "$1", "{label}", "(.*)")'
    return expression


def _on_node(devices: str) -> str:
    """Copy dcgm-exporter's host name; the label's case changed after 4.5.3."""
    return _copied(_copied(devices, "node", "Hostname", "(.+)"), "node", "hostname", "(.+)")


def _copied(expression: str, target: str, label: str, pattern: str) -> str:
    return f'label_replace({expression}, "{target}", "$1", "{label}", "{pattern}")'
