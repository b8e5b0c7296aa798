import dataclasses

import numpy as np
import pytest

from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.curves import GPU_TYPES
from powercap_simulator.errors import ScenarioError
from powercap_simulator.pods import PodState
from powercap_simulator.scenario import Scenario, mixed_scenario

HOUR = 3600.0


@pytest.fixture
def scenario() -> Scenario:
    return mixed_scenario()


@pytest.fixture
def cluster(scenario: Scenario) -> SimulatedCluster:
    return SimulatedCluster(scenario, seed=11)


def at_hour(scenario: Scenario, hour: float) -> Scenario:
    start = scenario.start_seconds + hour * HOUR
    return dataclasses.replace(scenario, start_seconds=start)


def fingerprint(cluster: SimulatedCluster) -> tuple[object, ...]:
    totals = [record.measured_watts for record in cluster.records]
    return (totals, [pod.uid for pod in cluster.pods], cluster.serving.counters.tolist())


def test_same_seed_gives_the_same_history_and_another_seed_another(scenario: Scenario) -> None:
    first, second, other = (SimulatedCluster(scenario, seed=s) for s in (5, 5, 6))

    for one in (first, second, other):
        one.step(2 * HOUR)

    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(first) != fingerprint(other)


def test_history_does_not_depend_on_how_the_time_was_cut(scenario: Scenario) -> None:
    whole, cut = SimulatedCluster(scenario, seed=5), SimulatedCluster(scenario, seed=5)

    whole.step(1800.0)
    for _ in range(257):
        cut.step(7.0)
    cut.step(1.0)

    assert fingerprint(whole) == fingerprint(cut)


def test_watts_of_the_parts_add_up_to_the_total(scenario: Scenario) -> None:
    cluster = SimulatedCluster(at_hour(scenario, 9.0), seed=3)
    idle_hosts = sum(node.host_idle_watts for node in scenario.nodes)
    parked = np.array(
        [GPU_TYPES[scenario.nodes[node].gpu].parked_watts for node in cluster.placement.node_of_gpu]
    )

    for _ in range(240):
        cluster.step(15.0)

        held = np.concatenate([pod.gpus for pod in cluster.pods])
        free = np.setdiff1d(np.arange(parked.size), held)
        assert held.size == np.unique(held).size
        assert np.array_equal(cluster.gpu_watts[free], parked[free])
        of_pods = sum(
            float(cluster.gpu_watts[pod.gpus].sum()) + pod.host_watts for pod in cluster.pods
        )
        parts = of_pods + float(parked[free].sum()) + idle_hosts
        assert parts == pytest.approx(cluster.total_watts, rel=1e-12)
        assert cluster.last.total_watts == cluster.total_watts


def test_energy_is_the_sum_of_what_gpus_and_hosts_drew(cluster: SimulatedCluster) -> None:
    cluster.step(HOUR)

    parts = float(cluster.gpu_joules.sum() + cluster.node_host_joules.sum())
    assert parts == pytest.approx(cluster.energy_joules, rel=1e-9)
    mean = float(np.mean([record.total_watts for record in cluster.records]))
    assert cluster.energy_joules == pytest.approx(mean * HOUR, rel=1e-9)


def test_tokens_are_served_queued_or_given_up_and_never_lost(scenario: Scenario) -> None:
    cluster = SimulatedCluster(at_hour(scenario, 12.0), seed=3)
    for deployment in scenario.deployments:
        cluster.set_max_replicas(deployment.key, 1)

    cluster.step(2 * HOUR)

    arrived = sum(record.served.arrived_tokens for record in cluster.records)
    served = sum(record.served.served_tokens for record in cluster.records)
    aborted = sum(record.served.aborted_tokens for record in cluster.records)
    np.testing.assert_allclose(arrived, served + aborted + cluster.serving.queue_tokens)
    assert float(np.sum(aborted)) > 0


def test_counters_of_the_pods_are_what_the_deployments_served(cluster: SimulatedCluster) -> None:
    for deployment in cluster.scenario.deployments:
        cluster.set_paused(deployment.key, is_paused=True)

    cluster.step(600.0)

    assert all(pod.state is PodState.READY for pod in cluster.pods)
    for index, _ in enumerate(cluster.scenario.deployments):
        tokens = sum(cluster.pod_counters(pod)[1] for pod in cluster.pods_of(index))
        served = sum(record.served.served_tokens[index] for record in cluster.records)
        assert tokens == pytest.approx(served, rel=1e-9)


def test_pod_counters_and_energies_never_fall(scenario: Scenario) -> None:
    cluster = SimulatedCluster(at_hour(scenario, 8.0), seed=7)
    before: dict[str, np.ndarray] = {}

    for minute in range(120):
        if minute == 60:
            cluster.set_max_replicas("chat/assistant-8b", 1)
        cluster.step(60.0)
        for pod in cluster.pods:
            now = np.append(cluster.pod_counters(pod), [pod.gpu_joules, pod.host_joules])
            assert (now >= before.get(pod.uid, 0.0)).all()
            before[pod.uid] = now

    assert len(before) > len(cluster.pods)


def test_a_lower_maximum_holds_once_the_grace_is_over(scenario: Scenario) -> None:
    cluster = SimulatedCluster(at_hour(scenario, 12.0), seed=4)
    cluster.step(HOUR)
    key = "chat/assistant-8b"
    index = cluster.index(key)
    assert len(cluster.pods_of(index)) > 1

    cluster.set_max_replicas(key, 1)
    cluster.step(15.0)
    alive = [p for p in cluster.pods_of(index) if p.state is not PodState.TERMINATING]
    assert len(alive) == 1
    cluster.step(scenario.deployments[index].grace_seconds + 15.0)

    for _ in range(100):
        cluster.step(15.0)
        assert len(cluster.pods_of(index)) == 1


def test_replicas_stay_within_their_limits_all_day(cluster: SimulatedCluster) -> None:
    low = np.array([s.min_replicas for s in cluster.scaled_objects])
    high = np.array([s.max_replicas for s in cluster.scaled_objects])

    for _ in range(24 * 12):
        cluster.step(300.0)
        assert (cluster.spec_replicas >= low).all()
        assert (cluster.spec_replicas <= high).all()


def test_pods_take_minutes_to_become_ready_and_draw_meanwhile(scenario: Scenario) -> None:
    cluster = SimulatedCluster(scenario, seed=4)
    key = "agents/tools-20b"
    index = cluster.index(key)
    cluster.step(60.0)
    ready = len(cluster.pods_of(index))

    cluster.set_paused(key, is_paused=True, replicas=ready + 1)
    cluster.step(30.0)
    newest = cluster.pods_of(index)[-1]
    assert newest.state is PodState.STARTING
    assert newest.power_watts == scenario.deployments[index].curve.idle_watts
    cluster.step(scenario.deployments[index].startup_seconds)

    assert newest.state is PodState.READY


def test_a_replica_without_free_gpus_waits(scenario: Scenario) -> None:
    cluster = SimulatedCluster(scenario, seed=4)
    cluster.step(15.0)

    cluster.set_paused("batch/summaries-70b", is_paused=True, replicas=6)
    cluster.step(600.0)

    pods = cluster.pods_of(cluster.index("batch/summaries-70b"))
    assert [pod.state for pod in pods].count(PodState.UNSCHEDULED) == 3
    assert cluster.total_watts == pytest.approx(
        float(cluster.gpu_watts.sum() + cluster.node_host_watts.sum())
    )


def test_unknown_names_and_impossible_limits_are_refused(cluster: SimulatedCluster) -> None:
    with pytest.raises(ScenarioError, match="unknown deployment 'x/y'"):
        cluster.set_max_replicas("x/y", 2)
    with pytest.raises(ScenarioError, match="maxReplicaCount is 0"):
        cluster.set_max_replicas("chat/assistant-8b", 0)
    with pytest.raises(ScenarioError, match="minReplicaCount is 9"):
        cluster.set_min_replicas("chat/assistant-8b", 9)
    with pytest.raises(ScenarioError, match="seconds is -1"):
        cluster.step(-1.0)
    with pytest.raises(ScenarioError, match="divisor"):
        SimulatedCluster(cluster.scenario, seed=1, tick_seconds=7.0)
