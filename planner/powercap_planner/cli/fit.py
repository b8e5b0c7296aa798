"""``powercap fit``: the curves that plans are made of, in a table and a picture."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from powercap_planner.cli.plot import CurvePlot, plot_curves
from powercap_planner.cli.tables import finding_lines, gpus_text, screen
from powercap_planner.curves.fit import fit_models, samples_of
from powercap_planner.curves.nameplate import LARGEST, find_gpu
from powercap_planner.curves.table import model_from_curve, read_curves
from powercap_planner.errors import RequestError
from powercap_planner.sources.files import read_observation


def command(
    observations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Observation file (JSON) to learn from.")
    ] = None,
    curves: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Measured power-load curves, used exactly.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this deployment or curve_id; may be repeated."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw the curves to this file.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of a table.", show_default=False)
    ] = False,
) -> None:
    """Fit one power curve and one capacity per deployment, and show how sure they are.

    The curve is of one replica over its own load, so replica counts never seen follow from it.
    In the picture the part below the lowest measured load is dashed: it is assumed.

    Example:
      powercap fit --observations history.json --plot curves.png
    """
    if (observations is None) == (curves is None):
        raise RequestError("source", "give either --observations or --curves")
    panels = _observed(observations) if observations else _measured(curves or Path())
    if only:
        known = [panel.title for panel in panels]
        for name in only:
            if name not in known:
                raise RequestError("only", f"{name} is not known; accepted: {', '.join(known)}")
        panels = [panel for panel in panels if panel.title in only]
    if plot:
        plot_curves(plot, panels)
    if json:
        document = {panel.title: _to_dict(panel) for panel in panels}
        sys.stdout.write(json_module.dumps(document, indent=2, allow_nan=False) + "\n")
        return
    console = screen()
    console.print(_table(panels))
    found = [
        replace(one, deployment=panel.title) for panel in panels for one in panel.model.findings
    ]
    for text in finding_lines(found):
        console.print(f"note: {text}", style="dim", highlight=False, markup=False, soft_wrap=True)
    if plot:
        console.print(f"curves drawn to {plot}", highlight=False, soft_wrap=True)


def _observed(path: Path) -> list[CurvePlot]:
    observation = read_observation(path)
    models = fit_models(observation)
    panels = []
    for one in observation.deployments:
        # Only the windows the fit has used: while pods start and end, watts are of more of them.
        samples = samples_of(one, parked_gpu_watts=observation.parked_gpu_watts)
        panels.append(
            CurvePlot(
                title=one.key,
                model=models[one.key],
                load_tps=samples.load_tps,
                power_watts=samples.power_watts,
            )
        )
    return panels


def _measured(path: Path) -> list[CurvePlot]:
    return [
        CurvePlot(
            title=curve.curve_id,
            model=model_from_curve(
                curve, parked_gpu_watts=(find_gpu(curve.gpu_type) or LARGEST).parked_watts
            ),
            load_tps=curve.load_tps,
            power_watts=curve.power_watts,
        )
        for curve in read_curves(path).values()
    ]


def _table(panels: list[CurvePlot]) -> Table:
    table = Table(title="Curves of one replica", title_justify="left")
    table.add_column("deployment", overflow="fold")
    for heading in ("kind", "GPUs"):
        table.add_column(heading)
    for heading in (
        "samples",
        "measured tok/s",
        "capacity tok/s",
        "W there",
        "charged W",
        "nameplate W",
        "error",
        "coverage",
    ):
        table.add_column(heading, justify="right")
    for panel in panels:
        model = panel.model
        at_capacity = "-"
        if model.is_plannable:
            at_capacity = f"{float(model.watts(np.array([model.capacity_tps]))[0]):,.0f}"
        table.add_row(
            panel.title,
            model.kind.value,
            gpus_text(model.gpus_per_replica, model.gpu_type),
            str(model.samples),
            f"{model.support_low_tps:,.0f} to {model.support_high_tps:,.0f}",
            f"{model.capacity_tps:,.0f}",
            at_capacity,
            f"{model.peak_upper_watts:,.0f}",
            f"{model.nameplate_watts:,.0f}",
            "-" if model.error_fraction is None else f"{model.error_fraction:.1%}",
            "-" if model.coverage_fraction is None else f"{model.coverage_fraction:.1%}",
        )
    return table


def _to_dict(panel: CurvePlot) -> dict[str, Any]:
    model = panel.model
    return {
        "kind": model.kind.value,
        "gpu_type": model.gpu_type,
        "gpus_per_replica": model.gpus_per_replica,
        "samples": model.samples,
        "parked_watts": model.parked_watts,
        "peak_upper_watts": model.peak_upper_watts,
        "nameplate_watts": model.nameplate_watts,
        "saturated_tps": model.saturated_tps,
        "capacity_tps": model.capacity_tps,
        "support_low_tps": model.support_low_tps,
        "support_high_tps": model.support_high_tps,
        "error_fraction": model.error_fraction,
        "coverage_fraction": model.coverage_fraction,
        "knot_tps": model.knot_tps.tolist(),
        "mean_watts": model.mean_watts.tolist(),
        "upper_watts": model.upper_watts.tolist(),
        "findings": [{"reason": one.reason, "message": one.message} for one in model.findings],
    }
