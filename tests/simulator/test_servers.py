"""The emulated cluster in front of a real Prometheus: backfill, remote write, live scrapes."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.errors import ScenarioError, WriteError
from powercap_simulator.live import LiveExporters, LiveRun
from powercap_simulator.pods import PodState
from powercap_simulator.raw_history import RawHistory
from powercap_simulator.scenario import mixed_scenario
from powercap_simulator.scrape import ScrapeOptions

TIMEOUT_SECONDS = 30.0


class Server:
    """A Prometheus on a free port with the given configuration and data folder."""

    def __init__(self, binaries: Path, folder: Path, config: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        folder.mkdir(exist_ok=True)
        (folder / "prometheus.yml").write_text(config)
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    binaries / "prometheus",
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                    "--web.enable-remote-write-receiver",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.wait_for(lambda: httpx.get(f"{self.url}/-/ready", timeout=5.0).is_success)

    def wait_for(self, holds: "object") -> None:
        assert callable(holds)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                if holds():
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, "Prometheus ended"
            assert time.monotonic() < deadline, "not reached in time"
            time.sleep(0.2)

    def query(self, promql: str, at: float | None = None) -> list[dict[str, object]]:
        params = {"query": promql} if at is None else {"query": promql, "time": str(at)}
        answer = httpx.get(f"{self.url}/api/v1/query", params=params, timeout=10.0)
        assert answer.is_success, answer.text
        found: list[dict[str, object]] = answer.json()["data"]["result"]
        return found

    def number(self, promql: str, at: float | None = None) -> float:
        found = self.query(promql, at)
        assert len(found) == 1, f"{promql}: {len(found)} series"
        return float(found[0]["value"][1])  # type: ignore[index]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=TIMEOUT_SECONDS)


@pytest.fixture(scope="module")
def recorded() -> tuple[SimulatedCluster, RawHistory]:
    cluster = SimulatedCluster(mixed_scenario().starting_at(time.time() // 60 * 60 - 3600), seed=3)
    history = RawHistory()
    history.run(cluster, seconds=3600.0, scrape_seconds=60.0)
    return cluster, history


@pytest.fixture
def empty_server(prometheus_binaries: Path, tmp_path: Path) -> Iterator[Server]:
    server = Server(prometheus_binaries, tmp_path / "prometheus", "global: {}\n")
    yield server
    server.stop()


def test_remote_write_is_taken_whole_by_a_real_prometheus(
    empty_server: Server, recorded: tuple[SimulatedCluster, RawHistory]
) -> None:
    cluster, history = recorded

    sent = history.remote_write(f"{empty_server.url}/api/v1/write")

    assert sent == history.sample_count
    end = cluster.now_seconds
    names = httpx.get(f"{empty_server.url}/api/v1/label/__name__/values", timeout=5.0).json()
    stored = sum(
        empty_server.number(f'sum(count_over_time({{__name__="{name}"}}[2h]))', end)
        for name in names["data"]
    )
    assert stored == sent
    gpus = empty_server.number("sum(max by (UUID) (DCGM_FI_DEV_POWER_USAGE))", end)
    hosts = empty_server.number('sum(kepler_node_cpu_watts{zone="package"})', end)
    assert gpus + hosts == pytest.approx(cluster.last.measured_watts, abs=0.1)
    mean = sum(r.measured_watts for r in cluster.records[3::4]) / 60
    total = (
        'sum(max by (UUID) (DCGM_FI_DEV_POWER_USAGE)) + sum(kepler_node_cpu_watts{zone="package"})'
    )
    over_time = empty_server.number(f"avg_over_time(({total})[59m:1m])", end)
    assert over_time == pytest.approx(mean, rel=0.01)


def test_backfill_with_promtool_keeps_every_sample(
    prometheus_binaries: Path, tmp_path: Path, recorded: tuple[SimulatedCluster, RawHistory]
) -> None:
    _, history = recorded
    history.write_openmetrics(tmp_path / "history.om")

    done = subprocess.run(
        [
            prometheus_binaries / "promtool",
            *("tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=168h"),
            tmp_path / "history.om",
            tmp_path / "data",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    metas = [json.loads(path.read_text()) for path in (tmp_path / "data").glob("*/meta.json")]
    assert sum(meta["stats"]["numSamples"] for meta in metas) == history.sample_count


def test_a_refusing_or_absent_server_is_one_clear_error(
    empty_server: Server, recorded: tuple[SimulatedCluster, RawHistory]
) -> None:
    _, history = recorded

    with pytest.raises(WriteError, match="answers 404"):
        history.remote_write(f"{empty_server.url}/no/such/path")
    with pytest.raises(WriteError, match="does not answer"):
        history.remote_write("http://127.0.0.1:9/api/v1/write")


def test_a_real_prometheus_scrapes_live_exporters_and_picks_up_new_pods(
    prometheus_binaries: Path, tmp_path: Path
) -> None:
    scenario = mixed_scenario()
    cluster = SimulatedCluster(scenario, seed=3)
    for deployment in scenario.deployments:
        cluster.set_paused(deployment.key, is_paused=True)
    cluster.step(15.0)
    exporters = LiveExporters(cluster, options=ScrapeOptions(scrape_seconds=0.5))
    key = "chat/assistant-8b"
    index = cluster.index(key)
    with exporters:
        config = tmp_path / "prometheus.yml"
        exporters.write_prometheus_config(config)
        server = Server(prometheus_binaries, tmp_path / "prometheus", config.read_text())
        try:
            pods = len(cluster.pods)
            server.wait_for(lambda: len(server.query("vllm:num_requests_running")) == pods)
            gpus = len(cluster.gpu_watts)
            assert len(server.query("DCGM_FI_DEV_POWER_USAGE")) == gpus
            assert not server.query('DCGM_FI_DEV_POWER_USAGE{exported_pod!="",pod=""}')
            watts = server.number("sum(DCGM_FI_DEV_POWER_USAGE)")
            assert watts == pytest.approx(float(cluster.gpu_reading_watts.sum()), abs=0.1)
            joined = server.query(
                "sum by (exported_namespace, exported_pod) "
                '(DCGM_FI_DEV_POWER_USAGE{exported_pod!=""})'
            )
            assert len(joined) == len(cluster.pods)

            with LiveRun(exporters, speed=300.0):
                with exporters.lock:
                    before = len(cluster.pods_of(index))
                    cluster.set_paused(key, is_paused=True, replicas=before + 1)
                serving = (
                    'count(vllm:num_requests_running{pod=~"assistant-8b-.*"}) '
                    f"and on () (sum(kube_deployment_status_replicas_ready{{deployment="
                    f'"assistant-8b"}}) == {before + 1})'
                )
                server.wait_for(
                    lambda: (
                        [float(s["value"][1]) for s in server.query(serving)]  # type: ignore[index]
                        == [before + 1.0]
                    )
                )
        finally:
            server.stop()


def test_a_pod_that_starts_does_not_answer_and_unknown_paths_are_not_found() -> None:
    cluster = SimulatedCluster(mixed_scenario(), seed=3)
    cluster.step(15.0)
    key = "chat/assistant-8b"
    cluster.set_paused(key, is_paused=True, replicas=4)
    cluster.step(15.0)
    starting = next(p for p in cluster.pods_of(cluster.index(key)) if p.state is PodState.STARTING)

    with LiveExporters(cluster) as exporters:
        base = exporters.base_url
        listed = httpx.get(f"{base}/sd/vllm", timeout=5.0).json()
        answer = httpx.get(f"{base}/vllm/chat/{starting.name}/metrics", timeout=5.0)
        unknown = httpx.get(f"{base}/vllm/chat/none/metrics", timeout=5.0)

    assert starting.name in {target["labels"]["pod"] for target in listed}
    assert all(target["targets"] == [exporters.address] for target in listed)
    assert (answer.status_code, unknown.status_code) == (503, 404)


def test_a_port_in_use_is_one_clear_error() -> None:
    cluster = SimulatedCluster(mixed_scenario(), seed=3)
    with LiveExporters(cluster) as exporters:
        port = int(exporters.address.rsplit(":", 1)[1])
        with pytest.raises(ScenarioError, match=f"port {port} on 127.0.0.1 cannot be served"):
            LiveExporters(cluster, port=port)
