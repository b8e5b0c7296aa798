"""Arithmetic on series with gaps: a gap is never filled with less than what was seen."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from powercap_planner.sources.history import (
    History,
    filled_forward,
    last_finite,
    median_finite,
    most_in_trailing,
    where_complete,
)
from powercap_planner.sources.prometheus_api import Series

with_gaps = st.lists(st.one_of(st.just(math.nan), st.floats(0, 1e6)), min_size=1, max_size=40).map(
    np.array
)


@given(values=with_gaps)
def test_filling_changes_only_gaps_and_uses_only_seen_values(values):
    filled = filled_forward(values)

    seen = np.isfinite(values)
    np.testing.assert_array_equal(filled[seen], values[seen])
    if seen.any():
        assert np.isin(filled, values[seen]).all()
    else:
        assert np.isnan(filled).all()


@given(values=with_gaps, windows=st.integers(1, 12))
def test_most_in_trailing_is_the_largest_of_the_windows_before(values, windows):
    most = most_in_trailing(values, windows=windows)

    for place, found in enumerate(most):
        span = values[max(0, place - windows + 1) : place + 1]
        finite = span[np.isfinite(span)]
        assert found == (finite.max() if finite.size else -math.inf)


@given(values=with_gaps, missing=st.integers(0, 3))
def test_sum_with_a_missing_part_is_missing(values, missing):
    expected = np.full(values.size, 4.0)

    kept = where_complete(values, parts=expected - missing, expected=expected)

    if missing:
        assert np.isnan(kept).all()
    else:
        np.testing.assert_array_equal(kept, values)


def test_sum_whose_parts_nobody_knows_is_missing():
    unknown = np.array([math.nan, 2.0])

    kept = where_complete(np.array([5.0, 5.0]), parts=np.array([2.0, math.nan]), expected=unknown)

    assert np.isnan(kept).all()


@given(values=with_gaps)
def test_summaries_see_only_what_was_measured(values):
    finite = values[np.isfinite(values)]

    assert last_finite(values) == (finite[-1] if finite.size else None)
    assert median_finite(values) == (np.median(finite) if finite.size else None)


def test_values_that_cannot_be_are_dropped_with_a_finding():
    history = History(start_seconds=0, step_seconds=10, length=5)
    points = ((0.0, 1.0), (10.0, math.nan), (20.0, -1.0), (30.0, math.inf), (40.0, 2.0))

    history.add(
        "served_tps", (Series(labels={"namespace": "n", "deployment": "d"}, points=points),)
    )

    np.testing.assert_array_equal(
        history.of("served_tps", ("n", "d")), [1, math.nan, math.nan, math.nan, 2]
    )
    (finding,) = history.findings
    assert finding.reason == "ValueDropped"
    assert "3 values of served_tps" in finding.message


def test_quantile_without_traffic_is_no_finding():
    history = History(start_seconds=0, step_seconds=10, length=2)

    history.add("ttft_p95_seconds", (Series(labels={}, points=((0.0, math.nan), (10.0, 0.2))),))

    assert history.findings == []


def test_series_of_another_workload_is_not_taken():
    history = History(start_seconds=0, step_seconds=10, length=1)
    history.add("gpu_watts", (Series(labels={"namespace": "n", "deployment": "d"}, points=()),))

    assert history.keys("gpu_watts") == set()
    assert np.isnan(history.of("gpu_watts", ("n", "d"))).all()
