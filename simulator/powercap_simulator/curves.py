"""The truth behind one emulated replica: watts and latency over its own load.

A curve is a table of levels from no load to saturation, joined by straight lines: load in
generated tokens/s of the whole replica, GPU watts of the whole replica, mean and 95th percentile
inter-token latency.

The built-in table is our own. Its levels are rounded and shaped after the ML.ENERGY benchmark
(leaderboard v3 for H100 and B200, v2 for A100; Apache-2.0): power is concave with a high floor
(batch 8 of a 8 B model already draws 430 to 490 W on an H100, a tenfold load raises that 1.4
times), throughput saturates while latency keeps growing. What a GPU with nothing on it draws
is in the planner's table. Not measured anywhere and therefore assumed: the watts of a loaded
replica without requests, and what lies between that and batch 8.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from powercap_planner.curves.nameplate import find_gpu
from powercap_simulator.errors import ScenarioError

FloatArray = NDArray[np.float64]

# A replica holds its model in memory and keeps its clocks up: more than parked. Assumed, as a
# share of the device's limit.
_IDLE_FRACTION = 0.16
# 95th percentile over mean inter-token latency where a file gives the mean alone (v2 rows).
_P95_OVER_MEAN = 1.3
_LEVELS = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuType:
    """One type of GPU."""

    name: str
    """As the exporters say it."""
    limit_watts: float
    parked_watts: float
    """With no replica on it."""


def _gpu_type(name: str) -> GpuType:
    known = find_gpu(name)
    if known is None:
        raise ValueError(f"{name} is not in the planner's table of GPU types")
    return GpuType(name=name, limit_watts=known.nameplate_watts, parked_watts=known.parked_watts)


GPU_TYPES = {
    "H100": _gpu_type("NVIDIA H100 80GB HBM3"),
    "B200": _gpu_type("NVIDIA B200"),
    "A100": _gpu_type("NVIDIA A100-SXM4-40GB"),
}
"""By the scenario's name; the watts are those of the planner's table."""

_CSV_GPUS = {"H100": "H100", "B200": "B200", "A100-SXM4-40GB": "A100"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReplicaCurve:
    """Watts and latency of one replica over its own load; all arrays float64[level]."""

    model_name: str
    gpu: str
    """A key of ``GPU_TYPES``."""
    gpus_per_replica: int
    load_tps: FloatArray
    """Ascending, first 0, last the saturated throughput, tokens/s."""
    power_watts: FloatArray
    """GPUs of the replica together, W."""
    itl_mean_seconds: FloatArray
    itl_p95_seconds: FloatArray
    prefill_seconds: float = 0.12
    """Time to first token of a request that does not wait, s."""

    def __post_init__(self) -> None:
        """Check the table and make it read-only.

        Raises:
            ScenarioError: naming the field.
        """
        if self.gpu not in GPU_TYPES:
            raise ScenarioError(f"gpu is {self.gpu!r}; accepted: {', '.join(GPU_TYPES)}")
        if self.gpus_per_replica < 1:
            raise ScenarioError(f"gpus_per_replica is {self.gpus_per_replica}; accepted: 1 or more")
        load = self.load_tps
        if load.size < 2 or load[0] != 0 or not (np.diff(load) > 0).all():
            raise ScenarioError(
                "load_tps must start at 0 and ascend strictly, with 2 levels or more"
            )
        for name in ("load_tps", "power_watts", "itl_mean_seconds", "itl_p95_seconds"):
            values: FloatArray = getattr(self, name)
            if values.shape != load.shape:
                raise ScenarioError(f"{name} has {values.size} levels, load_tps has {load.size}")
            if not np.isfinite(values).all() or (values < 0).any():
                raise ScenarioError(f"{name} holds a value that is not finite or below 0")
            values.setflags(write=False)

    @property
    def saturated_tps(self) -> float:
        """Most tokens/s of one replica."""
        return float(self.load_tps[-1])

    @property
    def idle_watts(self) -> float:
        """Watts with no request."""
        return float(self.power_watts[0])

    @property
    def peak_watts(self) -> float:
        """Most watts anywhere on the curve, noise apart."""
        return float(self.power_watts.max())

    @property
    def limit_watts(self) -> float:
        """Enforced limit of the replica's GPUs together."""
        return GPU_TYPES[self.gpu].limit_watts * self.gpus_per_replica

    def capacity_tps(self, *, itl_p95_objective_seconds: float) -> float:
        """Largest load whose 95th percentile inter-token latency keeps the objective."""
        dense = np.linspace(0.0, self.saturated_tps, 400)
        kept = np.interp(dense, self.load_tps, self.itl_p95_seconds) <= itl_p95_objective_seconds
        broken = np.flatnonzero(~kept)
        return (
            float(dense[broken[0] - 1])
            if broken.size and broken[0] > 0
            else (0.0 if broken.size else self.saturated_tps)
        )


class CurveTable:
    """Many curves on one grid of load shares, for looking all of them up at once.

    Between the grid's 1025 points values are joined by straight lines.
    """

    _POINTS = 1024

    def __init__(self, curves: list[ReplicaCurve]) -> None:
        share = np.linspace(0.0, 1.0, self._POINTS + 1)
        self._saturated = np.array([curve.saturated_tps for curve in curves])
        self._rows = np.arange(len(curves))
        fields = ("power_watts", "itl_mean_seconds", "itl_p95_seconds")
        self._values = np.array(
            [
                [np.interp(share * c.saturated_tps, c.load_tps, getattr(c, f)) for c in curves]
                for f in fields
            ]
        )

    def at(self, load_tps: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return watts, mean and 95th percentile inter-token latency, each float64[curve]."""
        place = np.clip(load_tps / self._saturated, 0.0, 1.0) * self._POINTS
        low = np.minimum(place.astype(np.int64), self._POINTS - 1)
        part = place - low
        below = self._values[:, self._rows, low]
        watts, mean, p95 = below + (self._values[:, self._rows, low + 1] - below) * part
        return watts, mean, p95


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """Parameters of one built-in curve."""

    gpu: str
    gpus: int
    saturated_tps: float
    batch8_tps: float
    batch8_watts: float
    saturated_watts: float
    itl_batch8_seconds: float
    itl_saturated_seconds: float
    prefill_seconds: float


# model, GPU -> shape; rounded after the source named at the head of the module.
_SHAPES = {
    ("llama-3.1-8b", "H100"): _Shape(
        gpu="H100", gpus=1, saturated_tps=9800, batch8_tps=1050, batch8_watts=485,
        saturated_watts=690, itl_batch8_seconds=0.008, itl_saturated_seconds=0.055,
        prefill_seconds=0.05,
    ),
    ("qwen3-14b", "H100"): _Shape(
        gpu="H100", gpus=1, saturated_tps=5700, batch8_tps=620, batch8_watts=432,
        saturated_watts=640, itl_batch8_seconds=0.013, itl_saturated_seconds=0.060,
        prefill_seconds=0.08,
    ),
    ("gemma-3-12b", "H100"): _Shape(
        gpu="H100", gpus=1, saturated_tps=3500, batch8_tps=600, batch8_watts=425,
        saturated_watts=590, itl_batch8_seconds=0.014, itl_saturated_seconds=0.045,
        prefill_seconds=0.08,
    ),
    ("llama-3.3-70b", "H100"): _Shape(
        gpu="H100", gpus=4, saturated_tps=5900, batch8_tps=465, batch8_watts=1780,
        saturated_watts=2540, itl_batch8_seconds=0.017, itl_saturated_seconds=0.110,
        prefill_seconds=0.16,
    ),
    ("llama-3.3-70b", "B200"): _Shape(
        gpu="B200", gpus=2, saturated_tps=8600, batch8_tps=480, batch8_watts=1690,
        saturated_watts=1940, itl_batch8_seconds=0.017, itl_saturated_seconds=0.120,
        prefill_seconds=0.12,
    ),
    ("gpt-oss-20b", "B200"): _Shape(
        gpu="B200", gpus=1, saturated_tps=21000, batch8_tps=1700, batch8_watts=480,
        saturated_watts=650, itl_batch8_seconds=0.008, itl_saturated_seconds=0.110,
        prefill_seconds=0.06,
    ),
    ("qwen3-235b", "B200"): _Shape(
        gpu="B200", gpus=4, saturated_tps=9400, batch8_tps=400, batch8_watts=2560,
        saturated_watts=3230, itl_batch8_seconds=0.021, itl_saturated_seconds=0.150,
        prefill_seconds=0.20,
    ),
    ("codellama-7b", "A100"): _Shape(
        gpu="A100", gpus=1, saturated_tps=1300, batch8_tps=200, batch8_watts=195,
        saturated_watts=262, itl_batch8_seconds=0.026, itl_saturated_seconds=0.086,
        prefill_seconds=0.15,
    ),
    ("llama-2-13b", "A100"): _Shape(
        gpu="A100", gpus=2, saturated_tps=1170, batch8_tps=260, batch8_watts=380,
        saturated_watts=468, itl_batch8_seconds=0.034, itl_saturated_seconds=0.097,
        prefill_seconds=0.20,
    ),
}  # fmt: skip


def builtin_curve(*, model: str, gpu: str) -> ReplicaCurve:
    """Return a curve of the built-in table.

    Raises:
        ScenarioError: naming the pairs there are.
    """
    shape = _SHAPES.get((model, gpu))
    if shape is None:
        pairs = ", ".join(f"{m} on {g}" for m, g in _SHAPES)
        raise ScenarioError(f"no built-in curve of model {model!r} on {gpu!r}; accepted: {pairs}")
    share = np.linspace(0.0, 1.0, _LEVELS) ** 2
    load = share * shape.saturated_tps
    idle = _IDLE_FRACTION * GPU_TYPES[gpu].limit_watts * shape.gpus
    # The measured power law from batch 8 to saturation, and below it a parabola from idle that
    # meets the law with the law's own slope: concave throughout.
    exponent = math.log(shape.saturated_watts / shape.batch8_watts) / math.log(
        shape.saturated_tps / shape.batch8_tps
    )
    relative = load / shape.batch8_tps
    law = shape.batch8_watts * np.maximum(relative, 1.0) ** exponent
    rise, slope = shape.batch8_watts - idle, exponent * shape.batch8_watts
    part = idle + (2 * rise - slope) * relative - (rise - slope) * relative**2
    power = np.where(relative < 1, part, law)
    growth = shape.itl_saturated_seconds - shape.itl_batch8_seconds
    p95 = shape.itl_batch8_seconds + growth * share**3
    return ReplicaCurve(
        model_name=model,
        gpu=gpu,
        gpus_per_replica=shape.gpus,
        load_tps=load,
        power_watts=power,
        itl_mean_seconds=p95 / _P95_OVER_MEAN,
        itl_p95_seconds=p95,
        prefill_seconds=shape.prefill_seconds,
    )


_COLUMNS = (
    "curve_id",
    "model",
    "gpu",
    "gpus_per_replica",
    "output_tokens_per_s",
    "power_w",
    "tpot_s",
)


def read_curves(path: Path) -> dict[str, ReplicaCurve]:
    """Read curves, by ``curve_id``, from a CSV in the form of a power-load benchmark table.

    Rows of one ``curve_id`` with equal throughput are averaged. Curves on GPUs this simulator does
    not know are left out; so are the levels past the highest throughput.

    Raises:
        ScenarioError: naming file, line and column of what cannot be used.
    """
    rows: dict[str, list[dict[str, str]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise ScenarioError(f"{path}: column {missing[0]!r} is missing")
            for line, row in enumerate(reader, start=2):
                row["_where"] = f"{path}, line {line}"
                rows.setdefault(row["curve_id"], []).append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise ScenarioError(f"{path}: holds no row")
    return {key: _curve(members) for key, members in rows.items() if members[0]["gpu"] in _CSV_GPUS}


def _curve(rows: list[dict[str, str]]) -> ReplicaCurve:
    levels: dict[float, list[tuple[float, float, float]]] = {}
    for row in rows:
        tps = _positive(row, "output_tokens_per_s")
        mean = _positive(row, "tpot_s")
        p95 = _positive(row, "itl_p95_s") if row.get("itl_p95_s") else mean * _P95_OVER_MEAN
        levels.setdefault(tps, []).append((_positive(row, "power_w"), mean, p95))
    load = np.array(sorted(levels))
    table = np.array([np.mean(levels[value], axis=0) for value in sorted(levels)])
    gpu = _CSV_GPUS[rows[0]["gpu"]]
    gpus = int(_positive(rows[0], "gpus_per_replica"))
    idle = min(_IDLE_FRACTION * GPU_TYPES[gpu].limit_watts * gpus, float(table[:, 0].min()))
    return ReplicaCurve(
        model_name=rows[0]["model"],
        gpu=gpu,
        gpus_per_replica=gpus,
        load_tps=np.concatenate([[0.0], load]),
        power_watts=np.concatenate([[idle], table[:, 0]]),
        itl_mean_seconds=np.concatenate([table[:1, 1], table[:, 1]]),
        itl_p95_seconds=np.concatenate([table[:1, 2], table[:, 2]]),
    )


def _positive(row: dict[str, str], column: str) -> float:
    text = row.get(column) or ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ScenarioError(f"{row['_where']}: {column} is {text!r}; accepted: more than 0")
    return value
