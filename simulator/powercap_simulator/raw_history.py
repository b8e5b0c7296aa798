"""Emulated scrapes over virtual time: OpenMetrics text for promtool, remote write for a server.

The same families that the live exporters show, with the labels that a scrape adds. Timestamps are
those of the virtual clock. Remote write marks series that end as stale, as a scraping server does;
OpenMetrics text cannot, so there a server shows the last value of a pod that ended for the five
minutes of its look-back.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path

import cramjam
import httpx

from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.errors import WriteError
from powercap_simulator.families import LabelSet, braces, openmetrics_header
from powercap_simulator.scrape import ScrapeOptions, scraped_labels, targets

_SAMPLES_PER_REQUEST = 20_000
_TIMEOUT_SECONDS = 30.0

# Prometheus' staleness marker: a NaN of its own. Here every NaN stands for it.
_STALE = struct.pack("<Q", 0x7FF0000000000002)

Series = tuple["array[float]", "array[float]"]
"""Unix times, s, and values."""


class RawHistory:
    """Samples of every series, as a server would have scraped them."""

    def __init__(self, options: ScrapeOptions | None = None) -> None:
        """Begin empty."""
        self.options = options or ScrapeOptions()
        self._kinds: dict[str, str] = {}
        self._series: dict[str, dict[tuple[str, LabelSet], Series]] = {}
        self._labels: dict[tuple[str, str, LabelSet], LabelSet] = {}
        self._current: dict[tuple[str, LabelSet], Series] = {}

    def scrape(self, cluster: SimulatedCluster) -> None:
        """Take one sample of everything at the cluster's present time."""
        now = cluster.now_seconds
        before, self._current = self._current, {}
        for target in targets(cluster, self.options):
            if not target.is_up:
                continue
            is_honored = target.job in self.options.honor_labels
            for family in target.read():
                self._kinds[family.name] = family.kind
                members = self._series.setdefault(family.name, {})
                for name, own, value in family.samples:
                    origin = (target.path, name, own)
                    labels = self._labels.get(origin)
                    if labels is None:
                        labels = scraped_labels(own, target, is_honored=is_honored)
                        self._labels[origin] = labels
                    key = (name, labels)
                    series = members.setdefault(key, (array("d"), array("d")))
                    series[0].append(now)
                    series[1].append(value)
                    self._current[key] = series
        for key in before.keys() - self._current.keys():
            before[key][0].append(now)
            before[key][1].append(math.nan)

    def run(self, cluster: SimulatedCluster, *, seconds: float, scrape_seconds: float) -> None:
        """Step the cluster and scrape it every ``scrape_seconds``."""
        for _ in range(round(seconds / scrape_seconds)):
            cluster.step(scrape_seconds)
            self.scrape(cluster)

    @property
    def sample_count(self) -> int:
        """Samples of all series together, staleness markers apart."""
        return sum(_known(values) for _, _, (_, values) in self._all())

    def write_openmetrics(self, path: Path) -> None:
        """Write the text that ``promtool tsdb create-blocks-from openmetrics`` takes.

        Raises:
            WriteError: when the file cannot be written.
        """
        try:
            with path.open("w", encoding="utf-8") as stream:
                for family, members in self._series.items():
                    stream.write(openmetrics_header(family, self._kinds[family]) + "\n")
                    for metric in _metrics(members):
                        stream.writelines(_lines(metric))
                stream.write("# EOF\n")
        except OSError as error:
            raise WriteError(f"{path} cannot be written: {error.strerror}") from error

    def remote_write(self, url: str) -> int:
        """Send everything to a remote-write endpoint, oldest first, and return the samples sent.

        Raises:
            WriteError: when the server refuses or does not answer.
        """
        sent = 0
        headers = {
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        with httpx.Client(timeout=_TIMEOUT_SECONDS, headers=headers) as client:
            for body, count in self._requests():
                try:
                    answer = client.post(url, content=bytes(cramjam.snappy.compress_raw(body)))
                except httpx.HTTPError as error:
                    raise WriteError(f"{url} does not answer: {error}") from error
                if answer.is_error:
                    raise WriteError(f"{url} answers {answer.status_code}: {answer.text.strip()}")
                sent += count
        return sent

    def _all(self) -> Iterator[tuple[str, LabelSet, Series]]:
        for members in self._series.values():
            for (name, labels), series in members.items():
                yield name, labels, series

    def _requests(self) -> Iterator[tuple[bytes, int]]:
        """Yield write requests in chronological order: an empty server takes old samples so."""
        heads = [(_labels(name, labels), series) for name, labels, series in self._all()]
        heads = [(head, series) for head, series in heads if series[0]]
        if not heads:
            return
        begin = min(times[0] for _, (times, _) in heads)
        end = max(times[-1] for _, (times, _) in heads)
        longest = max(len(times) for _, (times, _) in heads)
        samples_per_slice = max(1, _SAMPLES_PER_REQUEST // len(heads))
        width = max(1e-3, (end - begin) / max(1, longest - 1) * samples_per_slice)
        place = [0] * len(heads)
        until = begin
        while until <= end:
            until += width
            parts, count = [], 0
            for index, (head, (times, values)) in enumerate(heads):
                first = last = place[index]
                while last < len(times) and times[last] < until:
                    last += 1
                if last > first:
                    points = zip(times[first:last], values[first:last], strict=True)
                    body = head + b"".join(_sample(value, when) for when, value in points)
                    parts.append(_delimited(1, body))
                    count += _known(values[first:last])
                    place[index] = last
            if parts:
                yield b"".join(parts), count


def _metrics(
    members: dict[tuple[str, LabelSet], Series],
) -> list[list[tuple[str, Series]]]:
    """Return the series of each metric: one, or the parts of one histogram."""
    metrics: dict[LabelSet, list[tuple[str, Series]]] = {}
    for (name, labels), series in members.items():
        own = tuple(pair for pair in labels if pair[0] != "le")
        metrics.setdefault(own, []).append((name + braces(labels), series))
    return list(metrics.values())


def _lines(metric: list[tuple[str, Series]]) -> Iterator[str]:
    """Yield point after point: OpenMetrics wants the parts of a histogram's point together."""
    for place, when in enumerate(metric[0][1][0]):
        for head, (_, values) in metric:
            if not math.isnan(values[place]):
                yield f"{head} {values[place]!r} {when:.3f}\n"


def _known(values: array[float]) -> int:
    return sum(value == value for value in values)  # NaN, the marker, is not equal to itself


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _delimited(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _labels(name: str, labels: LabelSet) -> bytes:
    pairs = sorted([("__name__", name), *labels])
    encoded = (_delimited(1, k.encode()) + _delimited(2, v.encode()) for k, v in pairs)
    return b"".join(_delimited(1, pair) for pair in encoded)


def _sample(value: float, when_seconds: float) -> bytes:
    encoded = _STALE if math.isnan(value) else struct.pack("<d", value)
    # Remote write counts milliseconds, OpenMetrics seconds.
    return _delimited(2, b"\x09" + encoded + b"\x10" + _varint(round(when_seconds * 1000)))
