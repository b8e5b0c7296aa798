"""Answers of range queries on one time grid, and the rules for values that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from powercap_planner.observations import Finding, FloatArray
from powercap_planner.sources.prometheus_api import Series

Key = tuple[str, ...]
"""Values of the labels that name a series."""

WORKLOAD = ("namespace", "deployment")
LEAST_PARTS_FRACTION = 0.9
"""A mean over a window with fewer of its parts is missing."""
MAY_BE_UNDEFINED = frozenset({"tokens_per_request", "ttft_p95_seconds", "itl_p95_seconds"})
"""Queries that are 0/0 without traffic: NaN says nothing of the data's health."""


class History:
    """Range answers by query name, as float64[time] on one grid; NaN where there is nothing."""

    def __init__(self, *, start_seconds: int, step_seconds: int, length: int) -> None:
        self.start_seconds = start_seconds
        self.step_seconds = step_seconds
        self.length = length
        self.findings: list[Finding] = []
        self._answers: dict[str, tuple[Series, ...]] = {}
        self._by_key: dict[tuple[str, tuple[str, ...]], dict[Key, FloatArray]] = {}

    @property
    def time_seconds(self) -> FloatArray:
        """Unix time of the end of each window, s."""
        grid: FloatArray = np.arange(self.length, dtype=np.float64)
        return grid * self.step_seconds + self.start_seconds

    def add(self, name: str, series: tuple[Series, ...]) -> None:
        """Take the answer to a query, without the values that cannot be."""
        kept = []
        dropped = 0
        for one in series:
            points = tuple((at, value) for at, value in one.points if _is_possible(value))
            undefined = sum(1 for _, value in one.points if value != value)
            dropped += len(one.points) - len(points)
            if name in MAY_BE_UNDEFINED:
                dropped -= undefined
            kept.append(Series(labels=one.labels, points=points))
        if dropped:
            self.findings.append(
                Finding(
                    reason="ValueDropped",
                    message=f"{dropped} values of {name} are NaN, infinite or negative: not used.",
                )
            )
        self._answers[name] = tuple(kept)

    def keys(self, name: str, labels: Iterable[str] = WORKLOAD) -> set[Key]:
        """Return which label values have a usable point."""
        return set(self._indexed(name, tuple(labels)))

    def of(self, name: str, key: Key, labels: Iterable[str] = WORKLOAD) -> FloatArray:
        """Return one series of a query as float64[time]."""
        values = self._indexed(name, tuple(labels)).get(key)
        return np.full(self.length, np.nan) if values is None else values.copy()

    def total(self, name: str) -> FloatArray:
        """Return a query that has one series without labels."""
        return self.of(name, (), ())

    def _indexed(self, name: str, labels: tuple[str, ...]) -> dict[Key, FloatArray]:
        if (name, labels) not in self._by_key:
            index: dict[Key, FloatArray] = {}
            for one in self._answers[name]:
                if not one.points:
                    continue
                key = tuple(one.labels.get(label, "") for label in labels)
                values = index.setdefault(key, np.full(self.length, np.nan))
                for at, value in one.points:
                    place = round((at - self.start_seconds) / self.step_seconds)
                    if 0 <= place < self.length:
                        values[place] = value
            self._by_key[name, labels] = index
        return self._by_key[name, labels]


def _is_possible(value: float) -> bool:
    return 0 <= value < float("inf")


def last_finite(values: FloatArray) -> float | None:
    """Return the newest value there is."""
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else None


def median_finite(values: FloatArray) -> float | None:
    """Return the median of the values there are."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None


def filled_forward(values: FloatArray) -> FloatArray:
    """Fill gaps with the last value before them, leading ones with the first; NaN if none is."""
    finite = np.isfinite(values)
    if not finite.any():
        return values.copy()
    index = np.maximum.accumulate(np.where(finite, np.arange(values.size), -1))
    index[index < 0] = int(np.argmax(finite))
    filled: FloatArray = values[index]
    return filled


def where_complete(values: FloatArray, *, parts: FloatArray, expected: FloatArray) -> FloatArray:
    """Return the sums that have all their parts, NaN elsewhere."""
    with np.errstate(invalid="ignore"):
        complete: FloatArray = np.where(parts >= expected, values, np.nan)
    return complete


def where_nearly_complete(
    values: FloatArray, *, parts: FloatArray, expected: FloatArray
) -> FloatArray:
    """Return means that lack few of their parts, grown by the share they lack; NaN elsewhere.

    A pod's first samples come some seconds after it runs, so that the mean over a window in
    which pods changed lacks a little of some; a part is never taken for the whole.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        grown = values * np.where(parts < expected, expected / parts, 1.0)
        complete: FloatArray = np.where(parts >= LEAST_PARTS_FRACTION * expected, grown, np.nan)
    return complete


def most_in_trailing(values: FloatArray, *, windows: int) -> FloatArray:
    """Return the largest value among each window and the ones before it."""
    padded = np.concatenate([np.full(windows - 1, -np.inf), np.nan_to_num(values, nan=-np.inf)])
    most: FloatArray = np.lib.stride_tricks.sliding_window_view(padded, windows).max(axis=1)
    return most
