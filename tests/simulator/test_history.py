import numpy as np
import pytest

from powercap_planner.sources.files import observation_from_json, observation_to_json
from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.errors import ScenarioError
from powercap_simulator.history import WindowedHistory, observe_history
from powercap_simulator.scenario import mixed_scenario


@pytest.fixture(scope="module")
def cluster() -> SimulatedCluster:
    cluster = SimulatedCluster(mixed_scenario(), seed=8)
    cluster.step(2 * 3600.0)
    return cluster


def test_windows_are_the_means_of_what_was_recorded(cluster: SimulatedCluster) -> None:
    observation = observe_history(cluster)

    assert observation.time_seconds.size == 24
    assert observation.time_seconds[-1] == cluster.now_seconds
    part = cluster.records[20:40]
    assert observation.total_watts[1] == pytest.approx(
        np.mean([record.measured_watts for record in part])
    )
    for place, one in enumerate(observation.deployments):
        assert one.power_watts[1] == pytest.approx(
            np.mean([record.pod_watts[place] for record in part]), abs=1e-3
        )
        assert one.arrived_tps[1] == pytest.approx(
            sum(record.served.arrived_tokens[place] for record in part) / 300.0, abs=1e-3
        )


def test_deployments_parked_gpus_and_hosts_add_up_to_the_total(cluster: SimulatedCluster) -> None:
    observation = observe_history(cluster)
    pods = sum(one.power_watts for one in observation.deployments)

    used: dict[str, np.ndarray] = {}
    for one in observation.deployments:
        assert one.gpu_type is not None
        held = one.present_replicas * (one.gpus_per_replica or 0)
        used[one.gpu_type] = used.get(one.gpu_type, 0.0) + held
    parked = sum(
        (count - used[kind]) * observation.parked_gpu_watts[kind]
        for kind, count in observation.gpu_count.items()
    )

    # Sensors are noisy: parked GPUs read within a percent.
    parts = pods + parked + observation.host_idle_watts
    np.testing.assert_allclose(parts, observation.total_watts, rtol=2e-3)


def test_observing_again_and_again_gives_what_observing_once_gives() -> None:
    cluster = SimulatedCluster(mixed_scenario(), seed=8)
    history = WindowedHistory(cluster)
    for _ in range(7):
        cluster.step(450.0)
        again = history.observe(window_seconds=1800.0)

    once = observe_history(cluster, window_seconds=1800.0)

    assert observation_to_json(again) == observation_to_json(once)
    assert once.time_seconds.size == 6


def test_a_window_without_traffic_has_no_latency() -> None:
    cluster = SimulatedCluster(mixed_scenario(), seed=8)
    key = "code/complete-7b"
    cluster.set_paused(key, is_paused=True, replicas=0)
    cluster.step(1200.0)

    one = observe_history(cluster).deployments[cluster.index(key)]

    assert np.isnan(one.ttft_p95_seconds[-1])
    assert np.isnan(one.itl_p95_seconds[-1])
    assert (one.served_tps[-1], one.ready_replicas[-1]) == (0.0, 0.0)
    assert one.arrived_tps[-1] > 0


def test_an_observation_survives_its_file_form(cluster: SimulatedCluster) -> None:
    observation = observe_history(cluster)

    again = observation_from_json(observation_to_json(observation))

    assert observation_to_json(again) == observation_to_json(observation)


def test_too_little_history_and_crooked_steps_are_refused(cluster: SimulatedCluster) -> None:
    with pytest.raises(ScenarioError, match="less than one window"):
        observe_history(SimulatedCluster(mixed_scenario(), seed=1))
    with pytest.raises(ScenarioError, match="step_seconds is 20"):
        observe_history(cluster, step_seconds=20.0)
