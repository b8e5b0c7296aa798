"""Observations in files: the same history that a live source delivers, for offline work.

The form is JSON with ``format`` and ``version`` at its head; a value that was not measured is
null, never 0. Field names and units are those of ``powercap_planner.observations``.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from powercap_planner.errors import InputFileError, SourceError
from powercap_planner.observations import (
    ClusterObservation,
    DeploymentObservation,
    Finding,
    FloatArray,
    Reading,
    ReplicaRule,
)
from powercap_planner.sources.fields import Fields

FORMAT = "powercap.observation"
VERSION = 1

_SERIES = (
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


def observation_to_json(observation: ClusterObservation) -> str:
    """Return the observation as JSON text; NaN becomes null."""
    reading = observation.measured
    document = {
        "format": FORMAT,
        "version": VERSION,
        "step_seconds": observation.step_seconds,
        "time_seconds": observation.time_seconds.tolist(),
        "gpu_count": dict(observation.gpu_count),
        "parked_gpu_watts": dict(observation.parked_gpu_watts),
        "host_idle_watts": observation.host_idle_watts,
        "total_watts": _listed(observation.total_watts),
        "measured": None
        if reading is None
        else {
            "power_watts": reading.power_watts,
            "measured_at_seconds": reading.measured_at_seconds,
            "source": reading.source,
        },
        "deployments": [_deployment_to_dict(one) for one in observation.deployments],
        "findings": [
            {"reason": one.reason, "message": one.message, "deployment": one.deployment}
            for one in observation.findings
        ],
    }
    return json.dumps(document, allow_nan=False) + "\n"


def observation_from_json(text: str) -> ClusterObservation:
    """Return the observation written in JSON text.

    Raises:
        InputFileError: naming the field, the value and what is accepted.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputFileError(
            f"not JSON: {error.msg}, line {error.lineno}, column {error.colno}"
        ) from error
    fields = Fields(document)
    if fields.text_or("format", "") != FORMAT:
        raise fields.error("format", f"is not {FORMAT!r}; accepted: an observation file")
    if (version := fields.whole("version")) != VERSION:
        raise fields.error("version", f"is {version}; accepted: {VERSION}")
    time = _times(fields)
    deployments = tuple(
        _deployment_from_fields(one, length=time.size) for one in fields.children("deployments")
    )
    keys = [one.key for one in deployments]
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise fields.error("deployments", f"holds {twice} twice; accepted: each once")
    return ClusterObservation(
        time_seconds=time,
        step_seconds=fields.number("step_seconds", above=0),
        deployments=deployments,
        gpu_count=_counts(fields),
        parked_gpu_watts=fields.numbers_by_name("parked_gpu_watts"),
        host_idle_watts=fields.number("host_idle_watts", low=0),
        total_watts=fields.series("total_watts", length=time.size),
        measured=_reading(fields),
        findings=tuple(
            Finding(
                reason=one.text("reason"),
                message=one.text_or("message", ""),
                deployment=one.text_or("deployment", ""),
            )
            for one in (fields.children("findings") if fields.has("findings") else ())
        ),
    )


def read_observation(path: Path) -> ClusterObservation:
    """Read an observation file.

    Raises:
        InputFileError: naming the file, and the field if the content is malformed.
    """
    try:
        return observation_from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputFileError(f"{path}: cannot be read: {reason}") from error
    except InputFileError as error:
        raise InputFileError(f"{path}: {error}") from error


def write_observation(path: Path, observation: ClusterObservation) -> None:
    """Write an observation file.

    Raises:
        InputFileError: when it cannot be written.
    """
    try:
        path.write_text(observation_to_json(observation), encoding="utf-8")
    except OSError as error:
        raise InputFileError(f"{path}: cannot be written: {error.strerror}") from error


class FileMetricsSource:
    """Replays an observation file: the file-backed twin of a live source.

    The file's own times are used as they are; whoever plans judges their age against its own now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """``file <path>``."""
        return f"file {self._path}"

    def observe(
        self, *, now_seconds: float, history_seconds: float, step_seconds: float
    ) -> ClusterObservation:
        """Return what the file holds of the asked span, in the file's own step.

        Raises:
            SourceError: when the file cannot be read.
        """
        observation = self._read()
        time = observation.time_seconds
        kept = (time <= now_seconds) & (time > now_seconds - history_seconds)
        return _cut(observation, kept)

    def measure(self, *, now_seconds: float, window_seconds: float) -> Reading | None:
        """Return the file's last total up to now, with its own time."""
        observation = self._read()
        usable = np.isfinite(observation.total_watts) & (observation.time_seconds <= now_seconds)
        if not usable.any():
            return None
        end = observation.time_seconds[usable][-1]
        inside = usable & (observation.time_seconds > end - max(window_seconds, 1e-9))
        return Reading(
            power_watts=float(observation.total_watts[inside].mean()),
            measured_at_seconds=float(end),
            source=self.name,
        )

    def _read(self) -> ClusterObservation:
        try:
            return read_observation(self._path)
        except InputFileError as error:
            raise SourceError(str(error)) from error


def _cut(observation: ClusterObservation, kept: NDArray[np.bool_]) -> ClusterObservation:
    return replace(
        observation,
        time_seconds=observation.time_seconds[kept],
        total_watts=observation.total_watts[kept],
        deployments=tuple(
            replace(one, **{name: getattr(one, name)[kept] for name in _SERIES})
            for one in observation.deployments
        ),
    )


def _listed(values: FloatArray) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]


def _deployment_to_dict(one: DeploymentObservation) -> dict[str, Any]:
    return {
        "namespace": one.namespace,
        "name": one.name,
        "gpu_type": one.gpu_type,
        "gpus_per_replica": one.gpus_per_replica,
        "min_replicas": one.min_replicas,
        "max_replicas": one.max_replicas,
        "replica_rule": one.replica_rule.value,
        **{name: _listed(getattr(one, name)) for name in _SERIES},
    }


def _deployment_from_fields(fields: Fields, *, length: int) -> DeploymentObservation:
    least = fields.whole_or_none("min_replicas")
    most = fields.whole_or_none("max_replicas", low=1)
    if least is not None and most is not None and most < least:
        raise fields.error("max_replicas", f"is {most}; accepted: min_replicas ({least}) or more")
    return DeploymentObservation(
        namespace=fields.text("namespace"),
        name=fields.text("name"),
        gpu_type=fields.text("gpu_type") if fields.has("gpu_type") else None,
        gpus_per_replica=fields.whole_or_none("gpus_per_replica", low=1),
        min_replicas=least,
        max_replicas=most,
        replica_rule=ReplicaRule(fields.choice("replica_rule", tuple(ReplicaRule))),
        **{name: fields.series(name, length=length) for name in _SERIES},
    )


def _times(fields: Fields) -> FloatArray:
    time = fields.series("time_seconds")
    if not time.size:
        raise fields.error("time_seconds", "is empty; accepted: at least one time")
    if not np.isfinite(time).all() or (np.diff(time) <= 0).any():
        raise fields.error("time_seconds", "does not ascend; accepted: Unix times in order")
    return time


def _counts(fields: Fields) -> dict[str, int]:
    counts = fields.numbers_by_name("gpu_count")
    for name, count in counts.items():
        if count != int(count):
            raise fields.error(f"gpu_count.{name}", f"is {count}; accepted: a whole number")
    return {name: int(count) for name, count in counts.items()}


def _reading(fields: Fields) -> Reading | None:
    if not fields.has("measured"):
        return None
    one = fields.child("measured")
    return Reading(
        power_watts=one.number("power_watts", low=0),
        measured_at_seconds=one.number("measured_at_seconds", low=0),
        source=one.text("source"),
    )
