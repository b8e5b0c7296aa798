"""Load forecasts: from yesterday or from now, with their own errors; missing is never 0."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_planner.forecast.load import LoadForecast
from powercap_planner.forecast.seasonal import DAY_SECONDS, forecast_load
from powercap_planner.observations import Finding

STEP = 300.0


def forecast(load, *, now_after: float = 0.0, step: float = STEP):
    values = np.asarray(load, dtype=np.float64)
    time = step * np.arange(1, values.size + 1)
    return forecast_load(
        deployment="llm/chat",
        time_seconds=time,
        load_tps=values,
        step_seconds=step,
        now_seconds=float(time[-1]) + now_after,
        horizon_seconds=STEP,
    )


def daily(days: float) -> np.ndarray:
    time = STEP * np.arange(1, int(days * DAY_SECONDS / STEP) + 1)
    return 1000.0 + 800.0 * np.sin(2 * np.pi * time / DAY_SECONDS)


def test_a_daily_load_is_forecast_from_the_same_time_yesterday():
    load = daily(3.0)

    result = forecast(load)

    assert isinstance(result, LoadForecast)
    assert result.method == "same time yesterday"
    assert result.mean_tps == pytest.approx(daily(3.1)[load.size], abs=0.1)


def test_a_short_history_gives_the_last_value_with_its_spread():
    load = 1000.0 + 100.0 * np.random.default_rng(0).normal(size=200)

    result = forecast(load)

    assert isinstance(result, LoadForecast)
    assert result.method == "last value"
    assert result.load_tps.size == 5
    assert np.median(result.load_tps) == pytest.approx(load[-1], abs=60.0)
    assert np.ptp(result.load_tps) > 50.0


def test_one_value_is_a_point_without_a_claimed_spread():
    result = forecast([700.0])

    assert isinstance(result, LoadForecast)
    assert result.load_tps.tolist() == [700.0]


def test_what_was_not_measured_is_left_out_and_not_read_as_zero():
    load = np.full(100, 900.0)
    load[::3] = np.nan
    load[1::7] = -1.0
    load[-1] = 900.0

    result = forecast(load)

    assert isinstance(result, LoadForecast)
    np.testing.assert_allclose(result.load_tps, 900.0)


@pytest.mark.parametrize(
    ("load", "now_after", "reason", "message"),
    [
        pytest.param([np.nan, np.nan], 0.0, "LoadMissing", "no load measured", id="nothing"),
        pytest.param([-1.0, -2.0], 0.0, "LoadMissing", "no load measured", id="negative"),
        pytest.param([5.0, np.nan], 600.0, "LoadStale", "no load measured for 15 min", id="old"),
    ],
)
def test_no_usable_load_is_a_reason_not_a_number(load, now_after, reason, message):
    result = forecast(load, now_after=now_after)

    assert isinstance(result, Finding)
    assert (result.reason, result.message, result.deployment) == (reason, message, "llm/chat")


@given(
    st.lists(st.one_of(st.floats(0, 1e6), st.just(float("nan"))), min_size=1, max_size=60),
    st.floats(0, 10),
)
def test_a_forecast_is_a_distribution_of_loads_that_can_be(load, factor):
    result = forecast(load)

    if isinstance(result, Finding):
        return
    assert result.share.sum() == pytest.approx(1.0)
    assert np.isfinite(result.load_tps).all()
    assert (result.load_tps >= 0).all()
    assert result.scaled(factor).mean_tps == pytest.approx(factor * result.mean_tps)
