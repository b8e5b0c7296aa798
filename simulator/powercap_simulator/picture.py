"""The picture of a day under a cap: watts against the cap, and tokens served against asked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from powercap_simulator.control import CapSchedule, PlannedCycle
from powercap_simulator.outcome import WINDOW_SECONDS, Course

FloatArray = NDArray[np.float64]

HOUR_SECONDS = 3600.0
_CAPPED = "#1f5fa8"
_FREE = "#9a9a9a"
_CAP = "#c0392b"
_EVENT = "#f6d9b8"
_PLANNED = "#7fb3e6"
_SMOOTH_WINDOWS = 10


def draw_day(
    path: Path,
    *,
    capped: Course,
    free: Course,
    schedule: CapSchedule,
    cycles: list[PlannedCycle],
) -> None:
    """Write the picture as PNG.

    Args:
        path: where to.
        capped: the day under control.
        free: the same arrivals without any cap.
        schedule: the caps.
        cycles: the plans, for the watts they charged.
    """
    with mpl.rc_context({"font.size": 10}):
        figure = Figure(figsize=(11, 7), layout="constrained")
        FigureCanvasAgg(figure)
        watts, tokens = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        _shade_events(watts, schedule)
        _shade_events(tokens, schedule)
        _draw_watts(watts, capped, free, schedule, cycles)
        _draw_tokens(tokens, capped, free)
        begin, end = capped.time_seconds[0] - WINDOW_SECONDS, capped.time_seconds[-1]
        ticks = np.arange(begin, end + 1.0, 2 * HOUR_SECONDS)
        moments = [datetime.fromtimestamp(tick, tz=UTC) for tick in ticks.tolist()]
        tokens.set_xlim(begin, end)
        tokens.set_xticks(ticks, [f"{moment:%H:%M}" for moment in moments])
        tokens.set_xlabel(f"time of day, UTC ({moments[0]:%A})")
        figure.savefig(path, dpi=110)


def _draw_watts(
    axes: Axes,
    capped: Course,
    free: Course,
    schedule: CapSchedule,
    cycles: list[PlannedCycle],
) -> None:
    axes.plot(
        free.time_seconds,
        free.measured_watts / 1000,
        color=_FREE,
        linewidth=0.8,
        label="measured without any cap (same arrivals)",
    )
    axes.step(
        [cycle.time_seconds for cycle in cycles],
        [cycle.response.caps[0].charged_watts / 1000 for cycle in cycles],
        where="post",
        color=_PLANNED,
        linewidth=1.2,
        label="charged by the plan (upper bound of what it allows)",
    )
    axes.plot(
        capped.time_seconds,
        capped.measured_watts / 1000,
        color=_CAPPED,
        linewidth=1.2,
        label=f"measured under the plan ({WINDOW_SECONDS:.0f} s mean)",
    )
    starts = capped.time_seconds - WINDOW_SECONDS
    axes.step(
        starts,
        [schedule.at(start) / 1000 for start in starts.tolist()],
        where="post",
        color=_CAP,
        linewidth=1.8,
        label="cap",
    )
    axes.set_ylabel("GPUs and hosts, kW")
    highest = max(schedule.cap_watts, float(free.measured_watts.max())) / 1000
    axes.set_ylim(0, highest * 1.12)
    axes.set_title("Watts of the cluster against its cap", loc="left")
    axes.legend(loc="lower left", fontsize=9, framealpha=0.95)
    axes.grid(alpha=0.25)


def _draw_tokens(axes: Axes, capped: Course, free: Course) -> None:
    axes.plot(
        free.time_seconds,
        _smooth(free.served_tps) / 1000,
        color=_FREE,
        linewidth=1.0,
        label="served without any cap",
    )
    axes.plot(
        capped.time_seconds,
        _smooth(capped.served_tps) / 1000,
        color=_CAPPED,
        linewidth=1.4,
        label="served under the plan",
    )
    axes.plot(
        capped.time_seconds,
        _smooth(capped.asked_tps) / 1000,
        color="black",
        linewidth=0.9,
        linestyle=":",
        label="asked",
    )
    axes.set_ylabel("generated tokens, thousand/s")
    axes.set_ylim(bottom=0)
    minutes = _SMOOTH_WINDOWS * WINDOW_SECONDS / 60
    axes.set_title(f"Tokens of all deployments ({minutes:.0f} min mean)", loc="left")
    axes.legend(loc="lower left", fontsize=9, framealpha=0.95, ncols=3)
    axes.grid(alpha=0.25)


def _shade_events(axes: Axes, schedule: CapSchedule) -> None:
    for place, event in enumerate(schedule.events):
        label = "demand-response event" if place == 0 else None
        axes.axvspan(
            event.start_seconds,
            event.end_seconds,
            color=_EVENT,
            alpha=0.7,
            linewidth=0,
            label=label,
        )


def _smooth(values: FloatArray) -> FloatArray:
    """Trailing mean, shorter at the beginning."""
    total = np.cumsum(np.insert(values, 0, 0.0))
    end = np.arange(1, values.size + 1)
    begin = np.maximum(0, end - _SMOOTH_WINDOWS)
    smooth: FloatArray = (total[end] - total[begin]) / (end - begin)
    return smooth
