"""The live metrics source: Prometheus with dcgm-exporter, Kepler, kube-state-metrics and vLLM.

One evaluation time per observation. A sum whose parts are not all measured is missing (NaN), a
metric that does not exist is named in a finding, and neither is ever read as 0.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace

from powercap_planner.config import PrometheusConfig
from powercap_planner.errors import DataMissingError
from powercap_planner.observations import ClusterObservation, Finding, Reading
from powercap_planner.sources import queries
from powercap_planner.sources.history import History
from powercap_planner.sources.meter_queries import cluster_queries, meter_queries
from powercap_planner.sources.prometheus_api import PrometheusApi, Series
from powercap_planner.sources.promql import GPU_WATTS, Expressions, KeplerFlavour, Query
from powercap_planner.sources.snapshot import Snapshot, scalar

_INSTANT = frozenset(
    {
        "gpu_sample_time",
        "min_replicas",
        "max_replicas",
        "gpu_count",
        "gpu_nodes",
        "gpu_values_dropped",
        "gpus_shared",
    }
)
"""Asked at the end of the history only; the others over its whole length."""


class PrometheusMetricsSource:
    """Observes one cluster through its Prometheus.

    Args:
        config: address, limits and label names.
    """

    def __init__(self, config: PrometheusConfig) -> None:
        self._config = config
        # Two connections: a slow history must not delay the measured watts.
        self._history_api = PrometheusApi(config)
        self._meter_api = PrometheusApi(config)
        self._meter_lock = threading.Lock()

    @property
    def name(self) -> str:
        """``prometheus``."""
        return "prometheus"

    def close(self) -> None:
        """Close the connections."""
        self._history_api.close()
        self._meter_api.close()

    def observe(
        self, *, now_seconds: float, history_seconds: float, step_seconds: float
    ) -> ClusterObservation:
        """Return the history that ends now.

        Raises:
            SourceError: Prometheus cannot be reached or refuses a query.
            DataMissingError: an exporter without which nothing can be planned is not scraped.
        """
        now, step = math.floor(now_seconds), round(step_seconds)
        length = math.floor(history_seconds / step)
        api = self._history_api
        names = _metric_names(api.instant(queries.inventory().promql, at_seconds=now))
        flavour = queries.flavour_of(names)
        findings = [*self._missing(names, flavour)]
        make = Expressions(
            window_seconds=max(step, math.ceil(self._config.rate_window_seconds)),
            flavour=flavour,
            labels=self._config.labels,
            rate_seconds=math.ceil(self._config.rate_window_seconds),
        )
        # One step more at the front: the growth of the queue needs what was before.
        history = History(start_seconds=now - step * length, step_seconds=step, length=length + 1)
        instants: dict[str, tuple[Series, ...]] = {}
        for query in (*queries.workload_queries(make), *cluster_queries(make)):
            if query.name in _INSTANT:
                instants[query.name] = api.instant(query.promql, at_seconds=now)
            else:
                answer = api.range(
                    query.promql,
                    start_seconds=history.start_seconds,
                    end_seconds=now,
                    step_seconds=step,
                )
                history.add(query.name, answer)
        snapshot = Snapshot(
            config=self._config, flavour=flavour, now=now, history=history, instants=instants
        )
        measured = self.measure(now_seconds=now, window_seconds=self._config.power_window_seconds)
        observation = snapshot.observation(measured=measured)
        findings += snapshot.findings
        findings += [
            Finding(reason="PartialAnswer", message=f"Prometheus warns: {warning}")
            for warning in api.take_warnings()
        ]
        return replace(observation, findings=tuple(findings))

    def measure(self, *, now_seconds: float, window_seconds: float) -> Reading | None:
        """Return the watts of all GPUs and hosts, mean over the window; None if not measured.

        A device that fell silent counts with the most it drew in the last hour, and the
        reading's source says so. The reading is as old as its oldest part.

        Raises:
            SourceError: Prometheus cannot be reached or refuses a query.
        """
        with self._meter_lock:
            api, at = self._meter_api, now_seconds
            flavour = queries.flavour_of(
                _metric_names(api.instant(queries.inventory().promql, at_seconds=at))
            )
            make = Expressions(
                window_seconds=math.ceil(max(window_seconds, self._config.power_window_seconds)),
                flavour=flavour,
                labels=self._config.labels,
            )
            values = {
                query.name: scalar(api.instant(query.promql, at_seconds=at))
                for query in (*meter_queries(make), *_nodes_query(make))
            }
        return _reading(values, flavour=flavour, config=self._config)

    def _missing(self, names: set[str], flavour: KeplerFlavour) -> list[Finding]:
        """Return a finding for each absent metric; raise for those that nothing replaces."""
        for needed in (GPU_WATTS, "kube_pod_owner", "kube_replicaset_owner"):
            if needed not in names:
                raise DataMissingError(
                    f"Prometheus has no {needed} ({queries.REQUIRED_METRICS[needed]}): is the "
                    "exporter running and scraped?"
                )
        findings = [
            Finding(reason="MetricMissing", message=f"Prometheus has no {name} ({purpose}).")
            for name, purpose in queries.REQUIRED_METRICS.items()
            if name not in names
        ]
        if flavour is KeplerFlavour.NONE:
            watts = self._config.assumed_host_watts_per_node
            if watts is None:
                raise DataMissingError(
                    "Prometheus has no host watts from Kepler (neither kepler_node_cpu_watts of "
                    ">= 0.10 nor kepler_node_package_joules_total of <= 0.9); scrape Kepler, or "
                    "state prometheus.assumed_host_watts_per_node"
                )
            findings.append(
                Finding(
                    reason="HostPowerAssumed",
                    message=f"No Kepler: {watts:g} W are assumed for each host with GPUs.",
                )
            )
        return findings


def _nodes_query(make: Expressions) -> tuple[Query, ...]:
    return tuple(query for query in cluster_queries(make) if query.name == "gpu_nodes")


def _reading(
    values: dict[str, float | None], *, flavour: KeplerFlavour, config: PrometheusConfig
) -> Reading | None:
    gpu, measured_at = values["gpu_total_watts"], values["oldest_gpu_sample"]
    if gpu is None or measured_at is None or values["gpus_valued"] != values["gpus_known"]:
        return None
    silent = round((values["gpus_known"] or 0) - (values["gpus_measured_now"] or 0))
    notes = [f"{silent} silent GPUs at their hour's maximum"] if silent else []
    if flavour is KeplerFlavour.NONE:
        nodes = values["gpu_nodes"]
        if config.assumed_host_watts_per_node is None or nodes is None:
            return None
        host, source = config.assumed_host_watts_per_node * nodes, "dcgm+assumed hosts"
    else:
        measured, host_at = values["host_total_watts"], values["oldest_host_sample"]
        if measured is None or host_at is None:
            return None
        host, source = measured, "dcgm+kepler"
        measured_at = min(measured_at, host_at)
        silent = round((values["hosts_valued"] or 0) - (values["hosts_measured_now"] or 0))
        if silent:
            notes.append(f"{silent} silent hosts at their hour's maximum")
    return Reading(
        power_watts=gpu + host,
        measured_at_seconds=measured_at,
        source=f"{source} ({', '.join(notes)})" if notes else source,
    )


def _metric_names(series: tuple[Series, ...]) -> set[str]:
    return {one.labels["__name__"] for one in series if "__name__" in one.labels}
