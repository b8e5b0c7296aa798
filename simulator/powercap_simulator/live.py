"""The emulated cluster served live: exporters over HTTP, time running at a chosen speed."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.errors import ScenarioError, WriteError
from powercap_simulator.families import render_text
from powercap_simulator.scrape import JOBS, ScrapeOptions, discovery, prometheus_config, targets

_LOGGER = logging.getLogger(__name__)

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_TIMEOUT_SECONDS = 10.0
_LARGEST_PORT = 65535


class LiveExporters:
    """All exporters of a cluster behind one HTTP port, one path per exporter and pod.

    ``/sd/<job>`` lists the targets of a job for Prometheus' HTTP service discovery,
    ``/prometheus.yml`` is a configuration that uses it. Whoever steps the cluster or patches it
    meanwhile does so while holding ``lock``.
    """

    def __init__(
        self,
        cluster: SimulatedCluster,
        *,
        options: ScrapeOptions | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Bind the port; 0 takes a free one. Serving begins with ``start``.

        Raises:
            ScenarioError: when the port cannot be served.
        """
        self.cluster = cluster
        self.options = options or ScrapeOptions()
        self.lock = threading.Lock()
        self._server = _server(self, host, port)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """``host:port``."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    @property
    def base_url(self) -> str:
        """URL that all paths follow."""
        return f"http://{self.address}"

    def start(self) -> Self:
        """Begin to answer, in a thread of its own."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop answering and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def write_prometheus_config(self, path: Path) -> None:
        """Write a ``prometheus.yml`` that scrapes these exporters.

        Raises:
            WriteError: when the file cannot be written.
        """
        try:
            path.write_text(prometheus_config(self.base_url, self.options), encoding="utf-8")
        except OSError as error:
            raise WriteError(f"{path} cannot be written: {error.strerror}") from error

    def answer(self, path: str) -> tuple[int, str, str]:
        """Return status, content type and body for a path."""
        if path == "/prometheus.yml":
            return 200, "text/yaml", prometheus_config(self.base_url, self.options)
        with self.lock:
            for job in JOBS:
                if path == f"/sd/{job}":
                    found = discovery(self.cluster, self.options, job=job, address=self.address)
                    return 200, "application/json", json.dumps(found)
            for target in targets(self.cluster, self.options):
                if target.path == path:
                    if not target.is_up:
                        return 503, _CONTENT_TYPE, "starting\n"
                    return 200, _CONTENT_TYPE, render_text(target.read())
        return 404, _CONTENT_TYPE, "not found\n"


class LiveRun:
    """Steps the cluster of ``LiveExporters`` in real time, ``speed`` virtual seconds per second.

    A server that keeps a history of the cluster compares it with what it scrapes now: bring the
    cluster's clock to the present (``catch_up``) before the first scrape, or the time in between
    reads as time without requests.
    """

    def __init__(self, exporters: LiveExporters, *, speed: float = 1.0) -> None:
        """Prepare; time runs from ``start`` on.

        Raises:
            ScenarioError: when ``speed`` is not above 0.
        """
        if not 0 < speed < math.inf:
            raise ScenarioError(f"speed is {speed}; accepted: more than 0")
        self._exporters = exporters
        self._speed = speed
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Self:
        """Let time run, in a thread of its own."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop time."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def catch_up(self, now_seconds: float) -> None:
        """Live through what lies between the cluster's clock and ``now_seconds`` (Unix time)."""
        with self._exporters.lock:
            behind = now_seconds - self._exporters.cluster.now_seconds
            if behind > 0:
                self._exporters.cluster.step(behind)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        cluster = self._exporters.cluster
        pause = min(1.0, cluster.tick_seconds / self._speed)
        before = time.monotonic()
        while not self._stopped.wait(pause):
            now = time.monotonic()
            with self._exporters.lock:
                cluster.step((now - before) * self._speed)
            before = now


def _server(exporters: LiveExporters, host: str, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT_SECONDS
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet for headers and body, not one each

        def do_GET(self) -> None:
            status, kind, text = exporters.answer(self.path.partition("?")[0])
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
            _LOGGER.debug(format, *args)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    if not 0 <= port <= _LARGEST_PORT:
        raise ScenarioError(f"port is {port}; accepted: 0 to {_LARGEST_PORT}")
    try:
        return Server((host, port), Handler)
    except OSError as error:
        raise ScenarioError(f"port {port} on {host} cannot be served: {error}") from error
