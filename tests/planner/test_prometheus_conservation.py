"""Watts and tokens are conserved through Prometheus while pods come and go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus import Prometheus

from powercap_planner.config import PrometheusConfig
from powercap_planner.observations import ClusterObservation
from powercap_planner.sources.prometheus import PrometheusMetricsSource
from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.raw_history import RawHistory
from powercap_simulator.scenario import mixed_scenario

pytestmark = pytest.mark.servers

SPAN_SECONDS = 3600.0
STEP_SECONDS = 300.0
KEY = "chat/assistant-8b"
SEED = 7


@pytest.fixture(scope="module")
def cluster() -> SimulatedCluster:
    return SimulatedCluster(
        mixed_scenario().starting_at(time.time() // 60 * 60 - 2 * SPAN_SECONDS), seed=SEED
    )


@pytest.fixture(scope="module")
def observed(prometheus_binaries: Path, cluster: SimulatedCluster) -> Iterator[ClusterObservation]:
    """Observe an hour in whose middle a cap takes all but one replica of a deployment."""
    history = RawHistory()
    cluster.set_min_replicas(KEY, 4)
    history.run(cluster, seconds=SPAN_SECONDS, scrape_seconds=15.0)
    history.run(cluster, seconds=130.0 + SPAN_SECONDS / 2, scrape_seconds=15.0)
    cluster.set_min_replicas(KEY, 1)
    cluster.set_max_replicas(KEY, 1)
    history.run(cluster, seconds=SPAN_SECONDS / 2 - 130.0, scrape_seconds=15.0)
    with Prometheus(prometheus_binaries) as server:
        history.remote_write(f"{server.url}/api/v1/write")
        source = PrometheusMetricsSource(PrometheusConfig(url=server.url))
        yield source.observe(
            now_seconds=cluster.now_seconds,
            history_seconds=SPAN_SECONDS,
            step_seconds=STEP_SECONDS,
        )
        source.close()


def test_watts_of_a_pod_that_left_are_nobody_elses(
    observed: ClusterObservation, cluster: SimulatedCluster
):
    parked = observed.parked_gpu_watts
    base = observed.host_idle_watts + sum(
        count * parked[name] for name, count in observed.gpu_count.items()
    )
    above_parked = sum(
        one.power_watts - one.present_replicas * one.gpus_per_replica * parked[one.gpu_type]
        for one in observed.deployments
    )

    remainder = observed.total_watts - base - above_parked

    ready = next(one.ready_replicas for one in observed.deployments if one.key == KEY)
    assert ready[0] == 4
    assert ready[-1] == 1, "the cap must have taken replicas within the hour"
    replica_watts = 600.0
    assert np.abs(remainder).max() < 0.15 * replica_watts, remainder


def test_tokens_of_a_pod_that_left_still_count(
    observed: ClusterObservation, cluster: SimulatedCluster
):
    index = cluster.index(KEY)
    times = np.array([record.time_seconds for record in cluster.records])
    tokens = np.array([record.served.served_tokens[index] for record in cluster.records])
    served = tokens / cluster.tick_seconds
    true_tps = np.array(
        [
            served[(times > end - STEP_SECONDS) & (times <= end)].mean()
            for end in observed.time_seconds
        ]
    )

    seen = next(one.served_tps for one in observed.deployments if one.key == KEY)

    assert seen == pytest.approx(true_tps, rel=0.1)
