"""Solve the benchmark's cases and write one JSON line per solve.

    python benchmarks/run.py --quick
    python benchmarks/run.py --smoke

The comparison with the reference of the same run is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import compare
import settings

from powercap_solver.certificate import verify
from powercap_solver.instances import FAMILIES


def measure(case: settings.Case) -> dict[str, Any]:
    """Solve one case; the plan is verified before its numbers count."""
    family = FAMILIES[case.family]
    begun = time.perf_counter()
    problem = family.make(size=case.size, seed=case.seed)
    built = time.perf_counter()
    plan = settings.METHODS[case.method](problem)
    solved = time.perf_counter()
    return {
        "family": case.family,
        "size": case.size,
        "seed": case.seed,
        "method": case.method,
        "build_seconds": built - begun,
        "solve_seconds": solved - built,
        "status": plan.status.value,
        "rung": plan.rung,
        "wrong": list(verify(problem, plan)),
        "stages": {
            stage.name: {
                "objective": stage.objective,
                "bound": stage.bound,
                "gap": stage.gap,
                "method": stage.method,
                "seconds": stage.seconds,
                "stopped_by": stage.stopped_by.value,
            }
            for stage in plan.stages
        },
    }


def machine() -> dict[str, Any]:
    """What the times depend on."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "powercap": version("powercap"),
        "ortools": version("ortools"),
        "numpy": version("numpy"),
    }


def run(cases: Iterable[settings.Case], out: TextIO) -> list[dict[str, Any]]:
    """Measure all cases, each written as soon as it is known."""
    about = machine()
    lines = []
    for case in cases:
        line = {**measure(case), **about}
        out.write(json.dumps(line) + "\n")
        out.flush()
        lines.append(line)
        print(
            f"{case.family:18} {case.size:5} seed {case.seed} {case.method:12} "
            f"{line['solve_seconds']:8.3f} s  {line['status']}",
            file=sys.stderr,
        )
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--smoke", action="store_true", help="every family once, smallest size")
    which.add_argument("--quick", action="store_true", help="small sizes, under a minute")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/bench.jsonl"),
        help="file for the JSON lines; - for stdout; default: %(default)s",
    )
    chosen = parser.parse_args(arguments)
    cases = (
        settings.smoke() if chosen.smoke else settings.quick() if chosen.quick else settings.full()
    )
    if str(chosen.out) == "-":
        lines = run(cases, sys.stdout)
    else:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        with chosen.out.open("w", encoding="utf-8") as out:
            lines = run(cases, out)
        print(f"one JSON line per solve: {chosen.out}", file=sys.stderr)
    print(compare.report(lines, reference=settings.REFERENCE), file=sys.stderr)
    broken = [line for line in lines if line["wrong"]]
    for line in broken:
        print(f"NOT VALID: {line['family']} {line['size']}: {line['wrong']}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
