"""Compare methods of one run, or a run with the committed baseline: time and quality together.

python benchmarks/compare.py out/bench.jsonl
python benchmarks/compare.py out/bench.jsonl --baseline benchmarks/baseline.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

SHIFT_SECONDS = 0.01
"""Shift of the geometric mean: differences far below it do not count."""
_QUALITY = ("served", "throughput_per_watt")

Line = dict[str, Any]
Key = tuple[str, int, int]


def report(lines: list[Line], *, reference: str) -> str:
    """A table of ratios to ``reference`` in the same run.

    ``time`` is the ratio of shifted geometric means (below 1 is faster). ``served`` and ``ratio``
    are geometric means of the objectives' ratios (1 is equal, below 1 is worse). A ratio of
    throughput per watt counts only where both methods serve the same within 1e-6.
    """
    by_method: dict[str, dict[Key, Line]] = defaultdict(dict)
    for line in lines:
        by_method[line["method"]][line["family"], line["size"], line["seed"]] = line
    if reference not in by_method:
        raise SystemExit(f"no line of the reference {reference!r} in this run")
    rows = [
        f"{'method':14}{'solves':>8}{'proven':>8}{'invalid':>9}{'seconds':>10}{'time':>8}"
        f"{'served':>10}{'ratio':>10}"
    ]
    for method, solved in by_method.items():
        shared = sorted(solved.keys() & by_method[reference].keys())
        mine = [solved[key] for key in shared]
        theirs = [by_method[reference][key] for key in shared]
        seconds = shifted_mean([line["solve_seconds"] for line in mine])
        other = shifted_mean([line["solve_seconds"] for line in theirs])
        quality = [_quality(mine, theirs, name) for name in _QUALITY]
        rows.append(
            f"{method:14}{len(mine):8}{_proven(mine):8}{_invalid(mine):9}{seconds:10.4f}"
            f"{seconds / other:8.2f}{quality[0]:10.6f}{quality[1]:10.6f}"
        )
    return f"reference: {reference}\n" + "\n".join(rows)


def shifted_mean(seconds: list[float]) -> float:
    """Geometric mean of ``seconds`` shifted by ``SHIFT_SECONDS``."""
    logs = [math.log(each + SHIFT_SECONDS) for each in seconds]
    return math.exp(math.fsum(logs) / len(logs)) - SHIFT_SECONDS if logs else math.nan


def _proven(lines: list[Line]) -> int:
    return sum(line["status"] == "optimal" for line in lines)


def _invalid(lines: list[Line]) -> int:
    return sum(bool(line["wrong"]) for line in lines)


def _quality(mine: list[Line], theirs: list[Line], name: str) -> float:
    logs = []
    for one, other in zip(mine, theirs, strict=True):
        if not _comparable(one, other, name):
            continue
        value, best = (line["stages"][name]["objective"] for line in (one, other))
        if value > 0 and best > 0:
            logs.append(math.log(value / best))
    return math.exp(math.fsum(logs) / len(logs)) if logs else math.nan


def _comparable(one: Line, other: Line, name: str) -> bool:
    """Whether the stages before are equal: a plan that yields other floors is another problem."""
    before = {"served": ("floors",), "throughput_per_watt": ("floors", "served")}[name]
    return all(
        stage in one["stages"] and stage in other["stages"] for stage in (*before, name)
    ) and all(
        math.isclose(
            one["stages"][stage]["objective"],
            other["stages"][stage]["objective"],
            rel_tol=1e-6,
            abs_tol=1e-9,
        )
        for stage in before
    )


def against_baseline(lines: list[Line], baseline: list[Line]) -> str:
    """The same table, method by method, with the baseline's lines as the reference."""
    tables = []
    for method in sorted({line["method"] for line in lines}):
        now = [{**line, "method": "now"} for line in lines if line["method"] == method]
        then = [{**line, "method": "baseline"} for line in baseline if line["method"] == method]
        if then:
            tables.append(f"== {method}\n" + report([*then, *now], reference="baseline"))
    return "\n".join(tables) or "the baseline has no method of this run"


def read_lines(path: Path) -> list[Line]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines() if text]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="JSON lines of run.py")
    parser.add_argument("--baseline", type=Path, help="JSON with a run to compare with")
    parser.add_argument("--reference", default="exact", help="method the others are divided by")
    chosen = parser.parse_args(arguments)
    lines = read_lines(chosen.run)
    print(report(lines, reference=chosen.reference))
    if chosen.baseline is not None:
        stored = json.loads(chosen.baseline.read_text(encoding="utf-8"))
        print(against_baseline(lines, stored["solves"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
