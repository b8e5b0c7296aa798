"""One case measured, here or in a process of its own; the plan is verified before it counts."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import parameters
from settings import CHANGED_FRACTION, Case

from powercap_solver import ladder
from powercap_solver.certificate import verify
from powercap_solver.files import read_problem
from powercap_solver.instances import FAMILIES, changed, measured
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import LastStage, Method, SolveSettings
from powercap_solver.warm import warm_start_of

Line = dict[str, Any]

_FIRST_SHARE: float = getattr(ladder, "_FIRST_SHARE", 1.0)
"""The ladder gives its first method this share of the deadline; a limit is for the method."""
_ANSWERS = {Method.FAST.value: "fast", Method.GREEDY.value: "greedy"}
"""The rung that answers when a method does; all others are compact."""
_GAP_STAGES = ("floors", "served", "throughput_per_watt")
_GAP_SLACK = 1.01
_PATIENCE = 3.0
"""A process of its own is ended after this many times its limits."""


def measure(case: Case) -> Line:
    """Build, solve and verify one case."""
    at_start = memory("VmRSS")
    begun = time.perf_counter()
    problem = build(case)
    warm = None
    if case.start != "cold":
        before = problem
        problem = changed(before, fraction=CHANGED_FRACTION, seed=case.seed)
        if case.start == "changed_warm":
            warm = warm_start_of(_solved(case, before, None))
    built = time.perf_counter()
    calibration = calibrate()
    gc.collect()
    forget_peak()
    rss = memory("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    plan = _solved(case, problem, warm)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = memory("VmHWM")
    wrong = list(verify(problem, plan))
    stages = {stage.name: _stage(stage) for stage in plan.stages}
    has_fallen = plan.rung not in (_ANSWERS.get(case.method, "compact"), "lowest")
    return {
        **_described(case),
        "build_seconds": built - begun,
        "seconds": wall,
        "cpu_seconds": cpu,
        "calibration_seconds": calibration,
        "rss_at_start_bytes": at_start,
        "rss_before_bytes": rss,
        "peak_bytes": peak,
        "status": plan.status.value,
        "rung": plan.rung,
        "is_solved": not wrong and not has_fallen and _is_proven(plan, case.gap),
        "wrong": wrong,
        "stages": stages,
        "error": "",
    }


def measure_apart(case: Case) -> Line:
    """The same in a process of its own, ended when it overstays; its memory is its own."""
    limit = 120.0 + _PATIENCE * case.limit_seconds * (1 if case.start == "cold" else 2)
    try:
        done = subprocess.run(
            [sys.executable, str(Path(__file__)), json.dumps(dataclasses.asdict(case))],
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return failed(case, f"still running after {limit:.0f} s")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return failed(case, f"ended with {done.returncode}: {last}")
    line: Line = json.loads(done.stdout.strip().splitlines()[-1])
    return line


def failed(case: Case, error: str) -> Line:
    """A line for a solve that gave nothing."""
    return {
        **_described(case),
        "build_seconds": None,
        "seconds": None,
        "cpu_seconds": None,
        "calibration_seconds": None,
        "rss_at_start_bytes": None,
        "rss_before_bytes": None,
        "peak_bytes": None,
        "status": "failed",
        "rung": "",
        "is_solved": False,
        "wrong": [],
        "stages": {},
        "error": error,
    }


def build(case: Case) -> PlanningProblem:
    """The problem of a case."""
    if case.family == "measured":
        return measured(Path(case.path), size=case.size, seed=case.seed)
    if case.family == "saved":
        return read_problem(Path(case.path))
    return FAMILIES[case.family].make(size=case.size, seed=case.seed)


def machine() -> Line:
    """What the times depend on."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", ""),
        "python": platform.python_version(),
        **{name: version(name) for name in ("powercap", "ortools", "pulp", "numpy", "scipy")},
    }


def calibrate() -> float:
    """Seconds of a fixed piece of work: tells a busy machine from slower code."""
    table = np.linspace(0.0, 1.0, 200_000)
    begun = time.perf_counter()
    for _ in range(3):
        table = np.sort(np.cos(table * 1e4))
    return time.perf_counter() - begun


def memory(field: str) -> int | None:
    """Bytes that Linux states for this process; None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 if found else None


def forget_peak() -> None:
    """Start the peak memory anew, where Linux lets us."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return


def _solved(case: Case, problem: PlanningProblem, warm: Any) -> Plan:
    settings = SolveSettings(
        objective=case.objective,
        method=Method(case.method),
        last_stage=LastStage(case.last_stage),
        relative_gap=case.gap,
        deadline_seconds=case.limit_seconds / _FIRST_SHARE,
    )
    with parameters.applied(dict(case.parameters)):
        return ladder.solve(problem, settings=settings, warm=warm)


def _is_proven(plan: Plan, gap: float) -> bool:
    return all(
        stage.gap <= _GAP_SLACK * max(gap, 1e-9)
        for stage in plan.stages
        if stage.name in _GAP_STAGES
    )


def _stage(stage: Any) -> Line:
    names = ("objective", "bound", "gap", "method", "seconds")
    return {
        **{name: getattr(stage, name) for name in names},
        "stopped_by": stage.stopped_by.value,
    }


def _described(case: Case) -> Line:
    line = dataclasses.asdict(case)
    line["parameters"] = dict(case.parameters)
    line["objective"] = case.objective.value
    return line


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor()


def _main() -> None:
    fields = json.loads(sys.argv[1])
    case = Case(**{**fields, "parameters": tuple(tuple(pair) for pair in fields["parameters"])})
    # Imports and the first call of a back end are not part of what is measured.
    first = dataclasses.replace(
        case, family="fleet_one_cap", size=100, gap=1e-3, limit_seconds=2.0, start="cold", path=""
    )
    measure(first)
    print(json.dumps(measure(case)))


if __name__ == "__main__":
    _main()
