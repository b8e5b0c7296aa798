import inspect
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner

from powercap_planner.sources.files import read_observation
from powercap_simulator import commands, demo
from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.live import LiveExporters
from powercap_simulator.scenario import mixed_scenario


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command("simulate")(commands.simulate)
    app.command("demo")(demo.command)
    return app


def test_history_is_written_as_observation_and_openmetrics(
    app: typer.Typer, tmp_path: Path
) -> None:
    observation, text = tmp_path / "observation.json", tmp_path / "history.om"

    done = CliRunner().invoke(
        app,
        [
            *("simulate", "history", "--hours", "0.5", "--scrape-seconds", "300"),
            *("--observation", str(observation), "--openmetrics", str(text)),
        ],
    )

    assert done.exit_code == 0, done.output
    assert read_observation(observation).time_seconds.size == 6
    assert text.read_text().endswith("# EOF\n")
    assert str(observation) in done.output
    assert str(text) in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["history"], "nothing to write", id="nothing"),
        pytest.param(["history", "--hours", "0", "--observation", "x"], "hours is 0", id="hours"),
        pytest.param(
            ["live", "--scenario", "none.yaml"], "none.yaml cannot be read", id="scenario"
        ),
        pytest.param(["live", "--speed", "0", "--port", "0"], "speed is 0", id="speed"),
        pytest.param(["live", "--speed", "inf", "--port", "0"], "speed is inf", id="speed inf"),
        pytest.param(["live", "--port", "70000"], "port is 70000; accepted: 0 to 65535", id="port"),
        pytest.param(["live", "--port", "-1"], "port is -1; accepted", id="port < 0"),
        pytest.param(
            ["live", "--port", "0", "--prometheus-config", "none/p.yml"],
            "none/p.yml cannot be written: No such file or directory",
            id="configuration path",
        ),
        pytest.param(
            ["history", "--hours", "0.1", "--observation", "none/o.json"],
            "none/o.json: cannot be written: No such file or directory",
            id="observation path",
        ),
        pytest.param(
            ["history", "--hours", "0.1", "--observation", "."],
            "cannot be written: Is a directory",
            id="observation is a folder",
        ),
        pytest.param(
            ["history", "--hours", "0.1", "--openmetrics", "none/o.om"],
            "none/o.om cannot be written: No such file or directory",
            id="openmetrics path",
        ),
        pytest.param(
            ["history", "--hours", "inf", "--observation", "x"], "hours is inf", id="hours inf"
        ),
        pytest.param(
            ["history", "--seed", "-1", "--observation", "x"], "seed is -1; accepted", id="seed"
        ),
        pytest.param(
            ["history", "--scrape-seconds", "0", "--openmetrics", "x"],
            "scrape_seconds is 0.0; accepted: more than 0",
            id="scrape 0",
        ),
        pytest.param(
            ["live", "--scrape-seconds", "nan", "--port", "0"],
            "scrape_seconds is nan; accepted",
            id="scrape nan",
        ),
        pytest.param(
            ["history", "--scrape-seconds", "7", "--openmetrics", "x"],
            "scrape_seconds is 7.0; accepted for history: a multiple of 15",
            id="scrape between ticks",
        ),
        pytest.param(
            ["history", "--hours", "0.1", "--remote-write", "http://127.0.0.1:9/w"],
            "does not answer",
            id="server",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    app: typer.Typer,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(app, ["simulate", *arguments])

    assert done.exit_code == 2
    assert message in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_help_names_every_option(app: typer.Typer) -> None:
    for name, function in (("simulate", commands.simulate), ("demo", demo.command)):
        shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output

        options = [p for p in inspect.signature(function).parameters if p != "mode"]
        assert all(f"--{option.replace('_', '-')}" in shown for option in options)


def test_the_written_configuration_is_the_served_one(tmp_path: Path) -> None:
    with LiveExporters(SimulatedCluster(mixed_scenario(), seed=1)) as exporters:
        path = tmp_path / "prometheus.yml"
        exporters.write_prometheus_config(path)

        served = httpx.get(f"{exporters.base_url}/prometheus.yml", timeout=5.0).text

        assert path.read_text() == served
        assert exporters.base_url in served
