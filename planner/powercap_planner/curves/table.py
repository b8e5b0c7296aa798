"""Measured power-load curves from a CSV file, used exactly: linear between the measured rows.

One row is one steady run of one replica. Columns: ``curve_id``, ``gpu``, ``gpu_tdp_w``,
``gpus_per_replica``, ``output_tokens_per_s`` (whole replica), ``power_w`` (whole replica).
Further columns are ignored. A row with an empty throughput or power was not measured and is left
out; rows of one curve with equal throughput are averaged.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from powercap_planner.curves.model import DeploymentModel, ModelKind
from powercap_planner.curves.nameplate import HOST_SHARE_WATTS_PER_GPU, LIMIT_TOLERANCE
from powercap_planner.errors import InputFileError
from powercap_planner.observations import Finding, FloatArray

UPPER_MARGIN_FRACTION = 0.1
"""Margin of the upper bound over the largest measured watts; repeated runs differ by 3 to 14 %."""
CAPACITY_FRACTION = 0.9

_COLUMNS = (
    "curve_id",
    "gpu",
    "gpu_tdp_w",
    "gpus_per_replica",
    "output_tokens_per_s",
    "power_w",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredCurve:
    """The rows of one curve, ascending in throughput."""

    curve_id: str
    gpu_type: str
    nameplate_gpu_watts: float
    gpus_per_replica: int
    load_tps: FloatArray
    """float64[row], > 0, strictly ascending."""
    power_watts: FloatArray
    """float64[row], > 0, of the whole replica, GPUs only."""


def read_curves(path: Path) -> dict[str, MeasuredCurve]:
    """Return the curves of a file by ``curve_id``.

    Raises:
        InputFileError: naming the file, line and column.
    """
    rows: dict[str, list[tuple[float, float]]] = {}
    hardware: dict[str, tuple[str, float, int]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for column in _COLUMNS:
                if column not in (reader.fieldnames or ()):
                    raise InputFileError(f"{path}: line 1: column {column} is missing")
            for row in reader:
                at = f"{path}: line {reader.line_num}"
                curve_id = row["curve_id"]
                if not curve_id:
                    raise InputFileError(f"{at}, column curve_id: is empty; accepted: a name")
                seen = (row["gpu"], *_gpus(row, at))
                if hardware.setdefault(curve_id, seen) != seen:
                    raise InputFileError(
                        f"{at}: {seen} differs from {hardware[curve_id]} of the same curve_id; "
                        "accepted: one GPU type, nameplate and count per curve"
                    )
                point = tuple(_measured(row, name, at) for name in _COLUMNS[-2:])
                points = rows.setdefault(curve_id, [])
                if point[0] is not None and point[1] is not None:
                    points.append((point[0], point[1]))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputFileError(f"{path}: cannot be read: {reason}") from error
    except csv.Error as error:
        raise InputFileError(f"{path}: line {reader.line_num}: not CSV: {error}") from error
    return {
        curve_id: _curve(curve_id, hardware[curve_id], points)
        for curve_id, points in rows.items()
        if points
    }


def model_from_curve(
    curve: MeasuredCurve,
    *,
    parked_gpu_watts: float,
    idle_gpu_watts: float | None = None,
    upper_margin_fraction: float = UPPER_MARGIN_FRACTION,
) -> DeploymentModel:
    """Return the model that runs exactly through the measured rows.

    Args:
        curve: the measured rows.
        parked_gpu_watts: of one GPU with no replica on it.
        idle_gpu_watts: of one GPU at load 0; None assumes the parked watts.
        upper_margin_fraction: margin of the upper bound over the largest measured watts.
    """
    gpus = curve.gpus_per_replica
    idle = gpus * (parked_gpu_watts if idle_gpu_watts is None else idle_gpu_watts)
    knots = np.concatenate(([0.0], curve.load_tps))
    mean = np.concatenate(([idle], curve.power_watts))
    limit = gpus * curve.nameplate_gpu_watts * LIMIT_TOLERANCE
    peak = float(mean.max())
    # A limit below what was measured is not this GPU's limit: never charge less than measured.
    ceiling = max(limit, peak)
    upper = np.minimum(np.maximum.accumulate(mean) * (1.0 + upper_margin_fraction), ceiling)
    saturated = float(curve.load_tps[-1])
    return DeploymentModel(
        kind=ModelKind.TABLE,
        gpu_type=curve.gpu_type,
        gpus_per_replica=gpus,
        parked_watts=gpus * parked_gpu_watts,
        knot_tps=knots,
        mean_watts=mean,
        upper_watts=upper,
        peak_upper_watts=float(upper[-1]),
        nameplate_watts=ceiling + gpus * HOST_SHARE_WATTS_PER_GPU,
        saturated_tps=saturated,
        capacity_tps=CAPACITY_FRACTION * saturated,
        support_low_tps=float(curve.load_tps[0]),
        support_high_tps=saturated,
        samples=curve.load_tps.size,
        error_fraction=None,
        coverage_fraction=None,
        findings=(
            Finding(
                reason="IdleAssumed",
                message=f"{idle:.0f} W at load 0 is assumed, nothing is measured "
                f"below {curve.load_tps[0]:.0f} tokens/s",
            ),
            Finding(
                reason="CapacityAssumed",
                message="no latency objective: capacity is "
                f"{CAPACITY_FRACTION:g} of the largest measured throughput",
            ),
        ),
    )


def _curve(
    curve_id: str, hardware: tuple[str, float, int], points: list[tuple[float, float]]
) -> MeasuredCurve:
    measured = np.array(points)
    load, place = np.unique(measured[:, 0], return_inverse=True)
    power = np.bincount(place, weights=measured[:, 1]) / np.bincount(place)
    gpu_type, nameplate, gpus = hardware
    return MeasuredCurve(
        curve_id=curve_id,
        gpu_type=gpu_type,
        nameplate_gpu_watts=nameplate,
        gpus_per_replica=gpus,
        load_tps=load,
        power_watts=power,
    )


def _gpus(row: dict[str, str], at: str) -> tuple[float, int]:
    nameplate = _measured(row, "gpu_tdp_w", at)
    gpus = _measured(row, "gpus_per_replica", at)
    if nameplate is None or gpus is None:
        raise InputFileError(f"{at}: gpu_tdp_w or gpus_per_replica is empty; accepted: a number")
    if gpus != int(gpus):
        raise InputFileError(f"{at}, column gpus_per_replica: is {gpus}; accepted: a whole number")
    return nameplate, int(gpus)


def _measured(row: dict[str, str], column: str, at: str) -> float | None:
    """Return a number above 0, None for an empty cell."""
    text = row[column]
    if text is None:
        raise InputFileError(f"{at}, column {column}: is missing; the line is too short")
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputFileError(f"{at}, column {column}: is {text!r}; accepted: a number above 0")
    return value
