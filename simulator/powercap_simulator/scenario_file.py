"""Scenarios from YAML files.

    name: mine
    curves: power_load_curves.csv           # optional, for deployments that name a curve_id
    nodes:
      - {name: node-a, gpu: H100, gpu_count: 8, host_idle_watts: 320}
    deployments:
      - namespace: chat
        name: assistant
        curve: {model: llama-3.1-8b, gpu: H100}             # built in, or {curve_id: "..."}
        workload: {peak_rps: 20, prompt_tokens: 500, output_tokens: 400}
                                            # or {trace: trace.csv, scale: 0.1}
        min_replicas: 1
        max_replicas: 4

Paths are relative to the file. Other fields of nodes, deployments, workloads and of the scenario
are those of their classes, under the same names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from powercap_planner.observations import ReplicaRule
from powercap_simulator.curves import ReplicaCurve, builtin_curve, read_curves
from powercap_simulator.errors import ScenarioError
from powercap_simulator.scenario import DeploymentSpec, NodeSpec, Scenario
from powercap_simulator.workload import DailyWorkload, Workload, read_trace

_TEXT = {"name", "namespace", "gpu"}
_WHOLE = {"gpu_count", "min_replicas", "max_replicas", "priority"}
_MADE = {"curve", "workload", "replica_rule"}


def read_scenario(path: Path) -> Scenario:
    """Read a scenario.

    Raises:
        ScenarioError: naming file and field of what cannot be used.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ScenarioError(f"{path} cannot be read: {error}") from error
    try:
        return _scenario(_mapping(document, "the file"), path.parent)
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from error


def _scenario(document: Mapping[str, Any], folder: Path) -> Scenario:
    curves: dict[str, ReplicaCurve] = {}
    if "curves" in document:
        curves = read_curves(folder / str(document["curves"]))
    rest = {k: v for k, v in document.items() if k not in ("curves", "nodes", "deployments")}
    nodes = [
        NodeSpec(**_fields(NodeSpec, entry, f"nodes[{place}]"))
        for place, entry in enumerate(_list(document, "nodes"))
    ]
    deployments = [
        _deployment(entry, f"deployments[{place}]", curves, folder)
        for place, entry in enumerate(_list(document, "deployments"))
    ]
    known = _fields(Scenario, rest, "the file", made={"nodes", "deployments"})
    return Scenario(nodes=tuple(nodes), deployments=tuple(deployments), **known)


def _deployment(
    entry: object, where: str, curves: Mapping[str, ReplicaCurve], folder: Path
) -> DeploymentSpec:
    fields = _mapping(entry, where)
    made: dict[str, Any] = {
        "curve": _curve(fields.get("curve"), f"{where}.curve", curves),
        "workload": _workload(fields.get("workload"), f"{where}.workload", folder),
    }
    if "replica_rule" in fields:
        accepted = [rule.value for rule in ReplicaRule]
        if fields["replica_rule"] not in accepted:
            raise ScenarioError(
                f"{where}.replica_rule is {fields['replica_rule']!r}; accepted: {accepted}"
            )
        made["replica_rule"] = ReplicaRule(fields["replica_rule"])
    rest = {name: value for name, value in fields.items() if name not in _MADE}
    return DeploymentSpec(**made, **_fields(DeploymentSpec, rest, where, made=_MADE))


def _curve(entry: object, where: str, curves: Mapping[str, ReplicaCurve]) -> ReplicaCurve:
    fields = _mapping(entry, where)
    if "curve_id" in fields:
        found = curves.get(str(fields["curve_id"]))
        if found is None:
            raise ScenarioError(
                f"{where}.curve_id is {fields['curve_id']!r}, which the file under 'curves' does "
                f"not hold for a known GPU ({len(curves)} curves)"
            )
        return found
    return builtin_curve(model=str(fields.get("model")), gpu=str(fields.get("gpu")))


def _workload(entry: object, where: str, folder: Path) -> Workload:
    fields = _mapping(entry, where)
    if "trace" in fields:
        scale = _number(fields.get("scale", 1.0), f"{where}.scale")
        return read_trace(folder / str(fields["trace"]), scale=scale)
    return DailyWorkload(**_fields(DailyWorkload, fields, where))


def _fields(
    kind: type, entry: object, where: str, *, made: set[str] | None = None
) -> dict[str, Any]:
    """Check names and types against a dataclass whose simple fields are text and numbers."""
    given = _mapping(entry, where)
    known = {f.name: f for f in dataclasses.fields(kind) if f.name not in (made or set())}
    for name in given:
        if name not in known:
            raise ScenarioError(f"{where}.{name} is unknown; accepted: {', '.join(known)}")
    for name, field in known.items():
        if name not in given and field.default is dataclasses.MISSING:
            raise ScenarioError(f"{where}.{name} is missing")
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in _TEXT:
            values[name] = str(value)
            continue
        number = _number(value, f"{where}.{name}")
        if name in _WHOLE and not number.is_integer():
            raise ScenarioError(f"{where}.{name} is {value!r}; accepted: a whole number")
        values[name] = int(number) if name in _WHOLE else number
    return values


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ScenarioError(f"{where} is {value!r}; accepted: a number")
    return float(value)


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ScenarioError(f"{where} is {type(value).__name__}; accepted: a mapping of fields")
    return value


def _list(document: Mapping[str, Any], name: str) -> list[object]:
    value = document.get(name)
    if not isinstance(value, list):
        raise ScenarioError(f"{name} is {type(value).__name__}; accepted: a list")
    return value
