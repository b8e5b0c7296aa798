"""``powercap plan``: from observations, Prometheus or a site file to an explained plan."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from powercap_planner.cli import changes
from powercap_planner.cli.grid import conditions, number_or_path
from powercap_planner.curves.fit import fit_models
from powercap_planner.errors import RequestError
from powercap_planner.gather import gather_inputs
from powercap_planner.grid.weight import GridSignal
from powercap_planner.inputs import PlanningInputs, PlanningSettings
from powercap_planner.observations import ClusterObservation
from powercap_planner.request import CapSpec, PlanRequest, TargetSpec
from powercap_planner.sitefile import Site
from powercap_planner.sources.files import read_observation
from powercap_planner.units import utc_seconds
from powercap_planner.whatif import WhatIf

HISTORY_SECONDS = 86_400.0
STEP_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """The options of one call."""

    cap_watts: float | None
    price: float | Path | None
    carbon: float | Path | None
    at_seconds: float | None
    zone: str
    load_factor: float | None
    pins: dict[str, int]


def command(
    observations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Observation file (JSON) to plan from.")
    ] = None,
    prometheus: Annotated[
        str | None, typer.Option(metavar="URL", help="Prometheus to observe the cluster through.")
    ] = None,
    site: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Site file (YAML); needs --curves.")
    ] = None,
    curves: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Measured power-load curves for --site.")
    ] = None,
    cap: changes.CapOption = None,
    price: changes.PriceOption = None,
    carbon: changes.CarbonOption = None,
    at: changes.AtOption = None,
    zone: changes.ZoneOption = "",
    load_factor: changes.LoadFactorOption = None,
    replicas: changes.ReplicasOption = None,
    json: changes.JsonOption = False,
    save_problem: changes.SaveProblemOption = None,
    output: changes.OutputOption = None,
) -> None:
    """Plan how many replicas each deployment may have under a power cap.

    Give one source: --observations, --prometheus, or --site with --curves. Nothing is
    changed anywhere; the plan is printed, with the reason for each deployment.

    An option that replaces something the source states itself (a site's cap, price or carbon),
    --load-factor and --replicas are what-ifs: the difference from the unchanged plan is shown.

    Examples:
      powercap plan --observations history.json --cap 20000
      powercap plan --site site.yaml --curves curves.csv --cap 9000 --load-factor 1.3
    """
    if sum(source is not None for source in (observations, prometheus, site)) != 1:
        raise RequestError(
            "source", "give exactly one of --observations, --prometheus and --site with --curves"
        )
    changes.check_cap(cap)
    asked = _Asked(
        cap_watts=cap,
        price=number_or_path(price, option="price", low=float("-inf")),
        carbon=number_or_path(carbon, option="carbon", low=0.0),
        at_seconds=_time(at),
        zone=zone,
        load_factor=load_factor,
        pins=changes.parse_pins(replicas),
    )
    if site is not None:
        inputs, what_if, now = _from_site(Site(site), curves, asked)
    elif observations is not None:
        observed = read_observation(observations)
        # Offline, now is the end of the file unless another moment is asked for.
        now = _either(asked.at_seconds, float(observed.time_seconds[-1]))
        inputs, what_if = _from_observation(observed, asked, now)
    else:
        now = _either(asked.at_seconds, time.time())
        inputs, what_if = _from_observation(_observe(prometheus or "", now), asked, now)
    changes.run(
        inputs,
        what_if,
        now_seconds=now,
        as_json=json,
        save_problem_to=save_problem,
        save_plan_to=output,
    )


def _from_site(
    site: Site, curves: Path | None, asked: _Asked
) -> tuple[PlanningInputs, WhatIf, float]:
    if curves is None:
        raise RequestError("curves", "is missing; --site needs the CSV file of measured curves")
    at = asked.at_seconds if asked.at_seconds is not None else site.at_seconds
    zone = asked.zone or site.zone
    own_cap, own_price, own_carbon = (
        site.cap_watts,
        site.grid_source("price"),
        site.grid_source("carbon"),
    )
    grid = conditions(
        price=asked.price if own_price is None else own_price,
        carbon=asked.carbon if own_carbon is None else own_carbon,
        zone=zone,
        at_seconds=at,
    )
    price: float | GridSignal | None = None
    carbon: float | GridSignal | None = None
    if own_price is not None:
        price = asked.price if not isinstance(asked.price, Path) else None
        if isinstance(asked.price, Path):
            price = conditions(price=asked.price, carbon=None, zone=zone, at_seconds=at).price
    if own_carbon is not None:
        carbon = asked.carbon if not isinstance(asked.carbon, Path) else None
        if isinstance(asked.carbon, Path):
            carbon = conditions(price=None, carbon=asked.carbon, zone=zone, at_seconds=at).carbon
    inputs = site.inputs(curves_path=curves, cap_watts=_cap(own_cap, asked.cap_watts), grid=grid)
    what_if = WhatIf(
        cap_watts=asked.cap_watts if own_cap is not None else None,
        price=price,
        carbon=carbon,
        load_factor=asked.load_factor,
        replicas=asked.pins,
    )
    return inputs, what_if, _either(at, time.time())


def _from_observation(
    observation: ClusterObservation, asked: _Asked, now: float
) -> tuple[PlanningInputs, WhatIf]:
    request = PlanRequest(
        targets=tuple(
            TargetSpec(namespace=one.namespace, name=one.name) for one in observation.deployments
        ),
        caps=(CapSpec(watts=_cap(asked.cap_watts)),),
        grid_zone=asked.zone,
    )
    inputs = gather_inputs(
        observation=observation,
        models=fit_models(observation),
        grid=conditions(price=asked.price, carbon=asked.carbon, zone=asked.zone, at_seconds=now),
        request=request,
        now_seconds=now,
        settings=PlanningSettings(),
    )
    return inputs, WhatIf(load_factor=asked.load_factor, replicas=asked.pins)


def _observe(url: str, now: float) -> ClusterObservation:
    from powercap_planner.config import PrometheusConfig
    from powercap_planner.sources.prometheus import PrometheusMetricsSource

    source = PrometheusMetricsSource(replace(PrometheusConfig(), url=url))
    try:
        return source.observe(
            now_seconds=now, history_seconds=HISTORY_SECONDS, step_seconds=STEP_SECONDS
        )
    finally:
        source.close()


def _cap(*candidates: float | None) -> float:
    for cap in candidates:
        if cap is not None:
            return cap
    raise RequestError("cap", "is missing; give --cap WATTS, more than 0")


def _either(first: float | None, second: float) -> float:
    return second if first is None else first


def _time(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return utc_seconds(text)
    except ValueError as error:
        raise RequestError("at", f"is {text!r}; accepted: a time like 2023-06-01T18:00:00Z") from (
            error
        )
