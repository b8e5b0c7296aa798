"""Search for better settings: a grid or a seeded random search, per family.

    python benchmarks/tune.py --method scip --families fleet_tree_pools --size 100 \
        --try presolve=on,off --try cuts=off,medium,high
    python benchmarks/tune.py --method fast --families fleet_tree --size 1000 \
        --try fast.prices._COOLING=0.1,0.2,0.4 --random 8

Seeds below 1,000 are for reports: settings are chosen on seeds from 1,000, and the best is then
solved beside the default on seeds from 2,000, so that what is printed is not the luck of the
search. A solve that is not proven within the limit counts ten times the limit.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import settings
from intervals import Interval, log_ratio, ratio_interval, shifted_mean
from results import described, write_csv
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from powercap_solver.instances import FAMILIES
from powercap_solver.settings import LastStage, Method

Line = dict[str, Any]
Parameters = tuple[tuple[str, settings.Parameter], ...]
Measure = Callable[[settings.Case], Line]

_PENALTY = 10.0
_DEFAULT: Parameters = ()

GRIDS: dict[str, dict[str, tuple[settings.Parameter, ...]]] = {
    "highs": {"presolve": ("on", "off"), "heuristics": ("off", "medium", "high")},
    "scip": {"presolve": ("on", "off"), "cuts": ("off", "medium"), "heuristics": ("off", "medium")},
    "cp_sat": {"presolve": ("on", "off"), "threads": (1, 2)},
    "cbc": {"presolve": ("on", "off")},
    "fast": {
        "fast.prices._COOLING": (0.1, 0.2, 0.4),
        "fast.prices._STEPS_PER_STAGE": (3, 6, 12),
        "fast.exchange._ROUNDS": (10, 30),
    },
}
"""What is tried where nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The best setting of one family."""

    family: str
    best: Parameters
    default_seconds: float
    best_seconds: float
    """Shifted means on the seeds for confirming, penalties included."""
    ratio: Interval
    """Best over default on those seeds."""


def candidates(
    grid: dict[str, tuple[settings.Parameter, ...]], *, at_most: int | None, seed: int
) -> list[Parameters]:
    """The default, and every combination or ``at_most`` of them at random."""
    names = sorted(grid)
    combined = [
        tuple(zip(names, values, strict=True))
        for values in itertools.product(*(grid[name] for name in names))
    ]
    if at_most is not None and at_most < len(combined):
        picked = np.random.default_rng(seed).choice(len(combined), at_most, replace=False)
        combined = [combined[index] for index in sorted(picked.tolist())]
    return [_DEFAULT, *combined]


def search(
    base: settings.Case,
    tried: list[Parameters],
    *,
    seeds: int,
    confirming: int,
    confidence: float,
    measure: Measure,
) -> tuple[Found, list[Line]]:
    """Choose on some seeds, confirm on others."""
    lines: list[Line] = []

    def costs(parameters: Parameters, first: int, count: int) -> list[float]:
        found = [
            measure(replace(base, parameters=parameters, seed=first + index))
            for index in range(count)
        ]
        lines.extend(found)
        return [
            line["seconds"] if line["is_solved"] else _PENALTY * base.limit_seconds
            for line in found
        ]

    means = [shifted_mean(costs(each, settings.TUNING_SEEDS, seeds)) for each in tried]
    best = tried[int(np.argmin(means))]
    default = costs(_DEFAULT, 2 * settings.TUNING_SEEDS, confirming)
    chosen = costs(best, 2 * settings.TUNING_SEEDS, confirming) if best else default
    logs = [log_ratio(one, other) for one, other in zip(chosen, default, strict=True)]
    found = Found(
        family=base.family,
        best=best,
        default_seconds=shifted_mean(default),
        best_seconds=shifted_mean(chosen),
        ratio=ratio_interval(logs, confidence=confidence),
    )
    return found, lines


def found_table(found: list[Found], *, method: str, confidence: float) -> Table:
    """The best setting of every family."""
    title = f"{method}: best setting, confirmed on other seeds ({confidence:.0%} intervals)"
    table = Table("family", "best setting", title=title, title_justify="left")
    for name in ("default", "best", "ratio", "interval", "pairs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for each in found:
        text = ", ".join(f"{name}={value}" for name, value in each.best) or "the default"
        is_known = each.ratio.high < float("inf")
        verdict = "better" if each.best and each.ratio.high < 1 else "not shown to be better"
        table.add_row(
            each.family,
            text,
            f"{each.default_seconds:.4f}",
            f"{each.best_seconds:.4f}",
            f"{each.ratio.centre:.2f}",
            f"{each.ratio.low:.2f} to {each.ratio.high:.2f}" if is_known else "too few",
            str(each.ratio.pairs),
            verdict if each.best else "",
        )
    return table


def _tried(text: str) -> tuple[str, tuple[settings.Parameter, ...]]:
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: NAME=VALUE,VALUE,…")
    return name, tuple(_value(each) for each in values.split(","))


def _value(text: str) -> settings.Parameter:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", default="fast", choices=sorted(GRIDS))
    parser.add_argument("--families", default="fleet_one_cap,fleet_tree", help="by commas")
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--gap", type=float, default=1e-4)
    parser.add_argument("--limit", type=float, default=10.0, help="seconds of every solve")
    stages = [each.value for each in LastStage]
    parser.add_argument("--last-stage", choices=stages, default=LastStage.SERVED.value)
    parser.add_argument(
        "--try",
        dest="tried",
        type=_tried,
        action="append",
        metavar="NAME=VALUE,…",
        help="default: a small grid per method",
    )
    parser.add_argument("--random", type=int, metavar="N", help="N combinations at random")
    parser.add_argument("--seeds", type=int, default=4, help="to choose on")
    parser.add_argument("--confirm", type=int, default=8, help="to confirm on")
    parser.add_argument("--search-seed", type=int, default=0)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--out", type=Path, default=Path("out/tune.csv"), help="every solve")
    chosen = parser.parse_args(arguments)
    names = chosen.families.split(",")
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        raise SystemExit(f"family {unknown[0]!r} is not known; accepted: {', '.join(FAMILIES)}")
    grid = dict(chosen.tried) if chosen.tried else GRIDS[chosen.method]
    tried = candidates(grid, at_most=chosen.random, seed=chosen.search_seed)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 150)
    found, lines = [], []
    with Progress(console=console) as progress:
        total = len(names) * (len(tried) * chosen.seeds + 2 * chosen.confirm)
        task = progress.add_task("", total=total)

        def measure(case: settings.Case) -> Line:
            progress.update(task, description=f"{described(case)[:46]:46}")
            line = measuring.measure(case)
            progress.advance(task)
            return line

        for name in names:
            base = settings.Case(
                family=name,
                size=chosen.size,
                seed=0,
                method=Method(chosen.method).value,
                gap=chosen.gap,
                limit_seconds=chosen.limit,
                last_stage=chosen.last_stage,
            )
            one, more = search(
                base,
                tried,
                seeds=chosen.seeds,
                confirming=chosen.confirm,
                confidence=chosen.confidence,
                measure=measure,
            )
            found.append(one)
            lines += more
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_csv(lines, chosen.out)
    out = Console(width=None if sys.stdout.isatty() else 150)
    out.print(found_table(found, method=chosen.method, confidence=chosen.confidence))
    return 0


if __name__ == "__main__":
    sys.exit(main())
