"""Compare two result files: what got slower, or worse, by statistics over seeds and repeats.

    python benchmarks/compare.py BEFORE.jsonl AFTER.jsonl
    python benchmarks/compare.py RESULTS.jsonl --reference scip

With two files every solve of one is paired with the same case and repeat of the other. Per
method and family: the ratio of times (after over before) with the interval of the exact Wilcoxon
signed-rank test; ``slower`` where all of it lies above 1 + threshold, ``faster`` where all lies
below. Ends with 1 when anything is slower, worse or newly unsolved. With one file: its methods
beside each other.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from intervals import Interval, log_ratio, pairs_needed, ratio_interval, shifted_mean
from results import key_of, read_lines
from rich.console import Console
from rich.table import Table

Line = dict[str, Any]
Pair = tuple[Line, Line]

_ALL = "all families"
_WORSE = 1e-6
"""Served less by this share beyond the gap both were allowed is worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What two files say of one method on one family."""

    method: str
    family: str
    before_seconds: float
    after_seconds: float
    ratio: Interval
    before_unsolved: int
    after_unsolved: int
    served: float
    """Geometric mean of what is served, after over before; NaN where nothing can be compared."""
    worst_served: float
    word: str
    """``slower``, ``faster``, ``worse``, ``unsolved``, ``too few`` (pairs) or nothing."""


def verdicts(
    before: list[Line], after: list[Line], *, confidence: float, threshold: float, clock: str
) -> list[Verdict]:
    """One verdict per method and family, and one per method over all families."""
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in _pairs(before, after):
        method, family = pair[0]["method"], pair[0]["family"]
        groups[method, family].append(pair)
        groups[method, _ALL].append(pair)
    order = sorted(groups, key=lambda group: (group[0], group[1] == _ALL, group[1]))
    return [
        _verdict(group, groups[group], confidence=confidence, threshold=threshold, clock=clock)
        for group in order
    ]


def _pairs(before: list[Line], after: list[Line]) -> list[Pair]:
    then = {(key_of(line), line["repeat"]): line for line in before}
    both = [(then.get((key_of(line), line["repeat"])), line) for line in after]
    return [(one, other) for one, other in both if one is not None]


def _verdict(
    group: tuple[str, str], pairs: list[Pair], *, confidence: float, threshold: float, clock: str
) -> Verdict:
    # Where either was stopped, its time is the limit and says nothing.
    timed = [pair for pair in pairs if pair[0]["is_solved"] and pair[1]["is_solved"]]
    logs = [log_ratio(after[clock], before[clock]) for before, after in timed]
    ratio = ratio_interval(logs, confidence=confidence)
    unsolved = [sum(not pair[side]["is_solved"] for pair in pairs) for side in (0, 1)]
    served = [math.log(each) for each in map(_served_ratio, pairs) if each is not None]
    allowed = max((pair[0]["gap"] for pair in pairs), default=0.0)
    worst = math.exp(min(served)) if served else math.nan
    least = min(_medians(pairs), default=1.0)
    if _is_newly_unsolved(pairs, confidence=confidence):
        word = "unsolved"
    elif least < 1 - allowed - _WORSE:
        word = "worse"
    elif ratio.pairs < pairs_needed(confidence):
        word = "too few" if timed else ""
    elif ratio.low > 1 + threshold:
        word = "slower"
    elif ratio.high < 1 / (1 + threshold):
        word = "faster"
    else:
        word = ""
    return Verdict(
        method=group[0],
        family=group[1],
        before_seconds=shifted_mean([before[clock] for before, _ in timed]),
        after_seconds=shifted_mean([after[clock] for _, after in timed]),
        ratio=ratio,
        before_unsolved=unsolved[0],
        after_unsolved=unsolved[1],
        served=math.exp(math.fsum(served) / len(served)) if served else math.nan,
        worst_served=worst,
        word=word,
    )


def _by_case(pairs: list[Pair]) -> list[list[Pair]]:
    """Pairs that differ in the repeat alone."""
    cases: dict[tuple[Any, ...], list[Pair]] = defaultdict(list)
    for pair in pairs:
        cases[key_of(pair[0])].append(pair)
    return list(cases.values())


def _medians(pairs: list[Pair]) -> list[float]:
    """What is served, after over before: per case the median of its repeats."""
    ratios = [[_served_ratio(pair) for pair in case] for case in _by_case(pairs)]
    known = [[ratio for ratio in case if ratio is not None] for case in ratios]
    return [median(case) for case in known if case]


def _is_newly_unsolved(pairs: list[Pair], *, confidence: float) -> bool:
    """A case solved in every repeat before and in none after, or too many losses for chance.

    Chance is the exact sign test of losses against gains (McNemar): solves that end near the
    limit fall on either side of it.
    """
    for case in _by_case(pairs):
        if len(case) > 1 and all(
            before["is_solved"] and not after["is_solved"] for before, after in case
        ):
            return True
    losses = sum(before["is_solved"] and not after["is_solved"] for before, after in pairs)
    gains = sum(after["is_solved"] and not before["is_solved"] for before, after in pairs)
    both = losses + gains
    tail = sum(math.comb(both, count) for count in range(losses, both + 1)) / 2**both
    return both > 0 and tail <= 1 - confidence


def _served_ratio(pair: Pair) -> float | None:
    """What is served, after over before; None where either has nothing or the floors differ."""
    stages = [line["stages"] for line in pair]
    if not all("served" in stage for stage in stages):
        return None
    floors = [stage.get("floors", {}).get("objective", 0.0) for stage in stages]
    if not math.isclose(floors[0], floors[1], rel_tol=1e-6, abs_tol=1e-9):
        return None
    before, after = (stage["served"]["objective"] for stage in stages)
    if before == 0 or after == 0 or (before > 0) != (after > 0):
        return None
    # A negative utility that grows in size has become worse.
    return float(after / before if before > 0 else before / after)


def verdict_table(found: list[Verdict], *, clock: str) -> Table:
    """The verdicts, one row each."""
    title = f"after over before, {'processor' if clock == 'cpu_seconds' else 'wall'} time"
    table = Table("method", "family", title=title, title_justify="left")
    for name in ("pairs", "before", "after", "ratio", "interval", "unsolved", "served", "worst"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for each in found:
        ratio = each.ratio
        table.add_row(
            each.method,
            each.family,
            str(ratio.pairs),
            _seconds(each.before_seconds),
            _seconds(each.after_seconds),
            "-" if math.isnan(ratio.centre) else f"{ratio.centre:.2f}",
            "-" if math.isinf(ratio.high) else f"{ratio.low:.2f} to {ratio.high:.2f}",
            f"{each.before_unsolved} → {each.after_unsolved}",
            "-" if math.isnan(each.served) else f"{each.served:.6f}",
            "-" if math.isnan(each.worst_served) else f"{each.worst_served:.6f}",
            each.word,
            end_section=each.family == _ALL,
        )
    return table


def calibration(before: list[Line], after: list[Line]) -> str:
    """A sentence on how fast the machine itself was."""
    logs = [
        math.log(one["calibration_seconds"] / other["calibration_seconds"])
        for other, one in _pairs(before, after)
        if one["calibration_seconds"] and other["calibration_seconds"]
    ]
    ratio = ratio_interval(logs, confidence=0.95)
    if math.isnan(ratio.centre):
        return "no pair has a calibration"
    note = "; read the times with care" if abs(math.log(ratio.centre)) > 0.05 else ""
    return f"a fixed piece of work took {ratio.centre:.2f} times as long after as before{note}"


def methods_table(lines: list[Line], *, reference: str) -> Table:
    """Methods of one run beside ``reference``, on the cases both have."""
    by_method: dict[str, dict[tuple[Any, ...], Line]] = defaultdict(dict)
    for line in lines:
        key = (key_of({**line, "method": ""}), line["repeat"])
        by_method[line["method"]][key] = line
    if reference not in by_method:
        reference = next(iter(by_method), reference)
    table = Table("method", title=f"beside {reference}, same cases", title_justify="left")
    for name in ("solves", "solved", "invalid", "seconds", "time", "served", "worst"):
        table.add_column(name, justify="right")
    for method, solved in by_method.items():
        keys = [key for key in solved if key in by_method[reference]]
        pairs = [(by_method[reference][key], solved[key]) for key in keys]
        timed = [pair for pair in pairs if pair[0]["is_solved"] and pair[1]["is_solved"]]
        ratio = ratio_interval(
            [log_ratio(mine["seconds"], theirs["seconds"]) for theirs, mine in timed],
            confidence=0.95,
        )
        served = [each for each in map(_served_ratio, pairs) if each is not None]
        table.add_row(
            method,
            str(len(solved)),
            str(sum(line["is_solved"] for line in solved.values())),
            str(sum(bool(line["wrong"]) for line in solved.values())),
            _seconds(shifted_mean([mine["seconds"] for _, mine in timed])),
            "-" if math.isnan(ratio.centre) else f"{ratio.centre:.2f}",
            f"{math.exp(math.fsum(map(math.log, served)) / len(served)):.6f}" if served else "-",
            f"{min(served):.6f}" if served else "-",
        )
    return table


def _seconds(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="JSON lines of run.py")
    parser.add_argument("after", type=Path, nargs="?", help="the same cases, later")
    parser.add_argument("--confidence", type=float, default=0.99, help="default: %(default)s")
    parser.add_argument(
        "--threshold", type=float, default=0.1, help="smaller changes do not count; %(default)s"
    )
    parser.add_argument("--cpu", action="store_true", help="processor time, not wall time")
    parser.add_argument("--reference", default="fast", help="with one file; default: %(default)s")
    chosen = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 150)
    before = read_lines(chosen.before)
    if chosen.after is None:
        console.print(methods_table(before, reference=chosen.reference))
        return 0
    after = read_lines(chosen.after)
    clock = "cpu_seconds" if chosen.cpu else "seconds"
    found = verdicts(
        before, after, confidence=chosen.confidence, threshold=chosen.threshold, clock=clock
    )
    if not found:
        raise SystemExit("the files have no case in common")
    console.print(verdict_table(found, clock=clock))
    console.print(calibration(before, after), highlight=False)
    bad = [each for each in found if each.word in ("slower", "worse", "unsolved")]
    for each in bad:
        console.print(f"{each.word}: {each.method} on {each.family}", highlight=False)
    if not bad:
        console.print("nothing got slower, worse or unsolved that these runs could show")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
