"""Arrivals: how many requests per second a deployment is asked for, and how long they are."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from powercap_simulator.errors import ScenarioError

FloatArray = NDArray[np.float64]

DAY_SECONDS = 86_400.0
_WEEKDAYS_BEFORE_EPOCH = 3  # 1 January 1970 was a Thursday.


class Workload(Protocol):
    """Expected arrivals over time; chance is added by the cluster from its seed."""

    @property
    def prompt_tokens(self) -> float:
        """Mean prompt tokens of a request."""

    @property
    def output_tokens(self) -> float:
        """Mean generated tokens of a request."""

    def rate_rps(self, time_seconds: FloatArray) -> FloatArray:
        """Expected requests/s at Unix times, s; same shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyWorkload:
    """A smooth day: lowest at night, highest at ``peak_hour``, a second hump, quiet weekends."""

    peak_rps: float
    prompt_tokens: float
    output_tokens: float
    trough_fraction: float = 0.25
    """Lowest over highest rate of a working day."""
    peak_hour: float = 14.0
    """UTC hour of the highest rate."""
    weekend_fraction: float = 1.0
    """Weekend over weekday rate."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ScenarioError: naming the field.
        """
        _require("peak_rps", self.peak_rps, self.peak_rps >= 0, "0 or more")
        _require("prompt_tokens", self.prompt_tokens, self.prompt_tokens > 0, "more than 0")
        _require("output_tokens", self.output_tokens, self.output_tokens > 0, "more than 0")
        trough = self.trough_fraction
        _require("trough_fraction", trough, 0 <= trough <= 1, "0 to 1")
        _require("weekend_fraction", self.weekend_fraction, self.weekend_fraction >= 0, "0 or more")

    def rate_rps(self, time_seconds: FloatArray) -> FloatArray:
        """Expected requests/s at Unix times, s; same shape."""
        angle = 2 * np.pi * (time_seconds / DAY_SECONDS - self.peak_hour / 24)
        hump = 0.5 + 0.42 * np.cos(angle) + 0.08 * np.cos(2 * angle)
        shape = self.trough_fraction + (1 - self.trough_fraction) * np.clip(hump, 0.0, 1.0)
        weekday = (np.floor(time_seconds / DAY_SECONDS) + _WEEKDAYS_BEFORE_EPOCH) % 7
        rate: FloatArray = (
            self.peak_rps * shape * np.where(weekday >= 5, self.weekend_fraction, 1.0)
        )
        return rate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TraceWorkload:
    """A recorded trace, repeated for ever; time 0 of the trace is midnight UTC."""

    time_seconds: FloatArray
    """float64[window], from the start of the trace, evenly spaced from 0."""
    requests_per_second: FloatArray
    """float64[window]."""
    prompt_tokens: float
    output_tokens: float

    def rate_rps(self, time_seconds: FloatArray) -> FloatArray:
        """Expected requests/s at Unix times, s; same shape."""
        window = float(self.time_seconds[1] - self.time_seconds[0])
        index = np.floor(time_seconds / window).astype(np.int64) % self.time_seconds.size
        rate: FloatArray = self.requests_per_second[index]
        return rate


def read_trace(path: Path, *, scale: float = 1.0) -> TraceWorkload:
    """Read a trace CSV with ``time_s``, ``requests_per_s`` and mean tokens per request.

    Token means are weighted by rate over the rows that have them; empty is not known, not 0.
    A file with several series (more rows of the same time) is summed. ``scale`` multiplies the
    rate.

    Raises:
        ScenarioError: naming file, line and column of what cannot be used.
    """
    columns = (
        "time_s",
        "requests_per_s",
        "prompt_tokens_per_request_mean",
        "output_tokens_per_request_mean",
    )
    _require("scale", scale, scale > 0, "more than 0")
    rows: list[tuple[float, ...]] = []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in columns if name not in (reader.fieldnames or [])]
            if missing:
                raise ScenarioError(f"{path}: column {missing[0]!r} is missing")
            for line, row in enumerate(reader, start=2):
                rows.append(
                    (
                        *(_number(path, line, name, row[name]) for name in columns[:2]),
                        *(_number_or_nan(path, line, name, row[name]) for name in columns[2:]),
                    )
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError(f"{path} cannot be read: {error}") from error
    table = np.array(rows, dtype=np.float64).reshape(-1, len(columns))
    times = np.unique(table[:, 0])
    if times.size < 2 or times[0] != 0 or not np.allclose(np.diff(times), times[1]):
        raise ScenarioError(f"{path}: time_s must start at 0 and be evenly spaced, 2 rows or more")
    rate = np.zeros(times.size)
    np.add.at(rate, np.searchsorted(times, table[:, 0]), table[:, 1])
    if not rate.any():
        raise ScenarioError(f"{path}: requests_per_s is 0 throughout")
    known = np.isfinite(table[:, 2:]).all(axis=1) & (table[:, 1] > 0)
    if not known.any():
        raise ScenarioError(f"{path}: no row with requests has both token means")
    prompt, output = np.average(table[known, 2:], axis=0, weights=table[known, 1])
    return TraceWorkload(
        time_seconds=times,
        requests_per_second=rate * scale,
        prompt_tokens=float(prompt),
        output_tokens=max(1.0, float(output)),
    )


def _number_or_nan(path: Path, line: int, column: str, text: str | None) -> float:
    return _number(path, line, column, text) if text else math.nan


def _number(path: Path, line: int, column: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ScenarioError(f"{path}, line {line}: {column} is {text!r}; accepted: 0 or more")
    return value


def _require(field: str, value: float, is_accepted: bool, accepted: str) -> None:
    if not (math.isfinite(value) and is_accepted):
        raise ScenarioError(f"{field} is {value}; accepted: {accepted}")
