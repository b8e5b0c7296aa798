"""``powercap plan`` and ``powercap solve`` against full enumeration, from the CSV rows up.

The enumeration knows nothing of the product: it reads the same CSV files, writes the formulas
out anew and tries every replica vector.
"""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from powercap_planner.cli.files import load_problem
from powercap_planner.cli.main import make_app
from powercap_solver.ladder import solve_greedy

AT = "2023-06-14T18:00:00Z"
HOST_IDLE = 1500.0
PARKED = 70.0
GPUS = 60
CAPS = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Three deployments on measured curves in one zone."""

    curves: Path
    price: Path
    carbon: Path
    zone: str
    ids: tuple[str, ...]
    loads: tuple[dict[str, Any], ...]
    most: tuple[int, ...]
    weights: tuple[float, ...] = (1.0, 1.5, 1.0)
    ample_watts: float


def enumerate_best(case: Case, *, rule: str, cap: float) -> tuple[float, float] | None:
    """Return best served and best ratio over all replica vectors; None when none fits."""
    options = []
    for curve_id, load, most, weight in zip(
        case.ids, case.loads, case.most, case.weights, strict=True
    ):
        rows = [row for row in read(case.curves) if row["curve_id"] == curve_id]
        gpus, tdp = int(rows[0]["gpus_per_replica"]), float(rows[0]["gpu_tdp_w"])
        points = sorted((float(row["output_tokens_per_s"]), float(row["power_w"])) for row in rows)
        x = np.array([0.0] + [point[0] for point in points])
        watts = np.array([gpus * PARKED] + [point[1] for point in points])
        most_watts = min(1.1 * watts.max(), max(1.02 * tdp * gpus, watts.max()))
        value = weight / max(x / watts)
        trace = [row for row in read(load["file"]) if float(row["time_s"]) <= load["at_seconds"]]
        asked = load["scale"] * float(trace[-1][load["column"]])
        options.append([])
        for n in range(1, most + 1):
            runs = n if rule == "fixed" else min(max(np.ceil(asked / (0.7 * 0.9 * x[-1])), 1), n)
            drawn = runs * (np.interp(min(asked / runs, x[-1]), x, watts) - gpus * PARKED)
            served = value * min(asked, n * 0.9 * x[-1])
            options[-1].append((served, drawn, n * (most_watts - gpus * PARKED)))
    base = GPUS * PARKED + HOST_IDLE
    vectors = [
        vector
        for vector in itertools.product(*options)
        if sum(option[2] for option in vector) + base <= cap
    ]
    if not vectors:
        return None
    best = max(vectors, key=lambda vector: sum(option[0] for option in vector))
    weight, kept = energy_weight_and_share(case)
    efficient = max(
        sum(option[0] for option in vector) / weight / (base + sum(option[1] for option in vector))
        for vector in vectors
        if all(one[0] >= kept * two[0] * (1 - 1e-12) for one, two in zip(vector, best, strict=True))
    )
    return 300.0 * sum(option[0] for option in best), efficient


def energy_weight_and_share(case: Case) -> tuple[float, float]:
    now, weight = seconds(AT), 1.0
    for path, column, least in (
        (case.price, "price_usd_per_mwh", 10.0),
        (case.carbon, "carbon_intensity_lca_g_per_kwh", 20.0),
    ):
        week = {
            seconds(row["timestamp_utc"]): float(row[column])
            for row in read(path)
            if row[column] and now - 7 * 86_400 - 3600 < seconds(row["timestamp_utc"]) <= now
        }
        values = sorted(week.values())
        cut = len(values) // 10
        usual = sum(values[cut : len(values) - cut]) / (len(values) - 2 * cut)
        weight += 0.5 * (week[max(week)] - usual) / max(abs(usual), least)
    weight = min(max(weight, 0.05), 10.0)
    return weight, 0.998 - (0.998 - 0.95) * min(max(weight - 1.0, 0.0), 1.0)


@cache
def read(path: Path | str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def real_case(folder: Path) -> Case:
    traces = folder / "load_traces"
    rate = {"column": "requests_per_s", "at_seconds": 64_800.0}
    return Case(
        curves=folder / "power_load" / "power_load_curves.csv",
        price=folder / "prices" / "DE-LU_2023_hourly.csv",
        carbon=folder / "carbon" / "DE-LU_2023_hourly.csv",
        zone="DE-LU",
        ids=(
            "Llama-3.1-8B-Instruct|H100x1|tp1|lm-arena-chat|v3",
            "Qwen3-30B-A3B-Instruct-2507|H100x1|tp1|lm-arena-chat|v3",
            "Llama-3.1-70B-Instruct|H100x4|tp4|lm-arena-chat|v3",
        ),
        loads=(
            {"file": str(traces / "servegen_m_large_10min.csv"), "scale": 200.0, **rate},
            {"file": str(traces / "servegen_m_small_10min.csv"), "scale": 20.0, **rate},
            {
                "file": str(traces / "azure_llm_2023_conv_1min.csv"),
                "column": "output_tokens_per_s",
                "scale": 20.0,
                "at_seconds": 600.0,
            },
        ),
        most=(8, 10, 6),
        ample_watts=30_000.0,
    )


def generated_case(folder: Path) -> Case:
    """Return a case with curves of measured shape: concave, high floor, now and then a dent."""
    rng = np.random.default_rng(11)
    ids = ("small|H100x1", "medium|H100x2", "large|H100x4")
    lines = ["curve_id,gpu,gpu_tdp_w,gpus_per_replica,output_tokens_per_s,power_w"]
    for curve_id, gpus, top in zip(ids, (1, 2, 4), (9000.0, 8000.0, 5000.0), strict=True):
        for share in (0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0):
            watts = gpus * (360.0 + 300.0 * share**0.6) * (1.0 + 0.04 * rng.normal())
            lines.append(f"{curve_id},H100,700,{gpus},{top * share:.3f},{watts:.3f}")
    (folder / "curves.csv").write_text("\n".join(lines) + "\n")
    hours = [f"2023-06-{day:02}T{hour:02}:00:00Z" for day in range(7, 15) for hour in range(24)]
    for name, column, middle in (
        ("price", "price_usd_per_mwh", 80.0),
        ("carbon", "carbon_intensity_lca_g_per_kwh", 300.0),
    ):
        rows = [f"timestamp_utc,zone,{column}"]
        rows += [
            f"{hour},XX,{middle * (1.0 + 0.5 * np.sin(0.26 * index)):.3f}"
            for index, hour in enumerate(hours)
        ]
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    trace = ["time_s,tokens_per_s"]
    trace += [f"{600 * row},{1000 + 100 * (row % 7)}" for row in range(144)]
    (folder / "trace.csv").write_text("\n".join(trace) + "\n")
    load = {"file": str(folder / "trace.csv"), "column": "tokens_per_s", "at_seconds": 64_800.0}
    return Case(
        curves=folder / "curves.csv",
        price=folder / "price.csv",
        carbon=folder / "carbon.csv",
        zone="XX",
        ids=ids,
        loads=({**load, "scale": 42.0}, {**load, "scale": 30.0}, {**load, "scale": 14.0}),
        most=(8, 8, 5),
        ample_watts=40_000.0,
    )


@pytest.fixture(params=["generated", "real"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    if request.param == "generated":
        return generated_case(tmp_path)
    return real_case(request.getfixturevalue("real_data"))


@pytest.fixture
def command():
    app, runner = make_app(), CliRunner()

    def run(*arguments: object) -> dict[str, Any]:
        done = runner.invoke(app, [str(one) for one in arguments], catch_exceptions=False)
        document = dict(json.loads(done.stdout))
        # `solve` tells in its exit code what `plan` tells in its answer alone.
        nothing_fits = document["plan"]["status"] == "cap_infeasible"
        is_told = arguments[0] == "solve" and nothing_fits
        assert done.exit_code == (4 if is_told else 0), done.output
        return document

    return run


def write_site(path: Path, case: Case, *, rule: str, cap: float) -> None:
    site = {
        "at": AT,
        "zone": case.zone,
        "cap": {"watts": cap},
        "price": str(case.price),
        "carbon": str(case.carbon),
        "host_idle_watts": HOST_IDLE,
        "gpus": {"H100": {"count": GPUS, "parked_watts": PARKED}},
        "deployments": [
            {
                "name": name,
                "curve": curve_id,
                "load": load,
                "max_replicas": most,
                "weight": weight,
                "replicas": rule,
            }
            for name, curve_id, load, most, weight in zip(
                "abc", case.ids, case.loads, case.most, case.weights, strict=True
            )
        ],
    }
    path.write_text(yaml.safe_dump(site))


def stage(document: dict[str, Any], name: str) -> float:
    return float(
        next(one["objective"] for one in document["plan"]["stages"] if one["name"] == name)
    )


@pytest.mark.parametrize("rule", ["fixed", "ceiling"])
def test_every_cap_from_infeasible_to_ample_gives_the_enumerated_optimum(
    case, command, tmp_path, rule
):
    site, problem, capped = (tmp_path / name for name in ("site.yaml", "all.json", "one.json"))
    caps = np.linspace(8_500.0, case.ample_watts, CAPS)
    write_site(site, case, rule=rule, cap=float(caps[-1]))
    arguments = ("plan", "--site", site, "--curves", case.curves, "--json")
    planned = command(*arguments, "--save-problem", problem)
    infeasible, greedy_is_worse, served = 0, 0, []

    for cap in caps:
        solved = command("solve", problem, "--cap", cap, "--json", "--save-problem", capped)
        best = enumerate_best(case, rule=rule, cap=float(cap))
        if best is None:
            infeasible += 1
            assert solved["plan"]["status"] == "cap_infeasible"
            assert [one["replicas"] for one in solved["plan"]["targets"]] == [1, 1, 1]
            continue
        assert solved["plan"]["status"] == "optimal"
        assert stage(solved, "served") == pytest.approx(best[0], rel=1e-6)
        assert stage(solved, "throughput_per_watt") == pytest.approx(best[1], rel=1e-6)
        served.append(best[0])
        greedy = solve_greedy(load_problem(capped).problem)
        found = next(one.objective for one in greedy.stages if one.name == "served")
        assert found <= best[0] * (1 + 1e-9)
        greedy_is_worse += found < best[0] * (1 - 1e-6)

    assert infeasible >= 1
    assert len(served) >= 20
    assert len(set(np.round(served, 3))) >= 15
    # The most ample cap is that of the site: planning and solving again are the same.
    assert planned["plan"]["targets"] == solved["plan"]["targets"]
    assert solved["plan"]["caps"][0]["is_binding"] is False
    assert greedy_is_worse >= 5


def test_a_wrong_curve_would_be_noticed(case, command, tmp_path):
    site = tmp_path / "site.yaml"
    write_site(site, case, rule="fixed", cap=20_000.0)
    swapped = Case(
        **{
            **{name: getattr(case, name) for name in Case.__dataclass_fields__},
            "ids": (case.ids[1], case.ids[0], case.ids[2]),
        }
    )

    planned = command("plan", "--site", site, "--curves", case.curves, "--json")
    other = enumerate_best(swapped, rule="fixed", cap=20_000.0)

    assert other is not None
    assert stage(planned, "served") != pytest.approx(other[0], rel=1e-3)
