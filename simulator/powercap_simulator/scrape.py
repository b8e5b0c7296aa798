"""Scrape targets of the emulated cluster, as a real Prometheus would find and label them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import yaml

from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.errors import ScenarioError
from powercap_simulator.exporters import (
    KeplerVersion,
    dcgm_families,
    kepler_families,
    kepler_legacy_families,
    vllm_families,
)
from powercap_simulator.families import Family, LabelSet
from powercap_simulator.kube_state import kube_state_families
from powercap_simulator.pods import PodState

JOBS = ("dcgm-exporter", "kepler", "kube-state-metrics", "vllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeOptions:
    """How the cluster's exporters are built and scraped."""

    kepler: KeplerVersion = KeplerVersion.REWRITE
    honor_labels: frozenset[str] = frozenset({"kube-state-metrics"})
    """Jobs whose own labels win over the target's. For the others a label that the target has too
    arrives as ``exported_<name>``: DCGM's ``pod`` and ``namespace``, as with its Helm chart."""
    scrape_seconds: float = 15.0

    def __post_init__(self) -> None:
        """Check the interval.

        Raises:
            ScenarioError: when it is not a time above 0.
        """
        if not 0 < self.scrape_seconds < math.inf:
            raise ScenarioError(f"scrape_seconds is {self.scrape_seconds}; accepted: more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One thing to scrape."""

    job: str
    path: str
    labels: dict[str, str] = field(hash=False)
    """Target labels, ``instance`` included, ``job`` apart."""
    read: Callable[[], list[Family]] = field(hash=False)
    """What it exposes now."""
    is_up: bool = True
    """False while its server does not answer."""


def targets(cluster: SimulatedCluster, options: ScrapeOptions) -> list[Target]:
    """Return everything to scrape now; pods come and go."""
    found = []
    kepler = kepler_families if options.kepler is KeplerVersion.REWRITE else kepler_legacy_families
    for index, node in enumerate(cluster.scenario.nodes):
        for job, families, namespace in (
            ("dcgm-exporter", dcgm_families, "gpu-operator"),
            ("kepler", kepler, "kepler"),
        ):
            found.append(
                Target(
                    job=job,
                    path=f"/{job}/{node.name}/metrics",
                    labels={
                        "instance": f"{node.name}:{job}",
                        "namespace": namespace,
                        "pod": f"{job}-{node.name}",
                    },
                    read=partial(families, cluster, node=index),
                )
            )
    found.append(
        Target(
            job="kube-state-metrics",
            path="/kube-state-metrics/metrics",
            labels={
                "instance": "kube-state-metrics:8080",
                "namespace": "monitoring",
                "pod": "kube-state-metrics-0",
            },
            read=partial(kube_state_families, cluster),
        )
    )
    for pod in cluster.pods:
        if pod.state is PodState.UNSCHEDULED:
            continue
        namespace = cluster.scenario.deployments[pod.deployment].namespace
        found.append(
            Target(
                job="vllm",
                path=f"/vllm/{namespace}/{pod.name}/metrics",
                labels={
                    "instance": f"{pod.name}:8000",
                    "namespace": namespace,
                    "pod": pod.name,
                },
                read=partial(vllm_families, cluster, pod=pod),
                is_up=pod.state is not PodState.STARTING,
            )
        )
    return found


def scraped_labels(own: LabelSet, target: Target, *, is_honored: bool) -> LabelSet:
    """Return the labels of a sample after the scrape, sorted by name, empty ones dropped."""
    attached = {"job": target.job, **target.labels}
    merged = dict(attached)
    for name, value in own:
        if name in attached and not is_honored:
            merged[f"exported_{name}"] = value
        else:
            merged[name] = value
    return tuple(sorted((name, value) for name, value in merged.items() if value))


def discovery(
    cluster: SimulatedCluster, options: ScrapeOptions, *, job: str, address: str
) -> list[dict[str, object]]:
    """Return one job's targets in the form of Prometheus' HTTP service discovery."""
    return [
        {
            "targets": [address],
            "labels": {"__metrics_path__": target.path, **target.labels},
        }
        for target in targets(cluster, options)
        if target.job == job
    ]


def scrape_configs(base_url: str, options: ScrapeOptions) -> list[dict[str, object]]:
    """Return Prometheus' ``scrape_configs`` for everything served at ``base_url``, by job."""
    return [
        {
            "job_name": job,
            "honor_labels": job in options.honor_labels,
            "http_sd_configs": [{"url": f"{base_url}/sd/{job}", "refresh_interval": "5s"}],
        }
        for job in JOBS
    ]


def prometheus_config(base_url: str, options: ScrapeOptions) -> str:
    """Return a ``prometheus.yml`` that finds and scrapes everything served at ``base_url``."""
    interval = f"{round(options.scrape_seconds * 1000)}ms"
    config = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": scrape_configs(base_url, options),
    }
    return yaml.safe_dump(config, sort_keys=False)
