import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_simulator.errors import ScenarioError
from powercap_simulator.keda import STABILISATION_SECONDS, SYNC_SECONDS, ScaledObject


def scaled(low: int, high: int) -> ScaledObject:
    return ScaledObject(min_replicas=low, max_replicas=high, target=100.0)


@given(
    low=st.integers(1, 4),
    extra=st.integers(0, 6),
    start=st.integers(1, 20),
    metrics=st.lists(st.floats(0.0, 5000.0), min_size=1, max_size=40),
)
def test_what_is_asked_for_lies_within_the_limits(
    low: int, extra: int, start: int, metrics: list[float]
) -> None:
    one = scaled(low, low + extra)
    current = start

    for place, metric in enumerate(metrics):
        current = one.sync(now_seconds=place * SYNC_SECONDS, current=current, metric=metric)

        assert low <= current <= low + extra


@given(metric=st.floats(1.0, 5000.0), current=st.integers(1, 50))
def test_grows_to_what_the_metric_needs_at_most_doubling_or_by_four(
    metric: float, current: int
) -> None:
    one = scaled(1, 50)

    asked = one.sync(now_seconds=0.0, current=current, metric=metric)

    if metric / (100.0 * current) > 1.1:
        assert asked == min(math.ceil(metric / 100.0), max(2 * current, current + 4), 50)
    else:
        assert asked <= current


def test_a_lower_maximum_needs_no_metric_and_no_stabilisation() -> None:
    one = scaled(1, 10)
    one.sync(now_seconds=0.0, current=10, metric=1000.0)

    one.set_limits(max_replicas=3)

    assert one.sync(now_seconds=15.0, current=10, metric=1000.0) == 3


def test_scaling_down_waits_for_the_stabilisation_window() -> None:
    one = scaled(1, 10)
    current = one.sync(now_seconds=0.0, current=8, metric=800.0)
    times = [SYNC_SECONDS * place for place in range(1, 40)]

    asked = [one.sync(now_seconds=when, current=current, metric=100.0) for when in times]

    low = [when for when, count in zip(times, asked, strict=True) if count == 1]
    assert set(asked) == {8, 1}
    assert min(low) == STABILISATION_SECONDS + SYNC_SECONDS


def test_within_the_tolerance_nothing_changes() -> None:
    assert scaled(1, 10).sync(now_seconds=0.0, current=5, metric=549.0) == 5
    assert scaled(1, 10).sync(now_seconds=0.0, current=5, metric=551.0) == 6


def test_scales_to_zero_only_without_minimum_after_the_cooldown_and_wakes_at_once() -> None:
    one = scaled(0, 5)
    current = one.sync(now_seconds=0.0, current=1, metric=50.0)

    held = one.sync(now_seconds=285.0, current=current, metric=0.0)
    gone = one.sync(now_seconds=300.0, current=held, metric=0.0)
    woken = one.sync(now_seconds=315.0, current=gone, metric=1.0)

    assert (held, gone, woken) == (1, 0, 1)


def test_paused_freezes_and_paused_replicas_sets() -> None:
    one = scaled(1, 5)
    one.is_paused = True
    assert one.sync(now_seconds=0.0, current=4, metric=0.0) == 4

    one.paused_replicas = 0
    assert one.sync(now_seconds=15.0, current=4, metric=900.0) == 0


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        pytest.param(3, 2, "maxReplicaCount is 2; accepted: 3", id="crossed"),
        pytest.param(0, 0, "maxReplicaCount is 0; accepted: 1", id="zero"),
        pytest.param(-1, 2, "minReplicaCount is -1", id="negative"),
    ],
)
def test_limits_that_kedas_admission_refuses_are_refused(low: int, high: int, message: str) -> None:
    one = scaled(1, 5)

    with pytest.raises(ScenarioError, match=message):
        one.set_limits(min_replicas=low, max_replicas=high)

    assert (one.min_replicas, one.max_replicas) == (1, 5)
