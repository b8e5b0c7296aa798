"""Curves drawn to a PNG file: what was measured, what was learned, what is assumed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from powercap_planner.curves.model import DeploymentModel
from powercap_planner.errors import InputFileError
from powercap_planner.observations import FloatArray

_COLUMNS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CurvePlot:
    """One panel."""

    title: str
    model: DeploymentModel
    load_tps: FloatArray
    """float64[point], measured load per replica."""
    power_watts: FloatArray
    """float64[point], measured W per replica."""


def plot_curves(path: Path, panels: list[CurvePlot]) -> None:
    """Write one picture with a panel per deployment.

    Raises:
        InputFileError: when the file cannot be written.
    """
    # matplotlib takes a second to import and is needed here alone.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.2 * columns, 3.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    axes[0].legend(fontsize="x-small", loc="lower right")
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputFileError(f"{path}: cannot be written: {reason}") from error


def _draw(axis: Any, panel: CurvePlot) -> None:
    model = panel.model
    axis.set_title(panel.title, fontsize="small")
    axis.set_xlabel("tokens/s per replica")
    axis.set_ylabel("watts per replica")
    axis.axhline(model.nameplate_watts, color="0.6", lw=0.8, ls=":", label="nameplate")
    if not model.is_plannable:
        axis.text(0.5, 0.5, "never measured", ha="center", transform=axis.transAxes)
        return
    axis.axvspan(
        model.support_low_tps, model.support_high_tps, color="0.93", label="loads measured"
    )
    axis.plot(panel.load_tps, panel.power_watts, ".", ms=3, color="0.45", label="measured")
    load = np.union1d(np.linspace(0.0, model.knot_tps[-1], 257), model.knot_tps)
    mean = model.watts(load)
    is_measured = load >= model.support_low_tps
    axis.plot(load[is_measured], mean[is_measured], color="C0", label="mean")
    # One point further, so that the dashes meet the line.
    assumed = slice(0, int(np.argmax(is_measured)) + 1)
    axis.plot(load[assumed], mean[assumed], color="C0", ls="--", label="assumed")
    axis.plot(model.knot_tps, model.upper_watts, color="C3", lw=1, label="upper bound")
    axis.axhline(model.peak_upper_watts, color="C3", lw=0.8, ls="-.", label="charged to the cap")
    axis.axvline(model.capacity_tps, color="C2", lw=0.8, ls="--", label="capacity")
    axis.set_ylim(bottom=0)
