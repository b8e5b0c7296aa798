"""``powercap simulate``: the emulated cluster as history or as live exporters."""

from __future__ import annotations

import enum
import math
import time
from pathlib import Path
from typing import Annotated

import typer

from powercap_planner.errors import PowercapPlannerError
from powercap_planner.sources.files import write_observation
from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.errors import PowercapSimulatorError, ScenarioError
from powercap_simulator.exporters import KeplerVersion
from powercap_simulator.history import observe_history
from powercap_simulator.keda import SYNC_SECONDS
from powercap_simulator.live import LiveExporters, LiveRun
from powercap_simulator.raw_history import RawHistory
from powercap_simulator.scenario import Scenario, mixed_scenario
from powercap_simulator.scenario_file import read_scenario
from powercap_simulator.scrape import ScrapeOptions

HOUR_SECONDS = 3600.0


class Mode(enum.StrEnum):
    """What to do with the emulated cluster."""

    HISTORY = "history"
    LIVE = "live"


def simulate(
    mode: Annotated[Mode, typer.Argument(help="history: write it and end; live: serve exporters.")],
    scenario: Annotated[
        Path | None, typer.Option(help="Scenario as YAML; the built-in mixed cluster without.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal clusters.")] = 1,
    hours: Annotated[float, typer.Option(help="History: virtual hours to emulate.")] = 24.0,
    observation: Annotated[
        Path | None,
        typer.Option(help="History: write an observation file for 'powercap plan' (JSON)."),
    ] = None,
    openmetrics: Annotated[
        Path | None,
        typer.Option(
            help="History: write OpenMetrics text for 'promtool tsdb create-blocks-from'."
        ),
    ] = None,
    remote_write: Annotated[
        str | None,
        typer.Option(help="History: send it to this URL, as http://127.0.0.1:9090/api/v1/write."),
    ] = None,
    until_now: Annotated[
        bool, typer.Option("--until-now", help="History ends now, not after the scenario's start.")
    ] = False,
    scrape_seconds: Annotated[
        float, typer.Option(help="Seconds between scrapes, a multiple of 15 for history.")
    ] = 60.0,
    kepler: Annotated[
        KeplerVersion, typer.Option(help="Which Kepler is emulated: 0.10 and later, or legacy.")
    ] = KeplerVersion.REWRITE,
    host: Annotated[str, typer.Option(help="Live: address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Live: port; 0 takes a free one.")] = 9400,
    speed: Annotated[float, typer.Option(help="Live: virtual seconds per second.")] = 1.0,
    prometheus_config: Annotated[
        Path | None, typer.Option(help="Live: write a prometheus.yml that scrapes it.")
    ] = None,
) -> None:
    """Emulate a GPU cluster under LLM load: write its history, or serve its exporters live.

    Examples:
      powercap simulate history --hours 48 --observation observation.json
      powercap simulate history --remote-write http://127.0.0.1:9090/api/v1/write --until-now
      powercap simulate live --port 9400 --prometheus-config prometheus.yml
    """
    try:
        if seed < 0:
            raise ScenarioError(f"seed is {seed}; accepted: 0 or more")
        options = ScrapeOptions(kepler=kepler, scrape_seconds=scrape_seconds)
        found = mixed_scenario() if scenario is None else read_scenario(scenario)
        if mode is Mode.LIVE:
            _serve(found, seed, options, host, port, speed, prometheus_config)
            return
        if not 0 < hours < math.inf:
            raise ScenarioError(f"hours is {hours}; accepted: more than 0")
        if until_now:
            found = found.starting_at(_whole_minute() - hours * HOUR_SECONDS)
        _write(found, seed, options, hours, observation, openmetrics, remote_write)
    except (PowercapSimulatorError, PowercapPlannerError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def _write(
    scenario: Scenario,
    seed: int,
    options: ScrapeOptions,
    hours: float,
    observation: Path | None,
    openmetrics: Path | None,
    remote_write: str | None,
) -> None:
    if observation is None and openmetrics is None and remote_write is None:
        raise ScenarioError(
            "nothing to write; give --observation FILE, --openmetrics FILE or --remote-write URL"
        )
    if options.scrape_seconds % SYNC_SECONDS:
        raise ScenarioError(
            f"scrape_seconds is {options.scrape_seconds}; accepted for history: a multiple of "
            f"{SYNC_SECONDS:g}"
        )
    cluster = SimulatedCluster(scenario, seed=seed)
    if openmetrics is None and remote_write is None:
        cluster.step(hours * HOUR_SECONDS)
    else:
        raw = RawHistory(options)
        raw.run(cluster, seconds=hours * HOUR_SECONDS, scrape_seconds=options.scrape_seconds)
        if openmetrics is not None:
            raw.write_openmetrics(openmetrics)
            typer.echo(f"{openmetrics}: {raw.sample_count} samples of {hours:g} h")
        if remote_write is not None:
            typer.echo(f"{remote_write}: {raw.remote_write(remote_write)} samples of {hours:g} h")
    if observation is not None:
        write_observation(observation, observe_history(cluster))
        typer.echo(f"{observation}: {hours:g} h of {len(scenario.deployments)} deployments")


def _serve(
    scenario: Scenario,
    seed: int,
    options: ScrapeOptions,
    host: str,
    port: int,
    speed: float,
    config: Path | None,
) -> None:
    cluster = SimulatedCluster(scenario.starting_at(_whole_minute()), seed=seed)
    cluster.step(cluster.tick_seconds)
    exporters = LiveExporters(cluster, options=options, host=host, port=port)
    with exporters, LiveRun(exporters, speed=speed):
        if config is not None:
            exporters.write_prometheus_config(config)
            typer.echo(f"{config}: scrapes {exporters.base_url}")
        typer.echo(f"{exporters.base_url}/sd/<job> lists targets; stop with Ctrl-C")
        try:
            while True:
                time.sleep(HOUR_SECONDS)
        except KeyboardInterrupt:
            typer.echo("stopped")


def _whole_minute() -> float:
    return time.time() // 60 * 60
