"""Draw a result file: PNG files of whatever it holds.

    python benchmarks/plots.py out/bench-gap_times.jsonl --out out/plots

``time_to_gap`` (several gaps asked), ``gap_over_time`` (several limits), ``profile`` (two methods
or more), ``scaling`` (three sizes or more of a family): each where the file has what it needs.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from results import key_of, read_lines

mpl.use("Agg")

Line = dict[str, Any]

_COLOURS = {
    "fast": "#0072B2",
    "greedy": "#7F7F7F",
    "highs": "#E69F00",
    "scip": "#009E73",
    "cp_sat": "#CC79A7",
    "cbc": "#D55E00",
}
_MARKERS = {"fast": "o", "greedy": "x", "highs": "s", "scip": "^", "cp_sat": "D", "cbc": "v"}
_LEAST_GAP = 1e-9
"""Smaller gaps are drawn here: a logarithm has no zero."""
_MOST_COLUMNS = 3
_SEEN_BYTES = 4 * 2**20
"""Less is lost in what the allocator already holds."""
_FEWEST = 3
"""Fewest sizes that a slope is fitted to, gaps or limits that make a curve."""


def time_to_gap(lines: list[Line]) -> Figure | None:
    """Median time of each method to prove each gap; open markers: not all seeds were solved."""
    panels = _panels(lines, varied="gap", fixed="limit_seconds")
    title = "time to prove a gap (median of seeds)"
    return _drawn(panels, _draw_time_to_gap, title, "seconds")


def gap_over_time(lines: list[Line]) -> Figure | None:
    """Median gap of each method at each limit."""
    panels = _panels(lines, varied="limit_seconds", fixed="gap")
    title = "gap proven within a time limit (median of seeds)"
    return _drawn(panels, _draw_gap_over_time, title, "relative gap of stage 2")


def profile(lines: list[Line]) -> Figure | None:
    """Performance profile after Dolan and Moré: share solved within a factor of the best time."""
    times: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)
    for line in _repeats_joined(lines):
        seconds = line["seconds"] if line["is_solved"] else math.inf
        times[key_of({**line, "method": ""})][line["method"]] = seconds
    given = {method for each in times.values() for method in each}
    methods = [method for method in _COLOURS if method in given]
    # Only where every method was tried can they be told apart.
    shared = [each for each in times.values() if len(each) == len(methods)]
    if len(methods) < 2 or not shared:
        return None
    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    best = [min(each.values()) for each in shared]
    finite = [
        each[method] / least
        for each, least in zip(shared, best, strict=True)
        for method in methods
        if math.isfinite(each[method])
    ]
    most = 2 * max(finite, default=1.0)
    for method in methods:
        ratios = sorted(
            each[method] / least if math.isfinite(each[method]) else math.inf
            for each, least in zip(shared, best, strict=True)
        )
        solved = [ratio for ratio in ratios if math.isfinite(ratio)]
        share = np.arange(1, len(solved) + 1) / len(shared)
        places = [1.0, *solved, most]
        heights = [0.0, *share, share[-1] if len(solved) else 0.0]
        label = f"{method}: {len(solved)} of {len(shared)}"
        axes.step(places, heights, where="post", label=label, color=_COLOURS[method], lw=2)
    axes.set(
        xscale="log",
        xlim=(1, most),
        ylim=(0, 1.02),
        xlabel="time over that of the fastest method",
        ylabel="share of cases solved",
        title="performance profile over the cases that all methods were given",
    )
    _finish(axes)
    legend = axes.get_legend_handles_labels()
    figure.legend(*legend, loc="outside right center", title="solved", fontsize=9)
    return figure


def scaling(lines: list[Line]) -> Figure | None:
    """Time and memory over size with fitted slopes, the fast path."""
    by_family: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line["method"] == "fast" and line["start"] == "cold" and line["is_solved"]:
            by_family[line["family"]].append(line)
    named = {
        name: mine
        for name, mine in by_family.items()
        if len({line["size"] for line in mine}) >= _FEWEST
    }
    if not named:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for index, (name, mine) in enumerate(named.items()):
        colour = f"C{index}"
        _draw_slope(left, name, mine, lambda line: line["seconds"], colour)
        _draw_slope(right, name, mine, _memory_added, colour)
    left.set(title="time of a solve", ylabel="seconds")
    right.set(title="peak memory of instance and solve", ylabel="bytes")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="deployments")
        _finish(axes)
        axes.legend(fontsize=8, title="fitted slope", title_fontsize=8)
    return figure


PLOTS: dict[str, Callable[[list[Line]], Figure | None]] = {
    "time_to_gap": time_to_gap,
    "gap_over_time": gap_over_time,
    "profile": profile,
    "scaling": scaling,
}


def draw(lines: list[Line], folder: Path, *, names: Iterable[str] = tuple(PLOTS)) -> list[Path]:
    """Write every plot of ``names`` that ``lines`` have the data for."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        figure = PLOTS[name](lines)
        if figure is not None:
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=130)
            plt.close(figure)
            written.append(path)
    return written


def _panels(lines: list[Line], *, varied: str, fixed: str) -> list[tuple[str, list[Line]]]:
    """Families and sizes with several values of ``varied``, at the ``fixed`` value with most."""
    groups: dict[tuple[str, int], dict[float, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["start"] == "cold":
            groups[line["family"], line["size"]][line[fixed]].append(line)
    best = {
        place: max(by_fixed.values(), key=lambda mine: len({line[varied] for line in mine}))
        for place, by_fixed in groups.items()
    }
    return [
        (f"{family}, {size:,}", mine)
        for (family, size), mine in best.items()
        if len({line[varied] for line in mine}) >= _FEWEST
    ]


def _drawn(
    panels: list[tuple[str, list[Line]]],
    draw_one: Callable[[Axes, list[Line]], None],
    title: str,
    label: str,
) -> Figure | None:
    if not panels:
        return None
    columns = min(len(panels), _MOST_COLUMNS)
    rows = math.ceil(len(panels) / columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(4.2 * columns + 1.2, 3.6 * rows + 0.4),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    for axes, (name, mine) in zip(grid.flat, panels, strict=False):
        draw_one(axes, mine)
        axes.set_title(name, fontsize=10)
        _finish(axes)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for row in grid:
        row[0].set_ylabel(label)
    handles = {
        name: handle
        for axes in figure.axes
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.suptitle(title)
    figure.legend(handles.values(), handles.keys(), loc="outside right center")
    return figure


def _draw_time_to_gap(axes: Axes, lines: list[Line]) -> None:
    for method, mine in _by(lines, "method"):
        gaps = sorted({line["gap"] for line in mine}, reverse=True)
        at = {gap: [line for line in mine if line["gap"] == gap] for gap in gaps}
        seconds = [median(_capped(line) for line in at[gap]) for gap in gaps]
        is_whole = [all(line["is_solved"] for line in at[gap]) for gap in gaps]
        style: Line = {"color": _COLOURS.get(method), "marker": _MARKERS.get(method, "o")}
        axes.plot(gaps, seconds, label=method, lw=1.5, ms=5, **style)
        for gap, second, whole in zip(gaps, seconds, is_whole, strict=True):
            if not whole:
                axes.plot([gap], [second], mfc="white", ms=6, ls="", **style)
    limit = max(line["limit_seconds"] for line in lines)
    axes.axhline(limit, color="black", lw=0.8, ls=":")
    axes.annotate(
        "limit; open: not every seed proven",
        (0.02, limit),
        xycoords=("axes fraction", "data"),
        xytext=(0, -3),
        textcoords="offset points",
        fontsize=7,
        va="top",
    )
    axes.set(xscale="log", yscale="log", xlabel="relative gap asked")
    axes.invert_xaxis()


def _draw_gap_over_time(axes: Axes, lines: list[Line]) -> None:
    for method, mine in _by(lines, "method"):
        limits = sorted({line["limit_seconds"] for line in mine})
        found = [
            (limit, median(_served_gap(line) for line in mine if line["limit_seconds"] == limit))
            for limit in limits
        ]
        shown = [(limit, max(gap, _LEAST_GAP)) for limit, gap in found if math.isfinite(gap)]
        if shown:
            axes.plot(
                *zip(*shown, strict=True),
                label=method,
                color=_COLOURS.get(method),
                marker=_MARKERS.get(method, "o"),
                lw=1.5,
                ms=5,
            )
    axes.set(xscale="log", yscale="log", xlabel="time limit, seconds")
    if min(axes.get_ylim()) < 2 * _LEAST_GAP:
        axes.annotate(
            "1e-9 or less",
            (0.02, _LEAST_GAP),
            xycoords=("axes fraction", "data"),
            xytext=(0, 5),
            textcoords="offset points",
            fontsize=7,
        )


def _draw_slope(
    axes: Axes,
    name: str,
    lines: list[Line],
    value: Callable[[Line], float | None],
    colour: str,
) -> None:
    """Medians over the seeds, and a line fitted to their logarithms over the larger sizes."""
    points = []
    for size, mine in _by(lines, "size"):
        values = [each for each in map(value, mine) if each]
        if values:
            points.append((size, median(values)))
    points.sort()
    if len(points) < 2:
        return
    sizes, values = np.array(points, dtype=float).T
    # Where overhead rules the smallest sizes tell nothing of growth.
    last = slice(-_FEWEST, None)
    slope, level = np.polyfit(np.log(sizes[last]), np.log(values[last]), 1)
    axes.plot(sizes, values, "o", color=colour, ms=5)
    fitted = np.exp(level) * sizes[last] ** slope
    axes.plot(sizes[last], fitted, color=colour, lw=1.5, label=f"{name}: {slope:.2f}")


def _memory_added(line: Line) -> float | None:
    """Bytes above the process before the instance was built; None where below what is seen."""
    if line["peak_bytes"] is None or line["rss_at_start_bytes"] is None:
        return None
    added = float(line["peak_bytes"] - line["rss_at_start_bytes"])
    return added if added > _SEEN_BYTES else None


def _repeats_joined(lines: Iterable[Line]) -> list[Line]:
    """One line per case: the median time of its repeats, solved where all of them are."""
    joined: dict[tuple[Any, ...], list[Line]] = defaultdict(list)
    for line in lines:
        joined[key_of(line)].append(line)
    return [
        {
            **mine[0],
            "seconds": median(_capped(line) for line in mine),
            "is_solved": all(line["is_solved"] for line in mine),
        }
        for mine in joined.values()
    ]


def _capped(line: Line) -> float:
    return float(line["seconds"] if line["is_solved"] else line["limit_seconds"])


def _served_gap(line: Line) -> float:
    """Infinite where the method itself found nothing."""
    stage = line["stages"].get("served")
    has_fallen = line["method"] not in ("fast", "greedy") and line["rung"] != "compact"
    return math.inf if stage is None or has_fallen else float(stage["gap"])


def _by(lines: list[Line], name: str) -> list[tuple[Any, list[Line]]]:
    groups: dict[Any, list[Line]] = defaultdict(list)
    for line in lines:
        groups[line[name]].append(line)
    return list(groups.items())


def _finish(axes: Axes) -> None:
    axes.grid(visible=True, which="major", alpha=0.35)
    axes.spines[["top", "right"]].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(base=10, numticks=12))
            axis.set_minor_formatter(NullFormatter())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="+", help="JSON lines of run.py")
    parser.add_argument("--out", type=Path, default=Path("out/plots"), help="default: %(default)s")
    parser.add_argument("--only", choices=PLOTS, nargs="+", default=tuple(PLOTS), metavar="PLOT")
    chosen = parser.parse_args(arguments)
    lines = [line for path in chosen.results for line in read_lines(path)]
    written = draw(lines, chosen.out, names=chosen.only)
    print("\n".join(str(path) for path in written) or "nothing here can be drawn")


if __name__ == "__main__":
    main()
