"""Solve the benchmark's cases: families x sizes x methods x settings x seeds.

    python benchmarks/run.py --quick
    python benchmarks/run.py --table --compact-limit 600
    python benchmarks/run.py --families fleet_tree --sizes 1000 --methods fast,scip --gaps 1e-4

Writes OUT.jsonl (a line per solve, as soon as it is known) and OUT.csv (a row per stage), and
prints every method beside the reference of the same run. Ends with 1 when a plan was not valid.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import compare
import measuring
import settings
import table
from results import described, write_csv
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from powercap_solver.instances import FAMILIES
from powercap_solver.settings import LastStage, Method

Line = dict[str, Any]


def run(
    cases: list[settings.Case], out: Path, *, measure: Callable[[settings.Case], Line]
) -> list[Line]:
    """Measure all cases; files are complete up to the last solve whenever this is stopped."""
    about = measuring.machine()
    lines: list[Line] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description}", justify="left"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        out.with_suffix(".jsonl").open("w", encoding="utf-8") as file,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("", total=len(cases))
        for case in cases:
            progress.update(task, description=f"{described(case)[:46]:46}")
            line = {**_measured(case, measure), **about}
            file.write(json.dumps(line) + "\n")
            file.flush()
            lines.append(line)
            progress.advance(task)
    write_csv(lines, out.with_suffix(".csv"))
    return lines


def _measured(case: settings.Case, measure: Callable[[settings.Case], Line]) -> Line:
    try:
        return measure(case)
    except Exception as error:
        # Hours of other solves are not lost to one that breaks; the line says what happened.
        return measuring.failed(case, f"{type(error).__name__}: {error}")


def main(arguments: list[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    # The ladder tells of rungs that gave nothing; here the lines say so.
    logging.getLogger("powercap_solver").setLevel(logging.CRITICAL)
    suite = next((name for name in (*settings.SUITES, "table") if getattr(chosen, name)), "")
    cases = _cases(chosen, suite)
    if chosen.list:
        print("\n".join(described(case) for case in cases))
        return 0
    is_apart = chosen.isolate or suite == "table" or suite in settings.ISOLATED
    measure = measuring.measure_apart if is_apart else measuring.measure
    out = chosen.out or Path(f"out/bench-{suite or 'chosen'}")
    lines = run(cases, out, measure=measure)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 150)
    if suite == "table":
        text = table.markdown(lines)
        out.with_suffix(".md").write_text(text, encoding="utf-8")
        print(text)
    else:
        console.print(compare.methods_table(lines, reference=chosen.reference))
    console.print(f"{out}.jsonl (a line per solve), {out}.csv (a row per stage)", highlight=False)
    invalid = [line for line in lines if line["wrong"]]
    for line in invalid:
        where = f"{line['family']} {line['size']} seed {line['seed']} {line['method']}"
        console.print(f"NOT VALID: {where}: {line['wrong'][0]}", markup=False)
    for line in [line for line in lines if line["error"]]:
        where = f"{line['family']} {line['size']} seed {line['seed']} {line['method']}"
        console.print(f"no answer: {where}: {line['error']}", markup=False)
    return 1 if invalid else 0


def _cases(chosen: argparse.Namespace, suite: str) -> list[settings.Case]:
    if suite == "table":
        cases = table.cases(
            rows=chosen.rows,
            seeds=chosen.seeds or 5,
            compact=chosen.compact,
            compact_seeds=chosen.compact_seeds,
            compact_limit=chosen.compact_limit,
        )
    elif suite and not (chosen.families or chosen.measured or chosen.problem):
        cases = settings.SUITES[suite]()
    else:
        cases = _crossed(chosen)
    parameters = tuple(sorted(chosen.parameter))
    return [replace(case, parameters=parameters) for case in cases] if parameters else cases


def _crossed(chosen: argparse.Namespace) -> list[settings.Case]:
    """What single flags ask for; sizes left out are all sizes of a family."""
    named = list(chosen.families or ())
    unknown = [name for name in named if name not in FAMILIES]
    if unknown:
        raise SystemExit(f"family {unknown[0]!r} is not known; accepted: {', '.join(FAMILIES)}")
    sources = [(name, "", size) for name in named for size in chosen.sizes or FAMILIES[name].sizes]
    if chosen.measured:
        path = str(chosen.measured.resolve())
        sources += [("measured", path, size) for size in chosen.sizes or (100, 1_000)]
    sources += [("saved", str(path.resolve()), 0) for path in chosen.problem or ()]
    if not sources:
        raise SystemExit("choose a suite, --families, --measured or --problem; see --help")
    return [
        settings.Case(
            family=family,
            path=path,
            size=size,
            seed=seed,
            method=method,
            gap=gap,
            limit_seconds=limit,
            last_stage=chosen.last_stage,
            repeat=repeat,
        )
        for repeat in range(chosen.repeats)
        for family, path, size in sources
        for seed in range(1 if family == "saved" else chosen.seeds or 3)
        for gap in chosen.gaps
        for limit in chosen.limits
        for method in chosen.methods
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    for name, suite in settings.SUITES.items():
        which.add_argument(
            f"--{name.replace('_', '-')}", action="store_true", help=(suite.__doc__ or "").strip()
        )
    which.add_argument(
        "--table", action="store_true", help="The speed table, each solve in its own process."
    )
    words, numbers, reals = _listed(str), _listed(int), _listed(float)
    parser.add_argument("--families", type=words, help="names, by commas")
    parser.add_argument("--sizes", type=numbers, help="default: all of a family")
    parser.add_argument("--measured", type=Path, metavar="CSV", help="instances of these curves")
    parser.add_argument("--problem", type=Path, nargs="+", help="saved problems, .json or .npz")
    parser.add_argument("--methods", type=_methods, default=["fast"], help="of settings.Method")
    parser.add_argument("--seeds", type=int, help="how many, from 0; default 3, table 5")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--gaps", type=reals, default=[1e-4])
    parser.add_argument("--limits", type=reals, default=[30.0], help="seconds of every solve")
    parser.add_argument(
        "--last-stage", choices=[each.value for each in LastStage], default="give_back"
    )
    parser.add_argument(
        "--parameter",
        type=_parameter,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="threads=2, presolve=off, fast.many_rows._PRICE_GAP=0.1, …; see parameters.py",
    )
    parser.add_argument("--isolate", action="store_true", help="a process for every solve")
    parser.add_argument("--rows", type=words, help=f"of the table: {', '.join(table.ROWS)}")
    parser.add_argument("--compact", type=_methods, default=["highs", "scip"], help="of the table")
    parser.add_argument("--compact-seeds", type=int, default=1, help="of the table; default 1")
    parser.add_argument("--compact-limit", type=float, default=600.0, help="of the table, seconds")
    parser.add_argument("--reference", default=settings.REFERENCE, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="without ending; default out/bench-SUITE")
    parser.add_argument("--list", action="store_true", help="print the cases, solve nothing")
    return parser


def _listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def listed(text: str) -> list[Any]:
        return [kind(each.strip()) for each in text.split(",") if each.strip()]

    return listed


def _methods(text: str) -> list[str]:
    return [Method(each.strip().replace("-", "_")).value for each in text.split(",")]


def _parameter(text: str) -> tuple[str, settings.Parameter]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: NAME=VALUE")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


if __name__ == "__main__":
    sys.exit(main())
