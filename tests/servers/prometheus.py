"""A throwaway Prometheus on loopback, seeded by remote write.

Binaries come from the folder that ``fetch.sh prometheus`` prints.
"""

from __future__ import annotations

import json
import struct
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cramjam
from control_plane import die_with_parent, free_port

START_SECONDS = 30.0
STOP_SECONDS = 10.0

Points = Sequence[tuple[float, float]]
"""(Unix time in s, value), in order of time."""


class Prometheus:
    """One Prometheus server; use as a context manager.

    Args:
        binaries: folder with ``prometheus``.
        scrape_targets: job name to ``host:port`` targets scraped every ``scrape_seconds``.
        scrape_seconds: scrape interval, s.
        honor_labels: keep the labels ``pod`` and ``namespace`` that an exporter sets itself.
        config_text: a whole configuration, used instead of the three above.
    """

    def __init__(
        self,
        binaries: Path,
        *,
        scrape_targets: Mapping[str, Sequence[str]] | None = None,
        scrape_seconds: float = 1.0,
        honor_labels: bool = True,
        config_text: str | None = None,
    ) -> None:
        self.binaries = binaries
        self.scrape_targets = dict(scrape_targets or {})
        self.scrape_seconds = scrape_seconds
        self.honor_labels = honor_labels
        self.config_text = config_text
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Prometheus:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rsplit(":", 1)[1])

    def start(self) -> None:
        """Start the server on an empty database and wait until it is ready.

        Raises:
            RuntimeError: the server ended; its log is in the message.
            TimeoutError: it did not become ready.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="powercap-prometheus-")
        folder = Path(self._folder.name)
        (folder / "prometheus.yml").write_text(self.config_text or self._configuration())
        self.url = f"http://127.0.0.1:{free_port()}"
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self.binaries / "prometheus",
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                    "--web.enable-remote-write-receiver",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                preexec_fn=die_with_parent,
                start_new_session=True,
            )
        self._wait(folder / "log")

    def stop(self) -> None:
        """End the server and remove its database."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def write(self, series: Iterable[tuple[Mapping[str, str], Points]]) -> None:
        """Store samples by remote write; each series has its name in the label ``__name__``."""
        batch: list[bytes] = []
        for labels, points in series:
            batch.append(_series(labels, points))
            if sum(map(len, batch)) > 4_000_000:
                self._send(batch)
                batch = []
        if batch:
            self._send(batch)

    def query(self, promql: str, *, at_seconds: float | None = None) -> list[dict[str, Any]]:
        """Return the result list of an instant query."""
        arguments = {"query": promql}
        if at_seconds is not None:
            arguments["time"] = str(at_seconds)
        address = f"{self.url}/api/v1/query?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result

    def _configuration(self) -> str:
        scrape = [
            {
                "job_name": job,
                "honor_labels": self.honor_labels,
                "static_configs": [{"targets": list(targets)}],
            }
            for job, targets in self.scrape_targets.items()
        ]
        interval = f"{int(self.scrape_seconds * 1000)}ms"
        configuration = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval},
            "scrape_configs": scrape,
            "storage": {"tsdb": {"out_of_order_time_window": "30d"}},
        }
        # JSON is YAML.
        return json.dumps(configuration)

    def _send(self, batch: list[bytes]) -> None:
        request = urllib.request.Request(
            f"{self.url}/api/v1/write",
            data=bytes(cramjam.snappy.compress_raw(b"".join(batch))),
            headers={
                "Content-Encoding": "snappy",
                "Content-Type": "application/x-protobuf",
                "X-Prometheus-Remote-Write-Version": "0.1.0",
            },
        )
        try:
            urllib.request.urlopen(request, timeout=30).close()
        except urllib.error.HTTPError as error:
            with error:
                detail = error.read().decode(errors="replace")
            raise RuntimeError(f"remote write refused: {error.code} {detail}") from error

    def _wait(self, log: Path) -> None:
        assert self._process is not None
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise RuntimeError(f"prometheus ended: {log.read_text(errors='replace')[-2000:]}")
            try:
                urllib.request.urlopen(f"{self.url}/-/ready", timeout=2).close()
                return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError(f"{self.url} not ready after {START_SECONDS} s")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _series(labels: Mapping[str, str], points: Points) -> bytes:
    # prometheus.WriteRequest.timeseries; labels must be sorted, times are milliseconds.
    pairs = b"".join(
        _field(1, _field(1, key.encode()) + _field(2, value.encode()))
        for key, value in sorted(labels.items())
    )
    samples = b"".join(
        _field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(round(moment * 1000)))
        for moment, value in points
    )
    return _field(1, pairs + samples)
