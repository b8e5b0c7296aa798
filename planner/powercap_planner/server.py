"""The planner as a process: gRPC under both names, health, reflection, graceful end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import grpc
import typer
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from powercap_planner.clock import Clock, FileClock, SystemClock, fingerprint
from powercap_planner.config import GridConfig, ServeConfig, load
from powercap_planner.errors import InputFileError, PowercapPlannerError
from powercap_planner.grid.files import FileCarbonProvider, FilePriceProvider
from powercap_planner.grid.series import CarbonProvider, ConstantProvider, PriceProvider
from powercap_planner.recorder import Recorder
from powercap_planner.refresher import Refresher, RefreshSettings
from powercap_planner.service import Grid, PlannerService
from powercap_planner.servicer import SERVICE_NAMES, PlannerServicer
from powercap_planner.sources.files import FileMetricsSource, read_observation
from powercap_planner.sources.prometheus import PrometheusMetricsSource
from powercap_planner.telemetry import configure_logging, event

# Reflection lists a service only when its descriptors are loaded.
from powercap_proto.prototype import planner_pb2 as _prototype  # noqa: F401
from powercap_proto.v1 import planner_pb2 as _v1  # noqa: F401

GRACE_SECONDS = 5.0
"""Calls in flight may end within this time when the process is told to stop, s."""

_logger = logging.getLogger(__name__)


class PlannerServer:
    """One planner with its gRPC server, background refresh and health.

    Args:
        config: all settings.

    Raises:
        InputFileError: a file that the configuration names cannot be used.
    """

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self.port = 0
        """The port it listens on, once started."""
        clock: Clock = SystemClock()
        version = None
        self._source: FileMetricsSource | PrometheusMetricsSource
        if config.observations:
            path = Path(config.observations)
            # Read once now: a file that cannot be used is the user's error, not a bad minute.
            read_observation(path)
            self._source = FileMetricsSource(path)
            if config.observations_clock == "file":
                clock = FileClock(path)

            def version() -> object:
                return fingerprint(path)
        else:
            self._source = PrometheusMetricsSource(config.prometheus)
        self._refresher = Refresher(
            source=self._source,
            clock=clock,
            settings=RefreshSettings(
                history_seconds=config.history_seconds,
                step_seconds=config.step_seconds,
                refresh_seconds=config.refresh_seconds,
                refit_seconds=config.refit_seconds,
                stale_after_seconds=config.stale_after_seconds,
            ),
            source_version=version,
        )
        self._service = PlannerService(
            refresher=self._refresher,
            clock=clock,
            grid=_grid(config.grid),
            recorder=Recorder(Path(config.record)) if config.record else None,
        )
        self._credentials = _credentials(config)
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen and begin to observe.

        Raises:
            InputFileError: the address cannot be listened on.
        """
        # Without so_reuseport two planners on one port fail loudly instead of sharing callers.
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        server.add_generic_rpc_handlers(PlannerServicer(self._service).handlers())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (*SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        listen = self._config.listen
        try:
            if self._credentials is None:
                self.port = server.add_insecure_port(listen)
            else:
                self.port = server.add_secure_port(listen, self._credentials)
        except RuntimeError as error:
            raise InputFileError(f"listen: {listen} cannot be listened on: {error}") from error
        await server.start()
        self._server = server
        for name in ("", *SERVICE_NAMES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._refreshing = asyncio.create_task(self._refresher.run())
        _logger.info(
            "listening on port %d",
            self.port,
            extra=event(
                "listening",
                listen=listen,
                port=self.port,
                source=self._source.name,
                tls=self._credentials is not None,
            ),
        )

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Say NOT_SERVING, let calls in flight end, stop observing."""
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(grace_seconds)
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing
        self._service.close()
        if isinstance(self._source, PrometheusMetricsSource):
            self._source.close()
        _logger.info("stopped", extra=event("stopped"))


async def run(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        InputFileError: the configuration names something that cannot be used.
    """
    server = PlannerServer(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    await stop.wait()
    await server.stop()


def serve(
    listen: Annotated[
        str | None, typer.Option(help="host:port to listen on; port 0 takes a free one.")
    ] = None,
    prometheus: Annotated[str | None, typer.Option(help="URL of Prometheus.")] = None,
    observations: Annotated[
        Path | None,
        typer.Option(help="Observation file to replay instead; read again when it changes."),
    ] = None,
    observations_clock: Annotated[
        str | None,
        typer.Option(help="What now is: 'system', or 'file' for the file's last time."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with any of the settings.")] = None,
    price_per_mwh: Annotated[
        float | None, typer.Option(help="Constant electricity price, currency per MWh.")
    ] = None,
    carbon_g_per_kwh: Annotated[
        float | None, typer.Option(help="Constant carbon intensity, gCO2eq per kWh.")
    ] = None,
    price_file: Annotated[Path | None, typer.Option(help="CSV file of prices.")] = None,
    carbon_file: Annotated[
        Path | None, typer.Option(help="CSV file of carbon intensities.")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="Grid zone of requests that name none.")] = None,
    refresh_seconds: Annotated[
        float | None, typer.Option(help="Observe again this often, s.")
    ] = None,
    refit_seconds: Annotated[
        float | None, typer.Option(help="Fit the curves again this often, s.")
    ] = None,
    history_seconds: Annotated[
        float | None, typer.Option(help="History read for curves and forecasts, s.")
    ] = None,
    step_seconds: Annotated[
        float | None, typer.Option(help="Width of one window of the history, s.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Folder to keep the newest problem and plan files in.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM certificate of the server; with --tls-key.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM key of the server.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM roots of client certificates: makes them required.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve plans over gRPC, from Prometheus or from an observation file.

    Every option can also be a name in the --config file or a variable POWERCAP_<NAME>
    (POWERCAP_PROMETHEUS_URL, POWERCAP_GRID_ZONE, ...); options win over variables over the file.
    Logs are JSON lines on standard error; the one with "event": "listening" names the port.
    """
    flags: dict[str, object] = {
        "listen": listen,
        "prometheus.url": prometheus,
        "observations": observations,
        "observations_clock": observations_clock,
        "grid.price_per_mwh": price_per_mwh,
        "grid.carbon_g_per_kwh": carbon_g_per_kwh,
        "grid.price_file": price_file,
        "grid.carbon_file": carbon_file,
        "grid.zone": zone,
        "refresh_seconds": refresh_seconds,
        "refit_seconds": refit_seconds,
        "history_seconds": history_seconds,
        "step_seconds": step_seconds,
        "record": record,
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
        "tls_client_ca": tls_client_ca,
    }
    try:
        configure_logging(level=log_level)
    except ValueError as error:
        raise InputFileError(
            f"log_level: is {log_level!r}; accepted: debug, info, warning, error"
        ) from error
    asyncio.run(run(load(file=config, environment=os.environ, flags=flags)))


def main() -> None:
    """Run the console script ``powercap-planner``; a user's mistake is one line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(serve)
    try:
        app()
    except PowercapPlannerError as error:
        sys.stderr.write(f"powercap-planner: {' '.join(str(error).split())}\n")
        sys.exit(2)


def _grid(config: GridConfig) -> Grid:
    price: PriceProvider | None = None
    carbon: CarbonProvider | None = None
    if config.price_file:
        price = FilePriceProvider(Path(config.price_file))
    elif config.price_per_mwh is not None:
        price = ConstantProvider(config.price_per_mwh, unit=f"{config.currency}/MWh")
    if config.carbon_file:
        carbon = FileCarbonProvider(Path(config.carbon_file))
    elif config.carbon_g_per_kwh is not None:
        carbon = ConstantProvider(config.carbon_g_per_kwh, unit="gCO2eq/kWh")
    return Grid(zone=config.zone, price=price, carbon=carbon)


def _credentials(config: ServeConfig) -> grpc.ServerCredentials | None:
    if not config.tls_key:
        return None
    client_ca = _pem(config.tls_client_ca, "tls_client_ca") if config.tls_client_ca else None
    return grpc.ssl_server_credentials(
        [(_pem(config.tls_key, "tls_key"), _pem(config.tls_certificate, "tls_certificate"))],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )


def _pem(path: str, field: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputFileError(f"{field}: {path} cannot be read: {error.strerror}") from error
