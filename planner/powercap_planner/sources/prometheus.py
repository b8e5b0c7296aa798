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
from powercap_planner.sources import devices, queries
from powercap_planner.sources.history import History
from powercap_planner.sources.meter_queries import (
    cluster_queries,
    device_queries,
    meter_queries,
)
from powercap_planner.sources.prometheus_api import PrometheusApi, Series
from powercap_planner.sources.promql import GPU_WATTS, Expressions, KeplerFlavour
from powercap_planner.sources.snapshot import Snapshot, assumed_host_watts, scalar

_INSTANT = frozenset(
    {
        "gpu_sample_time",
        "min_replicas",
        "highest_max_replicas",
        "gpu_count",
        "gpu_values_dropped",
        "gpus_shared",
    }
)
"""Asked at the end of the history only; the others over its whole length."""


_DEVICES_SECONDS = 60.0
"""Which devices exist is asked again this often, s."""


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
        self._known_devices: tuple[float, devices.Devices] | None = None

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
            remember_seconds=math.ceil(self._config.remember_seconds),
            remember_maximum_seconds=math.ceil(self._config.remember_maximum_seconds),
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
            config=self._config,
            flavour=flavour,
            now=now,
            history=history,
            instants=instants,
            existing=self._existing(api, make, at_seconds=now),
        )
        observation = snapshot.observation()
        try:
            seconds = self._config.power_window_seconds
            observation = replace(
                observation, measured=self.measure(now_seconds=now, window_seconds=seconds)
            )
        except DataMissingError as error:
            findings.append(Finding(reason="PowerUnmeasured", message=f"{error}."))
        findings += snapshot.findings
        findings += [
            Finding(reason="PartialAnswer", message=f"Prometheus warns: {warning}")
            for warning in api.take_warnings()
        ]
        return replace(observation, findings=tuple(findings))

    def measure(self, *, now_seconds: float, window_seconds: float) -> Reading | None:
        """Return the watts of all GPUs and hosts, mean over the window; None if nothing is.

        A device that fell silent counts with the most it drew before, a host with GPUs that
        Kepler does not report with the watts assumed for it, and the reading's source says so.
        The reading is as old as its oldest part.

        Raises:
            SourceError: Prometheus cannot be reached or refuses a query.
            DataMissingError: a part is not measured, and nothing bounds it; the message names it.
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
                rate_seconds=math.ceil(self._config.rate_window_seconds),
                remember_seconds=math.ceil(self._config.remember_seconds),
            )
            values = {
                query.name: scalar(api.instant(query.promql, at_seconds=at))
                for query in meter_queries(make)
            }
            existing = self._existing(api, make, at_seconds=at)
        return _reading(values, existing=existing, flavour=flavour, config=self._config)

    def _existing(
        self, api: PrometheusApi, make: Expressions, *, at_seconds: float
    ) -> devices.Devices:
        """Return which devices exist, as of a minute ago at most: it takes reading a day."""
        found = self._known_devices
        if found is None or not 0 <= at_seconds - found[0] < _DEVICES_SECONDS:
            existing = devices.compare(
                **{
                    query.name: api.instant(query.promql, at_seconds=at_seconds)
                    for query in device_queries(make)
                }
            )
            found = (at_seconds, existing)
            self._known_devices = found
        return found[1]

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


def _reading(
    values: dict[str, float | None],
    *,
    existing: devices.Devices,
    flavour: KeplerFlavour,
    config: PrometheusConfig,
) -> Reading | None:
    gpu, measured_at = values["gpu_total_watts"], values["oldest_gpu_sample"]
    if not (values["gpus_known"] or existing.silent_gpus):
        return None
    _require_all_gpus(values, existing)
    if gpu is None or measured_at is None:
        raise DataMissingError("no GPU is measured now")
    gpu += math.fsum(existing.silent_gpu_watts)
    silent = round((values["gpus_known"] or 0) - (values["gpus_measured_now"] or 0))
    silent += len(existing.silent_gpus)
    notes = [f"{silent} silent GPUs at the most they drew before"] if silent else []
    without = len(existing.hosts_without_kepler)
    host, source = without * assumed_host_watts(config), "dcgm+assumed hosts"
    if flavour is KeplerFlavour.NONE:
        if config.assumed_host_watts_per_node is None:
            raise DataMissingError(
                "Prometheus has no host watts from Kepler, and "
                "prometheus.assumed_host_watts_per_node is not stated"
            )
    else:
        measured, host_at = values["host_total_watts"], values["oldest_host_sample"]
        if measured is None or host_at is None:
            raise DataMissingError("Kepler's host watts are not measured now")
        host += measured + math.fsum(existing.silent_host_watts)
        source = "dcgm+kepler"
        measured_at = min(measured_at, host_at)
        silent = round((values["hosts_valued"] or 0) - (values["hosts_measured_now"] or 0))
        silent += len(existing.silent_hosts)
        if silent:
            notes.append(f"{silent} silent hosts at the most they drew before")
        if without:
            notes.append(f"{without} hosts without Kepler at {assumed_host_watts(config):g} W")
    return Reading(
        power_watts=gpu + host,
        measured_at_seconds=measured_at,
        source=f"{source} ({', '.join(notes)})" if notes else source,
    )


def _require_all_gpus(values: dict[str, float | None], existing: devices.Devices) -> None:
    """Raise where a GPU that exists has no value: a part is not taken for the whole."""
    known = round(values["gpus_known"] or 0) + len(existing.silent_gpus)
    valued = round(values["gpus_valued"] or 0) + len(existing.silent_gpu_watts)
    if valued != known:
        raise DataMissingError(
            f"watts of {valued} of {known} GPUs are measured; the others report what cannot be"
        )
    if existing.unreported_count:
        raise DataMissingError(
            f"Kubernetes counts {existing.unreported_count} GPUs that dcgm-exporter does not "
            f"report ({existing.unreported_text}): their watts are not measured"
        )


def _metric_names(series: tuple[Series, ...]) -> set[str]:
    return {one.labels["__name__"] for one in series if "__name__" in one.labels}
