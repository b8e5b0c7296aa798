"""The benchmark runs, checks what it measures and compares what is comparable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from powercap_solver.instances import FAMILIES

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=BENCHMARKS,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench") / "smoke.jsonl"
    done = _run("run.py", "--smoke", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_smoke_solves_every_family_once_and_every_plan_is_valid(smoke: Path) -> None:
    lines = _lines(smoke)

    assert [line["family"] for line in lines] == list(FAMILIES)
    assert all(line["wrong"] == [] for line in lines)
    assert all(line["stages"]["served"]["objective"] > 0 for line in lines)


def test_equal_runs_have_quality_one(smoke: Path) -> None:
    done = _run("compare.py", str(smoke))

    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("exact ")]
    assert row.split()[1] == str(len(FAMILIES))
    assert row.split()[-2:] == ["1.000000", "1.000000"]


def test_a_worse_plan_is_seen_in_the_comparison(smoke: Path, tmp_path: Path) -> None:
    worse = tmp_path / "worse.jsonl"
    lines = _lines(smoke)
    for line in _lines(smoke):
        served = line["stages"]["served"]
        changed = {**served, "objective": served["objective"] * 0.9}
        stages = {**line["stages"], "served": changed}
        lines.append({**line, "method": "other", "stages": stages})
    worse.write_text("\n".join(json.dumps(line) for line in lines))

    done = _run("compare.py", str(worse))

    (row,) = [line for line in done.stdout.splitlines() if line.startswith("other ")]
    assert row.split()[-2] == "0.900000"


def test_the_committed_baseline_can_be_compared_with(smoke: Path) -> None:
    stored = json.loads((BENCHMARKS / "baseline.json").read_text())

    done = _run("compare.py", str(smoke), "--baseline", "baseline.json")

    assert {"machine", "solves"} <= stored.keys()
    assert done.returncode == 0, done.stderr
    assert "== exact" in done.stdout


def test_a_file_without_the_reference_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")

    done = _run("compare.py", str(empty))

    assert done.returncode != 0
    assert "no line of the reference" in done.stderr
    assert "Traceback" not in done.stderr
