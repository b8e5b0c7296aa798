"""The benchmark builds every family, checks what it measures and compares what is comparable."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powercap_solver.errors import FileFormatError
from powercap_solver.files import write_problem
from powercap_solver.instances import FAMILIES, Kind, changed, measured
from powercap_solver.problem import PlanningProblem

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"

Line = dict[str, Any]


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
    out = tmp_path_factory.mktemp("bench") / "smoke"
    done = _run("run.py", "--smoke", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


def _lines(path: Path) -> list[Line]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_smoke_solves_every_family_once_and_every_plan_is_valid(smoke: Path) -> None:
    lines = _lines(smoke.with_suffix(".jsonl"))

    assert [line["family"] for line in lines] == list(FAMILIES)
    assert [line["error"] for line in lines if line["error"]] == []
    assert all(line["wrong"] == [] for line in lines)
    assert all("served" in line["stages"] for line in lines)


def test_json_lines_and_csv_are_tidy_and_say_the_same(smoke: Path) -> None:
    lines = _lines(smoke.with_suffix(".jsonl"))
    with smoke.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert len({tuple(line) for line in lines}) == 1
    assert {"machine", "cores", "python", "ortools", "seed", "calibration_seconds"} <= lines[
        0
    ].keys()
    assert len(rows) == sum(len(line["stages"]) for line in lines)
    assert all(None not in row and None not in row.values() for row in rows)
    served = {
        row["family"]: float(row["stage_objective"]) for row in rows if row["stage"] == "served"
    }
    assert served == {line["family"]: line["stages"]["served"]["objective"] for line in lines}


def test_one_file_is_a_table_of_its_methods(smoke: Path) -> None:
    done = _run("compare.py", str(smoke.with_suffix(".jsonl")))

    assert done.returncode == 0, done.stderr
    assert "beside fast" in done.stdout


def test_instances_of_measured_curves_and_saved_problems_are_solved(
    curves: Path, tmp_path: Path
) -> None:
    write_problem(FAMILIES["fleet_one_cap"].make(size=20, seed=0), tmp_path / "site.json")
    done = _run(
        "run.py", "--measured", str(curves), "--sizes", "20", "--problem",
        str(tmp_path / "site.json"), "--methods", "fast,greedy", "--seeds", "1", "--gaps", "1e-3",
        "--limits", "2", "--out", str(tmp_path / "bench"), "--parameter", "threads=1",
    )  # fmt: skip

    lines = _lines(tmp_path / "bench.jsonl")
    assert done.returncode == 0, done.stderr
    assert [(line["family"], line["method"]) for line in lines] == [
        ("measured", "fast"), ("measured", "greedy"), ("saved", "fast"), ("saved", "greedy"),
    ]  # fmt: skip
    assert all(line["stages"]["served"]["objective"] > 0 for line in lines)


def test_a_solve_apart_states_its_own_memory(tmp_path: Path) -> None:
    done = _run(
        "run.py", "--families", "fleet_one_cap", "--sizes", "10000", "--seeds", "1", "--gaps",
        "1e-3", "--last-stage", "served", "--isolate", "--out", str(tmp_path / "bench"),
    )  # fmt: skip

    (line,) = _lines(tmp_path / "bench.jsonl")
    assert done.returncode == 0, done.stderr
    assert line["is_solved"]
    if sys.platform == "linux":
        assert 2e7 < line["peak_bytes"] - line["rss_at_start_bytes"] < 3e8


def test_an_unknown_family_or_parameter_is_named(tmp_path: Path) -> None:
    family = _run("run.py", "--families", "no_such", "--out", str(tmp_path / "x"))
    row = _run("run.py", "--table", "--rows", "no_such", "--out", str(tmp_path / "x"))

    assert "no_such" in family.stderr
    assert "fleet_tree" in family.stderr
    assert "no_such" in row.stderr
    assert "Traceback" not in family.stderr + row.stderr


# Comparison: synthetic files, so that what is planted is known.


def _synthetic(path: Path, *, seed: int, change: Callable[[Line], None] | None = None) -> Path:
    noise = random.Random(seed)
    lines = []
    for family in ("one", "two", "three"):
        for case in range(3):
            for repeat in range(4):
                line: Line = {
                    "family": family,
                    "path": "",
                    "size": 100,
                    "seed": case,
                    "method": "fast",
                    "gap": 1e-4,
                    "limit_seconds": 10.0,
                    "last_stage": "served",
                    "start": "cold",
                    "parameters": {},
                    "repeat": repeat,
                    "seconds": 0.2 * (case + 1) * noise.lognormvariate(0, 0.15),
                    "calibration_seconds": 0.01,
                    "is_solved": True,
                    "wrong": [],
                    "rung": "fast",
                    "stages": {"served": {"objective": 1000.0, "gap": 1e-5}},
                }
                line["cpu_seconds"] = line["seconds"]
                if noise.random() < 0.05:
                    # Now and then the machine does something else.
                    line["seconds"] *= 5
                if change is not None:
                    change(line)
                lines.append(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _slower(line: Line) -> None:
    if line["family"] == "two":
        line["seconds"] *= 1.6


def _serves_less(line: Line) -> None:
    if line["family"] == "two" and line["seed"] == 1:
        line["stages"]["served"]["objective"] = 990.0


def _unsolved(line: Line) -> None:
    if line["family"] == "two" and line["seed"] == 1:
        line["is_solved"] = False


@pytest.mark.parametrize("seed", range(2, 8, 2))
def test_comparison_says_nothing_of_noise(seed: int, tmp_path: Path) -> None:
    before = _synthetic(tmp_path / "before.jsonl", seed=seed)
    after = _synthetic(tmp_path / "after.jsonl", seed=seed + 1)

    done = _run("compare.py", str(before), str(after))

    assert done.returncode == 0, done.stdout
    assert "nothing got slower" in done.stdout


@pytest.mark.parametrize(
    ("change", "word"),
    [
        pytest.param(_slower, "slower", id="slower"),
        pytest.param(_serves_less, "worse", id="serves less"),
        pytest.param(_unsolved, "unsolved", id="no longer solved"),
    ],
)
def test_comparison_finds_what_was_planted(
    change: Callable[[Line], None], word: str, tmp_path: Path
) -> None:
    before = _synthetic(tmp_path / "before.jsonl", seed=1)
    after = _synthetic(tmp_path / "after.jsonl", seed=2, change=change)

    done = _run("compare.py", str(before), str(after))

    assert done.returncode == 1, done.stderr
    assert f"{word}: fast on two" in done.stdout
    assert "fast on one" not in done.stdout


def test_single_runs_are_too_few_to_say_anything(tmp_path: Path) -> None:
    before = _synthetic(tmp_path / "before.jsonl", seed=1)
    after = _synthetic(tmp_path / "after.jsonl", seed=2, change=_slower)
    for path in (before, after):
        first = [line for line in _lines(path) if line["repeat"] == 0 and line["seed"] == 0]
        path.write_text("".join(json.dumps(line) + "\n" for line in first))

    done = _run("compare.py", str(before), str(after))

    assert done.returncode == 0, done.stdout
    assert "too few" in done.stdout


def test_a_file_that_is_no_result_is_refused_by_name(tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"family": "one"}\n')

    done = _run("compare.py", str(other))

    assert done.returncode != 0
    assert "other.jsonl, line 1" in done.stderr
    assert "Traceback" not in done.stderr


def test_plots_are_drawn_of_what_the_files_hold(tmp_path: Path) -> None:
    lines = []
    for line in _lines(_synthetic(tmp_path / "base.jsonl", seed=1)):
        for method, factor in (("fast", 1.0), ("scip", 20.0)):
            for size, gap, limit in ((100, 1e-2, 10), (300, 1e-3, 10), (900, 1e-4, 10),
                                     (900, 1e-5, 10), (900, 1e-6, 10), (100, 1e-2, 1),
                                     (100, 1e-2, 3)):  # fmt: skip
                lines.append(
                    {
                        **line,
                        "method": method,
                        "size": size,
                        "gap": gap,
                        "limit_seconds": limit,
                        "seconds": line["seconds"] * factor * size / 100,
                        "rung": "fast" if method == "fast" else "compact",
                        "rss_at_start_bytes": 100_000_000,
                        "peak_bytes": 100_000_000 + 100_000 * size,
                    }
                )
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    done = _run("plots.py", str(path), "--out", str(tmp_path / "plots"))

    assert done.returncode == 0, done.stderr
    written = {each.name: each.read_bytes() for each in (tmp_path / "plots").iterdir()}
    assert set(written) == {
        "time_to_gap.png", "gap_over_time.png", "profile.png", "scaling.png",
    }  # fmt: skip
    assert all(each.startswith(b"\x89PNG") and len(each) > 10_000 for each in written.values())


def test_tuning_prints_a_setting_per_family_and_keeps_to_its_seeds(tmp_path: Path) -> None:
    done = _run(
        "tune.py", "--method", "scip", "--families", "scarce_one_cap", "--size", "10",
        "--try", "presolve=on,off", "--seeds", "1", "--confirm", "2", "--limit", "2",
        "--out", str(tmp_path / "tune.csv"),
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "scarce_one_cap" in done.stdout
    with (tmp_path / "tune.csv").open(newline="") as file:
        seeds = {int(row["seed"]) for row in csv.DictReader(file)}
    assert min(seeds) >= 1_000


# Instances.


@pytest.mark.parametrize("name", ["fleet_tree_pools_in_force", "variants", "subset_sum"])
def test_equal_seeds_give_equal_problems_and_others_do_not(name: str) -> None:
    family = FAMILIES[name]
    first, again, other = (family.make(size=family.sizes[0], seed=seed) for seed in (1, 1, 2))

    assert np.array_equal(first.upper_watts, again.upper_watts)
    assert np.array_equal(first.cap_watts, again.cap_watts)
    assert not np.array_equal(first.upper_watts, other.upper_watts)


def test_every_family_says_what_it_is_for() -> None:
    assert {family.kind for family in FAMILIES.values()} == set(Kind)
    assert all(family.summary.endswith((".", ":")) for family in FAMILIES.values())


def test_fleets_have_about_eighteen_options_and_the_asked_shapes() -> None:
    tree = FAMILIES["fleet_tree_pools"].make(size=1_000, seed=0)
    ramps = FAMILIES["fleet_ramps"].make(size=100, seed=0)

    assert tree.option_count.max() == 32
    assert abs(tree.option_count.mean() - 18) < 1
    assert len(tree.domains) == 50
    assert tree.pools is not None
    assert len(tree.pools.names) == 4
    assert (len(ramps.period_seconds), len(ramps.domains)) == (12, 9)
    assert len(FAMILIES["fleet_tree"].make(size=10_000, seed=0).domains) == 200


def test_a_fleet_of_a_hundred_thousand_is_built_and_concave() -> None:
    problem = FAMILIES["fleet_one_cap"].make(size=100_000, seed=0)

    step = np.diff(problem.served_tps[:, 0], axis=1)[:, :-1]
    is_inner = problem.is_option[:, 2:]
    assert len(problem.deployments) == 100_000
    assert ((np.diff(step, axis=1) <= 1e-6 * step.max()) | ~is_inner[:, 1:]).all()


def test_a_changed_problem_differs_in_a_few_deployments() -> None:
    problem = FAMILIES["fleet_tree"].make(size=1_000, seed=0)
    after = changed(problem, fraction=0.01, seed=5)

    moved = (after.served_tps != problem.served_tps).any(axis=(1, 2))
    ratio = after.load_tps[moved] / problem.load_tps[moved]
    assert moved.sum() == 10
    assert (np.abs(ratio - 1) <= 0.03).all()
    assert np.array_equal(after.cap_watts, problem.cap_watts)


@pytest.fixture
def curves(tmp_path: Path) -> Path:
    """A file in the form of measured curves, of numbers made up here."""
    rows = ["curve_id,gpus_per_replica,output_tokens_per_s,power_w,other"]
    for curve, gpus in (("small", 1), ("large", 4)):
        for tokens, watts in ((200, 250), (800, 380), (1500, 370), (2400, 460)):
            rows.append(f"{curve},{gpus},{tokens * gpus},{watts * gpus},x")
        rows.append(f"{curve},{gpus},,,not reported")
    path = tmp_path / "curves.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_measured_instances_follow_the_file(curves: Path) -> None:
    problem: PlanningProblem = measured(curves, size=50, seed=0)

    one = problem.upper_watts[:, 0, 1]
    expected = {round(1.05 * (460 - 70) * gpus, 6) for gpus in (1, 4)}
    assert {round(float(watts), 6) for watts in one} == expected


def test_a_measured_file_without_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text("curve_id,gpus_per_replica\n")

    with pytest.raises(FileFormatError, match="output_tokens_per_s"):
        measured(path, size=5, seed=0)
