"""A bare client governs a cluster: what it wrote itself must not hold down what it may write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus import Prometheus

from powercap_planner.config import PrometheusConfig
from powercap_planner.convert import request_from_message
from powercap_planner.curves.fit import fit_models
from powercap_planner.grid.weight import GridConditions
from powercap_planner.planning import make_plan
from powercap_planner.sources.prometheus import PrometheusMetricsSource
from powercap_proto.v1 import planner_pb2 as pb
from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.raw_history import RawHistory
from powercap_simulator.scenario import mixed_scenario

pytestmark = pytest.mark.servers

BEFORE_SECONDS = 5400.0
UNDER_CAP_SECONDS = 2700.0


class BareClient:
    """Knows names and a cap, and writes each answer as the deployment's maximum."""

    def __init__(self, server: Prometheus) -> None:
        start = time.time() // 60 * 60 - 4 * 3600.0
        self.cluster = SimulatedCluster(mixed_scenario().starting_at(start), seed=3)
        self._server = server

    def let_run(self, seconds: float) -> None:
        history = RawHistory()
        history.run(self.cluster, seconds=seconds, scrape_seconds=15.0)
        history.remote_write(f"{self._server.url}/api/v1/write")

    def apply(self, *, cap_watts: float, history_seconds: float) -> dict[str, int]:
        source = PrometheusMetricsSource(PrometheusConfig(url=self._server.url))
        observation = source.observe(
            now_seconds=self.cluster.now_seconds, history_seconds=history_seconds, step_seconds=300
        )
        source.close()
        message = pb.CalculateOptimalReplicasRequest(
            deployments=[
                pb.Deployment(namespace=one.namespace, name=one.name)
                for one in self.cluster.scenario.deployments
            ],
            power_cap_watts=cap_watts,
        )
        outcome = make_plan(
            observation=observation,
            models=fit_models(observation),
            grid=GridConditions(),
            request=request_from_message(message),
            now_seconds=self.cluster.now_seconds,
        )
        answer = {f"{one.namespace}/{one.name}": one.replicas for one in outcome.targets}
        for key, replicas in answer.items():
            minimum = self.cluster.scenario.deployments[self.cluster.index(key)].min_replicas
            self.cluster.set_max_replicas(key, max(replicas, minimum))
        return answer


@pytest.fixture
def client(prometheus_binaries: Path) -> Iterator[BareClient]:
    with Prometheus(prometheus_binaries) as server:
        yield BareClient(server)


def test_what_a_cap_took_comes_back_when_the_cap_is_lifted(client: BareClient):
    users = {one.key: one.max_replicas for one in client.cluster.scenario.deployments}
    client.let_run(BEFORE_SECONDS)
    lowered = client.apply(cap_watts=9000.0, history_seconds=BEFORE_SECONDS)
    client.let_run(UNDER_CAP_SECONDS)

    # The history that is read no longer holds what was before.
    answer = client.apply(cap_watts=1e6, history_seconds=UNDER_CAP_SECONDS - 600.0)

    assert sum(lowered.values()) < sum(users.values())
    assert answer == users
