"""Observation files: what is written comes back, what is malformed is named."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_planner.errors import InputFileError, SourceError
from powercap_planner.observations import (
    ClusterObservation,
    DeploymentObservation,
    Finding,
    Reading,
    ReplicaRule,
)
from powercap_planner.sources.files import (
    FileMetricsSource,
    observation_from_json,
    observation_to_json,
    write_observation,
)

SERIES = (
    "power_watts",
    "ready_replicas",
    "present_replicas",
    "arrived_tps",
    "served_tps",
    "running_requests",
    "waiting_requests",
    "ttft_p95_seconds",
    "itl_p95_seconds",
)


def observation(values: list[float]) -> ClusterObservation:
    length = len(values)
    return ClusterObservation(
        time_seconds=1_700_000_000.0 + 30.0 * np.arange(length),
        step_seconds=30.0,
        deployments=(
            DeploymentObservation(
                namespace="llm",
                name="chat",
                gpu_type="NVIDIA H100 80GB HBM3",
                gpus_per_replica=2,
                min_replicas=1,
                max_replicas=None,
                replica_rule=ReplicaRule.FIXED,
                **{name: np.array(values) + index for index, name in enumerate(SERIES)},
            ),
        ),
        gpu_count={"NVIDIA H100 80GB HBM3": 16},
        parked_gpu_watts={"NVIDIA H100 80GB HBM3": 70.0},
        host_idle_watts=800.0,
        total_watts=np.array(values),
        measured=Reading(power_watts=5000.0, measured_at_seconds=1_700_000_030.0, source="dcgm"),
        findings=(Finding(reason="Assumed", message="host idle watts", deployment="llm/chat"),),
    )


def document() -> dict[str, Any]:
    return dict(json.loads(observation_to_json(observation([1.0, 2.0]))))


@given(st.lists(st.one_of(st.just(math.nan), st.floats(0, 1e9)), min_size=1, max_size=8))
def test_an_observation_survives_the_file_with_what_is_missing(values):
    written = observation(values)

    read = observation_from_json(observation_to_json(written))

    assert observation_to_json(read) == observation_to_json(written)
    np.testing.assert_array_equal(read.total_watts, written.total_watts)
    np.testing.assert_array_equal(read.deployments[0].served_tps, written.deployments[0].served_tps)
    assert read.measured == written.measured
    assert read.findings == written.findings


def test_missing_is_null_and_never_zero():
    text = observation_to_json(observation([math.nan, 3.0]))

    assert json.loads(text)["total_watts"] == [None, 3.0]
    assert math.isnan(observation_from_json(text).total_watts[0])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        pytest.param(("version",), 2, "version: is 2; accepted: 1", id="another version"),
        pytest.param(("format",), "x", "format: is not", id="another format"),
        pytest.param(("step_seconds",), 0, "step_seconds: is 0; accepted: more than 0", id="step"),
        pytest.param(("time_seconds",), [2.0, 1.0], "time_seconds: does not ascend", id="times"),
        pytest.param(("total_watts",), [1.0], "total_watts: holds 1 values", id="length"),
        pytest.param(("total_watts", 1), -5.0, "total_watts[1]: is -5", id="negative watts"),
        pytest.param(("total_watts", 1), "5", "total_watts[1]: is '5'", id="a text for a number"),
        pytest.param(("total_watts", 1), True, "total_watts[1]: is True", id="true for a number"),
        pytest.param(
            ("deployments", 0, "served_tps", 0), -1, "deployments[0].served_tps[0]", id="negative"
        ),
        pytest.param(("deployments", 0, "name"), "", "deployments[0].name: is empty", id="name"),
        pytest.param(
            ("deployments", 0, "gpus_per_replica"), 0, "gpus_per_replica: is 0", id="no gpu"
        ),
        pytest.param(
            ("deployments", 0, "replica_rule"), "both", "accepted: ceiling or fixed", id="rule"
        ),
        pytest.param(("deployments", 0, "max_replicas"), 0, "accepted: 1 or more", id="maximum"),
        pytest.param(
            ("gpu_count", "NVIDIA H100 80GB HBM3"), 1.5, "a whole number", id="half a gpu"
        ),
    ],
)
def test_a_malformed_field_is_named_with_what_is_accepted(path, value, message):
    changed = document()
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value

    with pytest.raises(InputFileError) as caught:
        observation_from_json(json.dumps(changed))

    assert message in str(caught.value)


def test_a_missing_field_is_named():
    changed = document()
    del changed["deployments"][0]["power_watts"]

    with pytest.raises(InputFileError, match=r"deployments\[0\].power_watts: is missing"):
        observation_from_json(json.dumps(changed))


def test_nan_written_as_a_bare_word_is_refused():
    text = observation_to_json(observation([1.0])).replace('"host_idle_watts": 800.0', "")

    with pytest.raises(InputFileError, match="not JSON"):
        observation_from_json(text)
    with pytest.raises(InputFileError, match=r"total_watts\[0\]: is nan"):
        observation_from_json(json.dumps({**document(), "total_watts": [math.nan, 1.0]}))


def test_a_file_source_uses_the_times_of_the_file(tmp_path):
    path = tmp_path / "observations.json"
    write_observation(path, observation([1.0, 2.0, 3.0, math.nan]))
    source = FileMetricsSource(path)
    start = 1_700_000_000.0

    seen = source.observe(now_seconds=start + 60, history_seconds=60, step_seconds=30)
    reading = source.measure(now_seconds=start + 9000, window_seconds=60)

    assert seen.time_seconds.tolist() == [start + 30, start + 60]
    assert seen.deployments[0].power_watts.tolist() == [2.0, 3.0]
    assert reading is not None
    assert (reading.power_watts, reading.measured_at_seconds) == (2.5, start + 60)
    assert source.measure(now_seconds=start - 1, window_seconds=60) is None


def test_a_file_source_that_cannot_be_read_is_an_error_not_a_zero(tmp_path):
    source = FileMetricsSource(tmp_path / "absent.json")

    with pytest.raises(SourceError, match=r"absent.json: cannot be read: No such file"):
        source.measure(now_seconds=0.0, window_seconds=60)
