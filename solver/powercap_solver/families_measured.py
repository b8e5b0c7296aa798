"""Instances made of measured power-load curves, from a file the caller names.

The file is CSV with one row per steady run of one replica; rows of equal ``curve_id`` form a
curve. Used: ``curve_id``, ``gpus_per_replica``, ``output_tokens_per_s``, ``power_w``. Repeated
and noisy runs are kept as they are: curves are not monotone where the measurements are not.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.errors import FileFormatError
from powercap_solver.fleet_problems import fleet_problem, one_cap
from powercap_solver.fleets import Fleet, Tables, random_fleet, running_replicas, tabulate
from powercap_solver.problem import PlanningProblem

_COLUMNS = ("curve_id", "gpus_per_replica", "output_tokens_per_s", "power_w")
_PARKED_WATTS_PER_GPU = 70.0
"""An H100 with nothing loaded; the files hold no reading below full batches."""
_GRID = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredCurves:
    """Curves on a common grid of load as a share of the largest throughput measured."""

    names: tuple[str, ...]
    gpus: IntArray
    """int64[curve], of one replica."""
    saturated_tps: FloatArray
    """float64[curve], tokens/s."""
    watts: FloatArray
    """float64[curve, share], W of one replica above parked, 0 or more; linear between runs."""


def read_curves(path: Path) -> MeasuredCurves:
    """Read every curve of at least two runs.

    Raises:
        FileFormatError: when a column is missing, a cell is no number or no curve is left.
    """
    runs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    gpus: dict[str, int] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise FileFormatError(f"{path} has no column {missing[0]!r}")
        for number, row in enumerate(reader, start=2):
            if not row["output_tokens_per_s"] or not row["power_w"]:
                # An empty cell is "not reported".
                continue
            try:
                point = float(row["output_tokens_per_s"]), float(row["power_w"])
                gpus[row["curve_id"]] = int(row["gpus_per_replica"])
            except ValueError as error:
                raise FileFormatError(f"{path}, line {number}: {error}") from error
            runs[row["curve_id"]].append(point)
    names = tuple(name for name, points in runs.items() if len(points) >= 2)
    if not names:
        raise FileFormatError(f"{path} holds no curve of two runs or more")
    return MeasuredCurves(
        names=names,
        gpus=np.array([gpus[name] for name in names]),
        saturated_tps=np.array([max(runs[name])[0] for name in names]),
        watts=np.stack([_on_grid(runs[name], gpus[name]) for name in names]),
    )


def _on_grid(points: list[tuple[float, float]], gpus: int) -> FloatArray:
    tokens, watts = np.array(sorted(points)).T
    # From parked straight to the lightest run: nothing is measured between.
    tokens = np.append(0.0, tokens) / tokens[-1]
    above = np.append(0.0, watts - _PARKED_WATTS_PER_GPU * gpus)
    on_grid: FloatArray = np.maximum(np.interp(_GRID, tokens, above), 0.0)
    return on_grid


def measured(path: Path, *, size: int, seed: int) -> PlanningProblem:
    """One feed of 60 % of what the load needs, over deployments with curves drawn from a file.

    Args:
        path: CSV, see the module.
        size: Deployments.
        seed: Equal arguments and files give equal problems.

    Raises:
        FileFormatError: when the file is not of that form.
    """
    curves = read_curves(path)
    generator = np.random.default_rng([seed, size])
    drawn = generator.integers(0, len(curves.names), size)
    peak = curves.watts[drawn].max(axis=1)
    fleet = random_fleet(generator, size)
    scale = curves.saturated_tps[drawn] / fleet.capacity_tps
    fleet = Fleet(
        replicas=fleet.replicas,
        option_count=fleet.option_count,
        gpus=curves.gpus[drawn],
        gpu_type=fleet.gpu_type,
        capacity_tps=curves.saturated_tps[drawn],
        idle_watts=curves.watts[drawn, 0],
        peak_watts=np.maximum(peak, 1.0),
        bend=fleet.bend,
        sag=0.0,
        load_tps=fleet.load_tps * scale[:, None],
        load_spread=fleet.load_spread,
        is_ceiling=fleet.is_ceiling,
    )
    modelled = tabulate(fleet)
    return fleet_problem(
        generator,
        fleet,
        one_cap(size),
        tightness=np.array([[0.6]]),
        tables=Tables(
            served_tps=modelled.served_tps,
            power_watts=_power(fleet, curves.watts[drawn]),
            upper_watts=modelled.upper_watts,
        ),
    )


def _power(fleet: Fleet, watts: FloatArray) -> FloatArray:
    """float64[deployment, period, option]: replicas that run, times their place on the curve."""
    running, fraction = running_replicas(fleet)
    place = fraction * (len(_GRID) - 1)
    low = np.minimum(place.astype(np.int64), len(_GRID) - 2)
    share = place - low
    of = np.arange(len(watts))[:, None, None]
    each = watts[of, low] * (1 - share) + watts[of, low + 1] * share
    power: FloatArray = np.where(fleet.is_option[:, None, :], running * each, 0.0)
    return power
