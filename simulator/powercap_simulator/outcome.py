"""What a stretch of emulated time amounted to: watts against the cap, tokens, energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.control import CapSchedule
from powercap_simulator.errors import ScenarioError

FloatArray = NDArray[np.float64]

WINDOW_SECONDS = 60.0
"""A cap holds as a mean over this long."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """Means over windows of ``WINDOW_SECONDS``; all arrays float64[window]."""

    time_seconds: FloatArray
    """Unix time of each window's end, s."""
    measured_watts: FloatArray
    asked_tps: FloatArray
    served_tps: FloatArray

    def between(self, start_seconds: float, end_seconds: float) -> Course:
        """Return the windows that end after ``start_seconds``, up to ``end_seconds``."""
        kept = (self.time_seconds > start_seconds) & (self.time_seconds <= end_seconds)
        return Course(
            time_seconds=self.time_seconds[kept],
            measured_watts=self.measured_watts[kept],
            asked_tps=self.asked_tps[kept],
            served_tps=self.served_tps[kept],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Sums and extremes of a course."""

    energy_joules: float
    asked_tokens: float
    served_tokens: float
    most_watts: float

    @property
    def served_fraction(self) -> float:
        """Share of the tokens asked for that were served; above 1 where a queue was worked off."""
        return self.served_tokens / self.asked_tokens if self.asked_tokens else 1.0

    @property
    def tokens_per_joule(self) -> float:
        """Served tokens per joule of GPUs and hosts."""
        return self.served_tokens / self.energy_joules if self.energy_joules else 0.0


def course_of(cluster: SimulatedCluster, *, since_seconds: float) -> Course:
    """Return what the sensors and servers saw since a moment.

    Raises:
        ScenarioError: when less than one window was emulated since.
    """
    ticks = round(WINDOW_SECONDS / cluster.tick_seconds)
    kept = [record for record in cluster.records if record.time_seconds > since_seconds]
    windows = len(kept) // ticks
    if not windows:
        raise ScenarioError(f"less than {WINDOW_SECONDS:g} s were emulated")
    kept = kept[: windows * ticks]

    def means(values: list[float]) -> FloatArray:
        mean: FloatArray = np.array(values).reshape(windows, ticks).mean(axis=1)
        return mean

    seconds = cluster.tick_seconds
    return Course(
        time_seconds=np.array([r.time_seconds for r in kept[ticks - 1 :: ticks]]),
        measured_watts=means([r.measured_watts for r in kept]),
        asked_tps=means([float(r.served.arrived_tokens.sum()) / seconds for r in kept]),
        served_tps=means([float(r.served.served_tokens.sum()) / seconds for r in kept]),
    )


def amounts_of(course: Course) -> Amounts:
    """Return sums and extremes of a course."""
    return Amounts(
        energy_joules=float(course.measured_watts.sum() * WINDOW_SECONDS),
        asked_tokens=float(course.asked_tps.sum() * WINDOW_SECONDS),
        served_tokens=float(course.served_tps.sum() * WINDOW_SECONDS),
        most_watts=float(course.measured_watts.max(initial=0.0)),
    )


def worst_excess_watts(course: Course, schedule: CapSchedule) -> float:
    """Return the most watts above the cap of any window; below 0 when all stayed under it.

    A window counts against the least cap in force within it.
    """
    excess = [
        watts - schedule.least(end - WINDOW_SECONDS, end - 1e-3)
        for end, watts in zip(
            course.time_seconds.tolist(), course.measured_watts.tolist(), strict=True
        )
    ]
    return max(excess, default=float("-inf"))
