"""The speed table: what is asked of the fast path, and what it does beside the compact models.

Per row: the fast path on all seeds (stage 2, model build included), the compact models on the
same problems and gap with a limit of their own, a re-solve after 1 % of the deployments changed,
and all stages with a plan in force. Every solve in a process of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

from settings import FAST, Case

from powercap_solver.settings import LastStage

Line = dict[str, Any]

_FAST_LIMIT_SECONDS = 120.0
_SERVED, _ALL = LastStage.SERVED.value, LastStage.GIVE_BACK.value
_ASKED_WARM, _ASKED_ALL = 1 / 3, 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One instance with what is asked of it."""

    title: str
    family: str
    size: int
    gap: float
    asked_seconds: float
    asked_speedup: float | None = None
    asked_bytes: float | None = None


ROWS = {
    "one_cap_1k": Row(
        title="1,000, one cap",
        family="fleet_one_cap",
        size=1_000,
        gap=1e-5,
        asked_seconds=0.03,
    ),
    "one_cap_10k": Row(
        title="10,000, one cap",
        family="fleet_one_cap",
        size=10_000,
        gap=1e-5,
        asked_seconds=0.5,
        asked_speedup=50.0,
    ),
    "one_cap_100k": Row(
        title="100,000, one cap",
        family="fleet_one_cap",
        size=100_000,
        gap=1e-6,
        asked_seconds=5.0,
        asked_bytes=1.5e9,
    ),
    "tree_pools_1k": Row(
        title="1,000, tree of 50 domains, 4 pools",
        family="fleet_tree_pools",
        size=1_000,
        gap=1e-4,
        asked_seconds=1.0,
    ),
    "tree_10k": Row(
        title="10,000, tree of 200 domains",
        family="fleet_tree",
        size=10_000,
        gap=1e-3,
        asked_seconds=5.0,
    ),
    "ramps_1k": Row(
        title="1,000 x 12 periods x 9 domains, ramps",
        family="fleet_ramps",
        size=1_000,
        gap=1e-3,
        asked_seconds=3.0,
    ),
    "ramps_10k": Row(
        title="10,000 x 12 x 9, ramps",
        family="fleet_ramps",
        size=10_000,
        gap=1e-3,
        asked_seconds=30.0,
    ),
}


def cases(
    *,
    rows: Iterable[str] | None,
    seeds: int,
    compact: Iterable[str],
    compact_seeds: int,
    compact_limit: float,
) -> list[Case]:
    """Everything the table needs, row by row; the fast path first.

    Raises:
        SystemExit: naming a row that does not exist.
    """
    found = []
    for name in rows or ROWS:
        if name not in ROWS:
            raise SystemExit(f"row {name!r} is not known; accepted: {', '.join(ROWS)}")
        row = ROWS[name]
        for seed in range(seeds):
            found += [
                _case(row, seed),
                _case(row, seed, start="changed_cold"),
                _case(row, seed, start="changed_warm"),
                _case(row, seed, family=f"{row.family}_in_force"),
                _case(row, seed, family=f"{row.family}_in_force", last_stage=_ALL),
            ]
        found += [
            _case(row, seed, method=method, limit_seconds=compact_limit)
            for seed in range(compact_seeds)
            for method in compact
        ]
    return found


def _case(row: Row, seed: int, **changes: Any) -> Case:
    fields: dict[str, Any] = {
        "family": row.family,
        "size": row.size,
        "seed": seed,
        "method": FAST,
        "gap": row.gap,
        "limit_seconds": _FAST_LIMIT_SECONDS,
        "last_stage": _SERVED,
    }
    return Case(**{**fields, **changes})


def markdown(lines: list[Line]) -> str:
    """The table as Markdown; a cell without measurements is a dash."""
    head = (
        "deployments",
        "gap",
        "asked",
        "fast, median (range)",
        "proven",
        "gap reached",
        "best compact",
        "ratio",
        "served, fast over compact",
        "peak memory",
        "warm over cold",
        "all stages over stage 2",
    )
    cells_of_rows = [_cells(row, lines) for row in ROWS.values()]
    body = [tuple(cells) for cells in cells_of_rows if cells]
    table = [head, ("---",) * len(head), *body]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in table)


def _cells(row: Row, lines: list[Line]) -> list[str] | None:
    mine = [line for line in lines if line["size"] == row.size and line["gap"] == row.gap]
    cold = _picked(mine, family=row.family, method=FAST, start="cold", last_stage=_SERVED)
    if not cold:
        return None
    seconds = [line["seconds"] or line["limit_seconds"] for line in cold]
    reached = [line["stages"]["served"]["gap"] for line in cold if line["stages"]]
    return [
        row.title,
        f"{row.gap:.0e}",
        _asked(row),
        f"{_time(median(seconds))} ({_time(min(seconds))} to {_time(max(seconds))})",
        f"{sum(line['is_solved'] for line in cold)} of {len(cold)}",
        f"{max(reached):.1e}" if reached else "-",
        *_against_compact(row, mine, cold),
        _peak(cold),
        _paired(
            _picked(mine, family=row.family, start="changed_warm"),
            _picked(mine, family=row.family, start="changed_cold"),
        ),
        _paired(
            _picked(mine, family=f"{row.family}_in_force", last_stage=_ALL),
            _picked(mine, family=f"{row.family}_in_force", last_stage=_SERVED),
        ),
    ]


def _asked(row: Row) -> str:
    parts = [f"≤ {_time(row.asked_seconds)}"]
    if row.asked_speedup:
        parts.append(f"≥ {row.asked_speedup:.0f}x")
    if row.asked_bytes:
        parts.append(f"≤ {row.asked_bytes / 1e9:.1f} GB")
    return ", ".join(parts)


def _against_compact(row: Row, mine: list[Line], cold: list[Line]) -> list[str]:
    """Best compact model, ratio of times, ratio of what is served: on the seeds that both did."""
    methods = {line["method"] for line in mine} - {FAST}
    found = []
    for method in methods:
        pairs = [
            (line, fast)
            for line in _picked(mine, family=row.family, method=method)
            for fast in cold
            if fast["seed"] == line["seed"]
        ]
        if pairs:
            found.append(_compact_cells(method, pairs))
    if not found:
        return ["-", "-", "-"]
    return min(found)[1]


def _compact_cells(
    method: str, pairs: list[tuple[Line, Line]]
) -> tuple[tuple[float, float], list[str]]:
    """How good a compact model was, smaller is better, and its cells."""
    solved = sum(line["is_solved"] for line, _ in pairs)
    seconds = median(
        line["seconds"] if line["is_solved"] else line["limit_seconds"] for line, _ in pairs
    )
    ratio = median(
        (line["seconds"] if line["is_solved"] else line["limit_seconds"])
        / (fast["seconds"] or fast["limit_seconds"])
        for line, fast in pairs
    )
    quality = [
        fast["stages"]["served"]["objective"] / line["stages"]["served"]["objective"]
        for line, fast in pairs
        if line["rung"] == "compact"
        and fast["stages"]
        and line["stages"]["served"]["objective"] > 0
    ]
    least = "" if solved == len(pairs) else "≥ "
    silent = sum(line["rung"] != "compact" for line, _ in pairs)
    served = f"{median(quality):.6f}" if quality else "it found nothing"
    note = f", {silent} found nothing" if silent and quality else ""
    cells = [
        f"{method} {least}{_time(seconds)} ({solved} of {len(pairs)} proven{note})",
        f"{least}{ratio:.0f}x",
        served,
    ]
    # Where none proves the gap, the one whose plans serve most, so close to the fast path's.
    rank = seconds if solved else median(quality) if quality else math.inf
    return (-solved / len(pairs), rank), cells


def _peak(cold: list[Line]) -> str:
    peaks = [line["peak_bytes"] for line in cold if line["peak_bytes"]]
    before = [line["rss_before_bytes"] for line in cold if line["rss_before_bytes"]]
    if not peaks or not before:
        return "-"
    return f"{max(peaks) / 1e9:.2f} GB ({max(before) / 1e9:.2f} GB before)"


def _paired(numerators: list[Line], denominators: list[Line]) -> str:
    by_seed = {line["seed"]: line for line in denominators}
    ratios = [
        line["seconds"] / by_seed[line["seed"]]["seconds"]
        for line in numerators
        if line["seed"] in by_seed and line["stages"] and by_seed[line["seed"]]["stages"]
    ]
    if not ratios:
        return "-"
    unsolved = sum(not line["is_solved"] for line in (*numerators, *denominators))
    note = f", {unsolved} not proven" if unsolved else ""
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}{note})"


def _picked(lines: list[Line], **wanted: str) -> list[Line]:
    return [line for line in lines if all(line[name] == value for name, value in wanted.items())]


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 0.995 else f"{seconds:.3g} s"
