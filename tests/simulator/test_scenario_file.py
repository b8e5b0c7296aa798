from pathlib import Path

import pytest

from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.errors import ScenarioError
from powercap_simulator.scenario_file import read_scenario
from powercap_simulator.workload import TraceWorkload

GOOD = """
name: mine
curves: curves.csv
sensor_noise_fraction: 0.0
nodes:
  - {name: a, gpu: H100, gpu_count: 4}
deployments:
  - namespace: chat
    name: one
    curve: {model: llama-3.1-8b, gpu: H100}
    workload: {peak_rps: 5, prompt_tokens: 10, output_tokens: 100}
    min_replicas: 1
    max_replicas: 2
  - namespace: chat
    name: two
    curve: {curve_id: mine}
    workload: {trace: trace.csv, scale: 2}
    replica_rule: fixed
    min_replicas: 1
    max_replicas: 1
    priority: 7
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "curves.csv").write_text(
        "curve_id,model,gpu,gpus_per_replica,output_tokens_per_s,power_w,tpot_s\n"
        "mine,m,H100,2,1000,900,0.02\nmine,m,H100,2,2000,1000,0.03\n"
    )
    (tmp_path / "trace.csv").write_text(
        "time_s,requests_per_s,prompt_tokens_per_request_mean,output_tokens_per_request_mean\n"
        "0,1,10,20\n600,2,10,20\n"
    )
    return tmp_path


def test_a_scenario_is_read_and_runs(folder: Path) -> None:
    path = folder / "scenario.yaml"
    path.write_text(GOOD)

    scenario = read_scenario(path)
    cluster = SimulatedCluster(scenario, seed=1)
    cluster.step(600.0)

    one, two = scenario.deployments
    assert (one.key, two.key) == ("chat/one", "chat/two")
    assert isinstance(two.workload, TraceWorkload)
    assert two.workload.rate_rps(two.workload.time_seconds).tolist() == [2.0, 4.0]
    assert (two.curve.saturated_tps, two.curve.gpus_per_replica, two.priority) == (2000.0, 2, 7)
    assert scenario.sensor_noise_fraction == 0.0
    assert cluster.last.measured_watts == pytest.approx(cluster.total_watts)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            "gpu_count: 4", "gpu_count: four", r"nodes\[0\].gpu_count is 'four'", id="text"
        ),
        pytest.param("gpu_count: 4", "gpu_count: 1.5", "a whole number", id="fraction"),
        pytest.param("gpu_count: 4", "gpus: 4", r"nodes\[0\].gpus is unknown", id="unknown"),
        pytest.param("gpu_count: 4", "gpu_count: 1", "largest node has 1", id="too-small"),
        pytest.param("peak_rps: 5, ", "", r"workload.peak_rps is missing", id="missing"),
        pytest.param("curve_id: mine", "curve_id: other", "curve_id is 'other'", id="curve"),
        pytest.param(
            "model: llama-3.1-8b", "model: x", "no built-in curve of model 'x'", id="model"
        ),
        pytest.param(
            "replica_rule: fixed", "replica_rule: some", "replica_rule is 'some'", id="rule"
        ),
        pytest.param("name: two", "name: one", "holds 'chat/one' twice", id="twice"),
        pytest.param("max_replicas: 2", "max_replicas: 0", "max_replicas is 0", id="max"),
        pytest.param("trace: trace.csv", "trace: none.csv", "none.csv cannot be read", id="trace"),
        pytest.param("nodes:", "knots:", "nodes is NoneType", id="no-nodes"),
        pytest.param("name: mine", "name: [", "cannot be read", id="yaml"),
    ],
)
def test_a_malformed_scenario_is_one_clear_error(
    folder: Path, old: str, new: str, message: str
) -> None:
    path = folder / "scenario.yaml"
    path.write_text(GOOD.replace(old, new, 1))

    with pytest.raises(ScenarioError, match=message) as caught:
        read_scenario(path)

    assert str(caught.value).startswith(str(path))
