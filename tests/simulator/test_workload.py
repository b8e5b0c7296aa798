from pathlib import Path

import numpy as np
import pytest

from powercap_simulator.curves import read_curves
from powercap_simulator.errors import ScenarioError
from powercap_simulator.scenario import DEFAULT_START_SECONDS
from powercap_simulator.workload import DAY_SECONDS, DailyWorkload, read_trace

HEADER = "time_s,requests_per_s,prompt_tokens_per_request_mean,output_tokens_per_request_mean\n"


def test_a_day_peaks_at_its_hour_and_rests_at_its_trough() -> None:
    load = DailyWorkload(
        peak_rps=10.0, prompt_tokens=100.0, output_tokens=50.0, trough_fraction=0.2, peak_hour=14.0
    )
    times = DEFAULT_START_SECONDS + np.arange(0.0, DAY_SECONDS, 600.0)

    rate = load.rate_rps(times)

    assert times[np.argmax(rate)] == DEFAULT_START_SECONDS + 14 * 3600
    assert rate.max() == pytest.approx(10.0)
    assert rate.min() >= 2.0 - 1e-9
    np.testing.assert_allclose(load.rate_rps(times + DAY_SECONDS), rate)


def test_weekends_are_quieter_where_asked() -> None:
    load = DailyWorkload(peak_rps=10.0, prompt_tokens=1.0, output_tokens=1.0, weekend_fraction=0.5)
    noon = DEFAULT_START_SECONDS + DAY_SECONDS / 2  # a Monday
    days = noon + DAY_SECONDS * np.arange(7)

    rate = load.rate_rps(days) / load.rate_rps(days[:1])

    np.testing.assert_allclose(rate, [1, 1, 1, 1, 1, 0.5, 0.5])


def test_a_trace_is_summed_scaled_and_repeated(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        HEADER + "0,2,100,10\n0,2,300,30\n600,4,100,10\n1200,0,,\n1200,0,9,\n", encoding="utf-8"
    )

    trace = read_trace(path, scale=0.5)

    np.testing.assert_allclose(
        trace.rate_rps(np.array([0.0, 599.0, 600.0, 1200.0, 1800.0, 2400.0])),
        [2.0, 2.0, 2.0, 0.0, 2.0, 2.0],
    )
    assert trace.prompt_tokens == pytest.approx((2 * 100 + 2 * 300 + 4 * 100) / 8)
    assert trace.output_tokens == pytest.approx((2 * 10 + 2 * 30 + 4 * 10) / 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("time_s\n0\n", "column 'requests_per_s' is missing", id="column"),
        pytest.param(HEADER + "0,1,1,1\n", "2 rows or more", id="short"),
        pytest.param(HEADER + "0,1,1,1\n60,1,1,1\n99,1,1,1\n", "evenly spaced", id="uneven"),
        pytest.param(HEADER + "0,-1,1,1\n60,1,1,1\n", "line 2: requests_per_s is '-1'", id="sign"),
        pytest.param(HEADER + "0,1,1,1\n60,nan,1,1\n", "line 3: requests_per_s", id="nan"),
        pytest.param(HEADER + "0,0,1,1\n60,0,1,1\n", "0 throughout", id="nothing"),
        pytest.param(HEADER + "0,1,,1\n60,1,1,\n", "has both token means", id="tokens"),
    ],
)
def test_malformed_traces_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ScenarioError, match=message):
        read_trace(path)


def test_impossible_days_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"trough_fraction is 1\.5"):
        DailyWorkload(peak_rps=1.0, prompt_tokens=1.0, output_tokens=1.0, trough_fraction=1.5)
    with pytest.raises(ScenarioError, match="output_tokens is 0"):
        DailyWorkload(peak_rps=1.0, prompt_tokens=1.0, output_tokens=0.0)


def test_measured_curves_and_recorded_traces_are_read(real_data: Path) -> None:
    curves = read_curves(real_data / "power_load" / "power_load_curves.csv")
    traces = [
        read_trace(path) for path in sorted((real_data / "load_traces").glob("servegen_*.csv"))
    ]

    assert len(curves) > 100
    assert all(curve.peak_watts <= curve.limit_watts * 1.02 for curve in curves.values())
    assert len(traces) >= 3
    assert all(trace.requests_per_second.max() > 0 for trace in traces)
