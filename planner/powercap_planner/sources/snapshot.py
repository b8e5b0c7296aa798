"""From the answers of one cycle to an observation: what may be used, and what is missing."""

from __future__ import annotations

import math

import numpy as np

from powercap_planner.config import PrometheusConfig
from powercap_planner.errors import DataMissingError
from powercap_planner.observations import (
    ClusterObservation,
    DeploymentObservation,
    Finding,
    FloatArray,
)
from powercap_planner.sources.devices import (
    ASSUMED_HOST_WATTS,
    UNREPORTED_GPU,
    Devices,
    short_name,
)
from powercap_planner.sources.history import (
    WORKLOAD,
    History,
    Key,
    filled_forward,
    last_finite,
    median_finite,
    most_in_trailing,
    where_complete,
    where_nearly_complete,
)
from powercap_planner.sources.prometheus_api import Series
from powercap_planner.sources.promql import GPU_WATTS_LIMIT, KeplerFlavour

NODE = ("node",)


class Snapshot:
    """Turns the answers of one cycle into an observation, collecting findings.

    Args:
        config: limits and label names.
        flavour: which Kepler the host watts came from.
        now: the evaluation time, Unix s.
        history: the range answers, one window longer at the front than the observation.
        instants: the answers at the evaluation time, by query name.
        existing: which GPUs and hosts exist.
    """

    def __init__(
        self,
        *,
        config: PrometheusConfig,
        flavour: KeplerFlavour,
        now: int,
        history: History,
        instants: dict[str, tuple[Series, ...]],
        existing: Devices,
    ) -> None:
        self._config = config
        self._flavour = flavour
        self._now = now
        self._history = history
        self._instants = instants
        self._existing = existing
        self.findings: list[Finding] = history.findings

    def observation(self) -> ClusterObservation:
        """Return the observation without a reading of now; its findings are in ``findings``.

        Raises:
            DataMissingError: the hosts' idle watts are not measured.
        """
        history = self._history
        keys: set[Key] = set()
        for name in ("gpus_per_replica", "gpu_watts", "served_tps"):
            keys |= history.keys(name)
        deployments = tuple(self._deployment(key) for key in sorted(keys))
        self._report_counts()
        model = self._config.labels.gpu_model
        gpu_count = {
            one.labels.get(model, ""): round(one.points[0][1])
            for one in self._instants["gpu_count"]
        }
        parked = {
            key[0]: watts
            for key in sorted(history.keys("parked_gpu_watts", (model,)))
            if (watts := median_finite(history.of("parked_gpu_watts", key, (model,)))) is not None
        }
        existing = self._existing
        for one in existing.silent_gpus:
            name = one.labels.get(model, "")
            gpu_count[name] = gpu_count.get(name, 0) + 1
        if existing.unreported_count:
            gpu_count[UNREPORTED_GPU] = existing.unreported_count
        return ClusterObservation(
            time_seconds=history.time_seconds[1:],
            step_seconds=float(history.step_seconds),
            deployments=deployments,
            gpu_count=gpu_count,
            parked_gpu_watts=parked,
            host_idle_watts=self._host_idle_watts(),
            total_watts=self._total_watts()[1:],
            measured=None,
        )

    def _deployment(self, key: Key) -> DeploymentObservation:
        namespace, name = key
        history = self._history
        present_at_end = _present(history, key)
        ready_at_end = history.of("ready_replicas", key)
        present = _over_window(history.of("mean_pods", key), at_end=present_at_end)
        ready = _over_window(history.of("mean_ready_replicas", key), at_end=ready_at_end)
        # What exists now is what may draw next, whatever the window's mean.
        present[-1] = np.fmax(present[-1], present_at_end[-1])
        served, arrived, running, waiting = self._serving(key, ready=ready_at_end, present=present)
        return DeploymentObservation(
            namespace=namespace,
            name=name,
            gpu_type=self._gpu_type(key),
            gpus_per_replica=_whole(last_finite(history.of("gpus_per_replica", key))),
            power_watts=self._power(key, ready=ready, present=present)[1:],
            ready_replicas=ready[1:],
            present_replicas=present[1:],
            arrived_tps=arrived[1:],
            served_tps=served[1:],
            running_requests=running[1:],
            waiting_requests=waiting[1:],
            ttft_p95_seconds=history.of("ttft_p95_seconds", key)[1:],
            itl_p95_seconds=history.of("itl_p95_seconds", key)[1:],
            min_replicas=self._whole_now("min_replicas", key),
            max_replicas=self._highest_maximum(key),
        )

    def _power(self, key: Key, *, ready: FloatArray, present: FloatArray) -> FloatArray:
        history = self._history
        power = where_nearly_complete(
            history.of("gpu_watts", key),
            parts=history.of("gpus_measured", key),
            expected=history.of("gpus_running", key),
        )
        if self._flavour is not KeplerFlavour.NONE:
            power = power + where_nearly_complete(
                history.of("host_watts", key), parts=history.of("host_pods", key), expected=ready
            )
        # Nothing exists, so nothing is drawn: kube-state-metrics measured that.
        power = np.where(present == 0, 0.0, power)
        deployment = "/".join(key)
        taken_at = _value_of(self._instants["gpu_sample_time"], key)
        age = math.inf if taken_at is None else self._now - taken_at
        if present[-1] > 0 and age > self._config.stale_after_seconds:
            power[-1] = np.nan
            text = "no power sample" if math.isinf(age) else f"power last sampled {age:.0f} s ago"
            self._find("PowerStale", f"{deployment}: {text}.", deployment)
        elif present[-1] > 0 and math.isnan(power[-1]):
            message = (
                f"{deployment}: watts of {_shown(history.of('gpus_measured', key))} of "
                f"{_shown(history.of('gpus_running', key))} GPUs and of "
                f"{_shown(history.of('host_pods', key))} of {_shown(ready)} pods' hosts are "
                "measured; a part is not taken for the whole."
            )
            self._find("PowerIncomplete", message, deployment)
        return power

    def _serving(
        self, key: Key, *, ready: FloatArray, present: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return served and arrived tokens/s, running and waiting requests."""
        history = self._history
        pods = history.of("serving_pods", key)

        def complete(name: str) -> FloatArray:
            return where_complete(history.of(name, key), parts=pods, expected=ready)

        served = complete("served_tps")
        finished = complete("finished_rps")
        in_system = complete("requests_in_system")
        growth = np.diff(in_system, prepend=np.nan) / history.step_seconds
        # Under a cap completions hide demand; what queues up was asked for too.
        arrived_rps = np.maximum(finished + growth, 0.0)
        arrived = arrived_rps * self._tokens_per_request(key, served=served, finished=finished)
        arrived = np.where(arrived_rps == 0, 0.0, arrived)
        served = np.where(present == 0, 0.0, served)
        if ready[-1] > 0 and math.isnan(arrived[-1]):
            deployment = "/".join(key)
            message = (
                f"{deployment}: {_shown(pods)} of {_shown(ready)} ready pods report requests and "
                "tokens; the load is not known."
            )
            self._find("LoadIncomplete", message, deployment)
        return served, arrived, complete("running_requests"), complete("waiting_requests")

    def _tokens_per_request(
        self, key: Key, *, served: FloatArray, finished: FloatArray
    ) -> FloatArray:
        by_histogram = self._history.of("tokens_per_request", key)
        with np.errstate(divide="ignore", invalid="ignore"):
            by_counters = np.where(finished > 0, served / finished, np.nan)
        return filled_forward(np.where(np.isfinite(by_histogram), by_histogram, by_counters))

    def _gpu_type(self, key: Key) -> str | None:
        labels = (*WORKLOAD, self._config.labels.gpu_model)
        newest: list[tuple[int, float, str]] = []
        for full in sorted(self._history.keys("gpu_types", labels)):
            if full[:2] == key and full[2]:
                counts = self._history.of("gpu_types", full, labels)
                last = int(np.flatnonzero(np.isfinite(counts))[-1])
                newest.append((last, float(counts[last]), full[2]))
        if not newest:
            return None
        at_end = sorted({kind for last, _, kind in newest if last == max(newest)[0]})
        if len(at_end) > 1:
            deployment = "/".join(key)
            message = f"{deployment}: runs on {', '.join(at_end)}; planned as the most frequent."
            self._find("GpuTypesMixed", message, deployment)
        return max(newest)[2]

    def _whole_now(self, name: str, key: Key) -> int | None:
        return _whole(_value_of(self._instants[name], key))

    def _highest_maximum(self, key: Key) -> int | None:
        seen = self._history.of("max_replicas", key)
        longer = _value_of(self._instants["highest_max_replicas"], key)
        seen = np.append(seen, np.nan if longer is None else longer)
        return round(np.nanmax(seen)) if np.isfinite(seen).any() else None

    def _host_idle_watts(self) -> float:
        if self._flavour is KeplerFlavour.NONE:
            return self._assumed_hosts_watts()
        reporting = self._parts("hosts_reporting")
        idle = median_finite(
            where_complete(
                self._history.total("host_idle_watts"),
                parts=reporting,
                expected=self._expected("hosts_reporting"),
            )
        )
        if idle is None:
            raise DataMissingError(
                "Kepler is scraped, but gives no idle watts of the hosts "
                '(kepler_node_cpu_idle_watts, or kepler_node_package_joules_total{mode="idle"})'
            )
        return idle + self._assumed_hosts_watts()

    def _assumed_hosts_watts(self) -> float:
        return len(self._existing.hosts_without_kepler) * assumed_host_watts(self._config)

    def _total_watts(self) -> FloatArray:
        history = self._history
        # What nobody measures counts at what it can draw: a total without it would be too small.
        unseen = self._existing.unreported_count * GPU_WATTS_LIMIT + self._assumed_hosts_watts()
        total = np.full(history.length, float(unseen))
        for watts, count in (
            ("gpu_watts_all", "gpus_reporting"),
            ("host_watts_all", "hosts_reporting"),
        ):
            if watts == "host_watts_all" and self._flavour is KeplerFlavour.NONE:
                continue
            total += where_complete(
                history.total(watts), parts=self._parts(count), expected=self._expected(count)
            )
        return total

    def _parts(self, count: str) -> FloatArray:
        """Return the parts that report in each window, NaN where none does."""
        nodes = [self._history.of(count, key, NODE) for key in self._nodes(count)]
        if not nodes:
            return np.full(self._history.length, np.nan)
        stacked = np.array(nodes)
        reporting: FloatArray = np.nan_to_num(stacked).sum(axis=0)
        return np.where(np.isfinite(stacked).any(axis=0), reporting, np.nan)

    def _expected(self, count: str) -> FloatArray:
        """Return the parts there must be: the most lately, of nodes that still exist."""
        history = self._history
        windows = max(1, math.ceil(self._config.remember_seconds / history.step_seconds))
        exists = {
            short_name(key[0]): np.isfinite(history.of("nodes", key, NODE))
            for key in history.keys("nodes", NODE)
        }
        # While kube-state-metrics says nothing of any node, none is known to be gone.
        is_answered = np.any([*exists.values(), np.zeros(history.length, dtype=np.bool_)], axis=0)
        always = np.ones(history.length, dtype=np.bool_)
        expected = np.zeros(history.length)
        for key in self._nodes(count):
            parts = history.of(count, key, NODE)
            most = np.maximum(most_in_trailing(parts, windows=min(windows, history.length)), 0.0)
            is_gone = is_answered & ~exists.get(short_name(key[0]), always)
            expected += np.where(is_gone, np.nan_to_num(parts), most)
        return expected

    def _nodes(self, count: str) -> list[Key]:
        return sorted(self._history.keys(count, NODE))

    def _report_counts(self) -> None:
        if dropped := scalar(self._instants["gpu_values_dropped"]):
            self._find(
                "GpuValueDropped",
                f"{dropped:.0f} GPUs report watts that cannot be (NaN, negative or a sentinel).",
            )
        if shared := scalar(self._instants["gpus_shared"]):
            self._find(
                "GpuShared",
                f"{shared:.0f} GPUs are held by several pods; each pod is charged all of it.",
            )
        existing = self._existing
        if existing.unreported_count:
            self._find(
                "GpuUnreported",
                f"Kubernetes counts {existing.unreported_count} GPUs that dcgm-exporter does not "
                f"report ({existing.unreported_text}): planned with {GPU_WATTS_LIMIT} W each.",
            )
        if existing.hosts_without_kepler and self._flavour is not KeplerFlavour.NONE:
            self.findings.append(
                existing.host_finding(watts_per_host=assumed_host_watts(self._config))
            )

    def _find(self, reason: str, message: str, deployment: str = "") -> None:
        self.findings.append(Finding(reason=reason, message=message, deployment=deployment))


def _present(history: History, key: Key) -> FloatArray:
    """Return replicas that exist: the larger of what the status says and of the pods there are."""
    status = history.of("status_replicas", key)
    terminating = np.nan_to_num(history.of("terminating_replicas", key), nan=0.0)
    present: FloatArray = np.fmax(status + terminating, history.of("pods", key))
    return present


def _over_window(mean: FloatArray, *, at_end: FloatArray) -> FloatArray:
    """Return the window's mean where there is one, else what was at its end."""
    chosen: FloatArray = np.where(np.isfinite(mean), mean, at_end)
    return chosen


def assumed_host_watts(config: PrometheusConfig) -> float:
    """Return the watts charged for a host with GPUs that Kepler does not report."""
    stated = config.assumed_host_watts_per_node
    return ASSUMED_HOST_WATTS if stated is None else stated


def scalar(series: tuple[Series, ...]) -> float | None:
    """Return the finite value of an answer of one series."""
    if not series:
        return None
    value = series[0].points[0][1]
    return value if math.isfinite(value) else None


def _value_of(series: tuple[Series, ...], key: Key) -> float | None:
    for one in series:
        if tuple(one.labels.get(label, "") for label in WORKLOAD) == key:
            value = one.points[0][1]
            return value if math.isfinite(value) else None
    return None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _shown(values: FloatArray) -> str:
    return "0" if math.isnan(values[-1]) else f"{values[-1]:g}"
