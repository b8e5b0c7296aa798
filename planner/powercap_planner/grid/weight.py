"""Price and carbon as one dimensionless energy weight, and the share of served it may cost.

    energy_weight = clip(1 + a (price - price_ref) / price_scale
                           + b (carbon - carbon_ref) / carbon_scale, 0.05, 10)

with ``scale = max(|ref|, 10 currency/MWh or 20 g/kWh)``. References are trimmed means of the
trailing seven days. A signal that is missing adds nothing: neutral, never "free".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from powercap_planner.errors import SourceError
from powercap_planner.grid.series import CarbonProvider, GridSeries, PriceProvider
from powercap_planner.observations import Finding, FloatArray

REFERENCE_SECONDS = 7 * 86_400.0
TRIM_FRACTION = 0.1
"""Share of the values left out at either end of a reference's mean."""
MAX_AGE_SECONDS = 6 * 3600.0
"""A value that ended longer ago than this is no longer used."""
LEAST_PRICE_SCALE_PER_MWH = 10.0
LEAST_CARBON_SCALE_G_PER_KWH = 20.0
WEIGHT_RANGE = (0.05, 10.0)
SERVED_TOLERANCE = 0.002
"""Share of served that throughput per watt may always cost."""
MAX_SHED_FRACTION = 0.05
"""Share of served that it may cost at a stress of 2 or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSignal:
    """One signal now, with what is usual."""

    value: float
    reference: float
    unit: str
    source: str
    age_seconds: float
    """Since the value's interval ended; 0 while it lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridConditions:
    """Price and carbon of one zone now; None: not known, counts as usual."""

    zone: str = ""
    price: GridSignal | None = None
    carbon: GridSignal | None = None
    findings: tuple[Finding, ...] = ()

    def energy_weight(self, *, price_weight: float, carbon_weight: float) -> float:
        """Return what a watt counts now against what it counts usually."""
        weight = 1.0 + price_weight * _deviation(self.price, LEAST_PRICE_SCALE_PER_MWH)
        weight += carbon_weight * _deviation(self.carbon, LEAST_CARBON_SCALE_G_PER_KWH)
        return float(np.clip(weight, *WEIGHT_RANGE))

    def stress(self, *, price_weight: float, carbon_weight: float) -> float:
        """Return how strained the zone is against its own usual state; 1 is usual."""
        # The references are those of this one zone, so stress and energy weight agree.
        return self.energy_weight(price_weight=price_weight, carbon_weight=carbon_weight)


def served_share(stress: float) -> float:
    """Return the share of served that throughput per watt must keep at a stress."""
    most, least = 1.0 - SERVED_TOLERANCE, 1.0 - MAX_SHED_FRACTION
    return float(np.interp(stress, [1.0, 2.0], [most, least]))


def read_conditions(
    *,
    price: PriceProvider | None,
    carbon: CarbonProvider | None,
    zone: str,
    now_seconds: float,
) -> GridConditions:
    """Return price and carbon now; what cannot be had is neutral, with a finding."""
    start = now_seconds - REFERENCE_SECONDS
    fetch_price = (
        None
        if price is None
        else partial(price.prices, zone=zone, start_seconds=start, end_seconds=now_seconds)
    )
    fetch_carbon = (
        None
        if carbon is None
        else partial(carbon.intensities, zone=zone, start_seconds=start, end_seconds=now_seconds)
    )
    price_now, price_findings = _signal("price", fetch_price, now_seconds)
    carbon_now, carbon_findings = _signal("carbon", fetch_carbon, now_seconds)
    return GridConditions(
        zone=zone,
        price=price_now,
        carbon=carbon_now,
        findings=(*price_findings, *carbon_findings),
    )


def signal_at(
    series: GridSeries, *, now_seconds: float, name: str
) -> tuple[GridSignal | None, tuple[Finding, ...]]:
    """Return the last good value with its age, None when there is none young enough."""
    known = np.isfinite(series.values) & (series.time_seconds <= now_seconds)
    if not known.any():
        message = f"{name}: {series.source} has no value; taken as usual"
        return None, (Finding(reason="GridDataMissing", message=message),)
    time, values = series.time_seconds[known], series.values[known]
    age = max(0.0, now_seconds - float(time[-1]) - series.step_seconds)
    if age > MAX_AGE_SECONDS:
        message = f"{name}: last value is {age / 3600:.1f} h old; taken as usual"
        return None, (Finding(reason="GridDataMissing", message=message),)
    findings: tuple[Finding, ...] = ()
    if age > 0:
        message = f"{name}: the value used ended {age / 60:.0f} min ago"
        findings = (Finding(reason="GridDataOld", message=message),)
    recent = values[time > now_seconds - REFERENCE_SECONDS - series.step_seconds]
    signal = GridSignal(
        value=float(values[-1]),
        reference=_trimmed_mean(recent),
        unit=series.unit,
        source=series.source,
        age_seconds=age,
    )
    return signal, findings


def _signal(
    name: str, fetch: Callable[[], GridSeries] | None, now_seconds: float
) -> tuple[GridSignal | None, tuple[Finding, ...]]:
    if fetch is None:
        return None, ()
    try:
        series = fetch()
    except SourceError as error:
        message = f"{name}: {error}; taken as usual"
        return None, (Finding(reason="GridDataMissing", message=message),)
    return signal_at(series, now_seconds=now_seconds, name=name)


def _trimmed_mean(values: FloatArray) -> float:
    cut = int(TRIM_FRACTION * values.size)
    return float(np.sort(values)[cut : values.size - cut].mean())


def _deviation(signal: GridSignal | None, least_scale: float) -> float:
    if signal is None:
        return 0.0
    return (signal.value - signal.reference) / max(abs(signal.reference), least_scale)
