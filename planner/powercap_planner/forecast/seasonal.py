"""A simple forecast of load: the same time yesterday, or the last value, with its own errors.

Both are tried on the history and the one that was nearer stands; short history leaves the last
value. The spread of the scenarios is the spread of that method's past errors.
"""

from __future__ import annotations

import numpy as np

from powercap_planner.forecast.load import LoadForecast
from powercap_planner.observations import Finding, FloatArray

DAY_SECONDS = 86_400.0
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Quantiles of the scenarios, each standing for a fifth of the cases."""
MAX_AGE_SECONDS = 300.0
MIN_ERRORS = 12
"""With fewer past errors no spread is claimed: one scenario."""


def forecast_load(
    *,
    deployment: str,
    time_seconds: FloatArray,
    load_tps: FloatArray,
    step_seconds: float,
    now_seconds: float,
    horizon_seconds: float,
    max_age_seconds: float = MAX_AGE_SECONDS,
) -> LoadForecast | Finding:
    """Return the mean load of the next ``horizon_seconds``, or why none can be given.

    Args:
        deployment: ``namespace/name``, for the finding.
        time_seconds: float64[time], evenly spaced.
        load_tps: float64[time]; what is missing, negative or not finite is left out, not read as 0.
        step_seconds: spacing of the time grid.
        now_seconds: start of the period.
        horizon_seconds: length of the period.
        max_age_seconds: a last value older than this is no basis for a forecast.
    """
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(load_tps) & (load_tps >= 0)
    if not usable.any():
        return Finding(reason="LoadMissing", message="no load measured", deployment=deployment)
    age = now_seconds - float(time_seconds[usable][-1])
    if age > max_age_seconds:
        message = f"no load measured for {age / 60:.0f} min"
        return Finding(reason="LoadStale", message=message, deployment=deployment)
    ahead = max(1, round(horizon_seconds / step_seconds))
    smooth = _trailing_mean(np.where(usable, load_tps, np.nan), ahead)
    last = int(np.flatnonzero(np.isfinite(smooth))[-1])

    method, center, errors = "last value", float(smooth[last]), smooth[ahead:] - smooth[:-ahead]
    season = round(DAY_SECONDS / step_seconds)
    if last + ahead >= season and np.isfinite(smooth[last + ahead - season]):
        seasonal = smooth[season:] - smooth[:-season]
        if _is_nearer(seasonal, errors):
            center, errors = float(smooth[last + ahead - season]), seasonal
            method = "same time yesterday"
    errors = errors[np.isfinite(errors)]
    if errors.size < MIN_ERRORS:
        return LoadForecast.point(center, method=method)
    scenarios = np.maximum(center + np.quantile(errors, LEVELS), 0.0)
    share = np.full(len(LEVELS), 1.0 / len(LEVELS))
    return LoadForecast(load_tps=scenarios, share=share, method=method)


def _trailing_mean(values: FloatArray, width: int) -> FloatArray:
    """Return the mean of the last ``width`` values that are there; NaN where none is."""
    there = np.isfinite(values)
    total = np.concatenate(([0.0], np.cumsum(np.where(there, values, 0.0))))
    count = np.concatenate(([0.0], np.cumsum(there)))
    start = np.maximum(np.arange(values.size) + 1 - width, 0)
    end = np.arange(values.size) + 1
    number = count[end] - count[start]
    mean: FloatArray = np.full(values.size, np.nan)
    np.divide(total[end] - total[start], number, out=mean, where=number > 0)
    return mean


def _is_nearer(candidate: FloatArray, other: FloatArray) -> bool:
    enough = int(np.isfinite(candidate).sum()) >= MIN_ERRORS
    if not (enough and np.isfinite(other).any()):
        return enough
    return bool(np.nanmean(np.abs(candidate)) < np.nanmean(np.abs(other)))
