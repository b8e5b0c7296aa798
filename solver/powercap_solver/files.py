"""Problems and plans as JSON for people: named fields, units in the names, exact floats.

A file is one object with ``"kind"`` (``powercap.problem`` or ``powercap.plan``), ``"version"``
(1) and the fields of ``PlanningProblem`` or ``Plan`` under their own names; arrays are nested
lists in the order of the fields' shapes. Floats are written with as many digits as read back to
the same value. NaN, allowed only where a plan says "not known", is written as null.
"""

from __future__ import annotations

import enum
import json
import math
import sys
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from powercap_solver.errors import FileFormatError, ProblemError
from powercap_solver.plan import Plan, PlanStatus, StageResult, StoppedBy, YieldedFloor
from powercap_solver.problem import PlanningProblem

PROBLEM_KIND = "powercap.problem"
PLAN_KIND = "powercap.plan"
VERSION = 1

_NAMES = ("deployments", "domains", "zones")
_AXES = {
    "period_seconds": "t",
    "option_count": "d",
    "replicas": "dk",
    "served_tps": "dtk",
    "power_watts": "dtk",
    "upper_watts": "cdtk",
    "load_tps": "dt",
    "weight": "d",
    "priority": "d",
    "min_replicas": "d",
    "min_served_fraction": "d",
    "served_share": "dt",
    "is_ceiling": "d",
    "replicas_in_force": "d",
    "zone_index": "d",
    "energy_weight": "zt",
    "zone_base_watts": "zt",
    "cap_watts": "ct",
    "overhead_factor": "c",
    "fixed_overhead_watts": "c",
    "base_watts": "ct",
    "unmanaged_watts": "ct",
    "fixed_watts": "ct",
}
"""Axes of each array: d deployment, t period, k option, c domain, z zone."""
_INTEGERS = frozenset(
    {"option_count", "replicas", "priority", "min_replicas", "replicas_in_force", "zone_index"}
)
_PLAN_TABLES = (
    "upper_watts",
    "headroom_watts",
    "shadow_price_low",
    "shadow_price_high",
    "least_cap_watts",
)
_NOT_KNOWN_ALLOWED = frozenset({"shadow_price_low", "shadow_price_high", "least_cap_watts"})
_Member = TypeVar("_Member", bound=enum.StrEnum)


def problem_to_json(problem: PlanningProblem) -> str:
    """Write ``problem`` as JSON text."""
    return _write(PROBLEM_KIND, problem)


def problem_from_json(text: str) -> PlanningProblem:
    """Read a problem.

    Raises:
        FileFormatError: naming the field and what is accepted.
    """
    content = _read(text, PROBLEM_KIND, PlanningProblem)
    values: dict[str, Any] = {name: _names(name, content[name]) for name in _NAMES}
    replicas = _list("replicas", content["replicas"])
    sizes = {
        "d": len(values["deployments"]),
        "c": len(values["domains"]),
        "z": len(values["zones"]),
        "t": len(_list("period_seconds", content["period_seconds"])),
        "k": len(_list("replicas[0]", replicas[0])) if replicas else 0,
    }
    for name, axes in _AXES.items():
        shape = tuple(sizes[axis] for axis in axes)
        values[name] = _array(name, content[name], shape, _kind(name))
    try:
        return PlanningProblem(**values)
    except ProblemError as error:
        raise FileFormatError(str(error)) from error


def plan_to_json(plan: Plan) -> str:
    """Write ``plan`` as JSON text."""
    return _write(PLAN_KIND, plan)


def plan_from_json(text: str) -> Plan:
    """Read a plan; whether it is right for a problem is ``certificate.verify``'s question.

    Raises:
        FileFormatError: naming the field and what is accepted.
    """
    content = _read(text, PLAN_KIND, Plan)
    choice = _list("choice", content["choice"])
    upper = _list("upper_watts", content["upper_watts"])
    stages = _list("stages", content["stages"])
    one_row = [*choice[:1], *upper[:1]]
    periods = len(_list("choice[0]", one_row[0])) if one_row else 0
    shape = (len(choice), periods)
    return Plan(
        status=_member("status", content["status"], PlanStatus),
        rung=_text("rung", content["rung"]),
        choice=_array("choice", content["choice"], shape, int),
        stages=tuple(_stage(f"stages[{index}]", item) for index, item in enumerate(stages)),
        yielded_floors=tuple(
            _yielded(f"yielded_floors[{index}]", item)
            for index, item in enumerate(_list("yielded_floors", content["yielded_floors"]))
        ),
        stage_choice=_array("stage_choice", content["stage_choice"], (len(stages), *shape), int),
        **{
            name: _array(name, content[name], (len(upper), periods), float) for name in _PLAN_TABLES
        },
    )


def _kind(name: str) -> type:
    if name == "is_ceiling":
        return bool
    return int if name in _INTEGERS else float


def _write(kind: str, item: PlanningProblem | Plan) -> str:
    content: dict[str, Any] = {"kind": kind, "version": VERSION}
    for field in fields(item):
        content[field.name] = _plain(getattr(item, field.name))
    lines = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}"
        for name, value in content.items()
    )
    return "{\n" + lines + "\n}\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (StageResult, YieldedFloor)):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _read(text: str, kind: str, made: type[PlanningProblem] | type[Plan]) -> dict[str, Any]:
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FileFormatError(f"the file holds {_named(content)}; accepted: one JSON object")
    if content.get("kind") != kind:
        raise FileFormatError(f"kind is {content.get('kind')!r}; accepted: {kind!r}")
    if content.get("version") != VERSION or isinstance(content.get("version"), bool):
        raise FileFormatError(f"version is {content.get('version')!r}; accepted: {VERSION}")
    _check_keys("", content, {"kind", "version", *(field.name for field in fields(made))})
    return content


def _refuse_constant(name: str) -> None:
    raise FileFormatError(f"the file holds {name}; accepted: numbers, and null for not known")


def _check_keys(path: str, content: dict[str, Any], known: set[str]) -> None:
    missing = sorted(known - content.keys())
    if missing:
        raise FileFormatError(f"{path}{missing[0]} is missing")
    unknown = sorted(content.keys() - known)
    if unknown:
        raise FileFormatError(
            f"{path}{unknown[0]} is not known; accepted: {', '.join(sorted(known))}"
        )


def _array(name: str, value: Any, shape: tuple[int, ...], kind: type) -> Any:
    flat: list[Any] = []
    _flatten(name, value, shape, kind, name in _NOT_KNOWN_ALLOWED, flat)
    types = {int: np.int64, float: np.float64, bool: np.bool_}
    try:
        return np.array(flat, dtype=types[kind]).reshape(shape)
    except OverflowError as error:
        raise FileFormatError(f"{name} holds a number that is too large") from error


def _flatten(
    path: str,
    value: Any,
    shape: tuple[int, ...],
    kind: type,
    may_be_null: bool,
    flat: list[Any],
) -> None:
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            held = f"{len(value)} entries" if isinstance(value, list) else _named(value)
            raise FileFormatError(f"{path} holds {held}; accepted: a list of {shape[0]}")
        for index, item in enumerate(value):
            _flatten(f"{path}[{index}]", item, shape[1:], kind, may_be_null, flat)
    elif value is None and may_be_null:
        flat.append(math.nan)
    else:
        flat.append(_number(path, value, kind))


def _number(path: str, value: Any, kind: type) -> Any:
    accepted = {int: "a whole number", float: "a finite number", bool: "true or false"}[kind]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is bool:
        is_accepted = isinstance(value, bool)
    elif kind is int:
        is_accepted = is_number and isinstance(value, int)
    else:
        # A literal such as 1e999 reads as infinity.
        is_accepted = is_number and abs(value) <= sys.float_info.max
    if not is_accepted:
        raise FileFormatError(f"{path} is {_named(value)}; accepted: {accepted}")
    return kind(value)


def _stage(path: str, value: Any) -> StageResult:
    content = _object(path, value, StageResult)
    numbers = ("objective", "bound", "gap", "seconds", "kept_within")
    return StageResult(
        name=_text(f"{path}.name", content["name"]),
        method=_text(f"{path}.method", content["method"]),
        stopped_by=_member(f"{path}.stopped_by", content["stopped_by"], StoppedBy),
        **{name: _number(f"{path}.{name}", content[name], float) for name in numbers},
    )


def _yielded(path: str, value: Any) -> YieldedFloor:
    content = _object(path, value, YieldedFloor)
    return YieldedFloor(
        deployment=_text(f"{path}.deployment", content["deployment"]),
        period=_number(f"{path}.period", content["period"], int),
        kind=_text(f"{path}.kind", content["kind"]),
        required=_number(f"{path}.required", content["required"], float),
        planned=_number(f"{path}.planned", content["planned"], float),
    )


def _object(path: str, value: Any, made: type[StageResult] | type[YieldedFloor]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FileFormatError(f"{path} is {_named(value)}; accepted: an object")
    _check_keys(f"{path}.", value, {field.name for field in fields(made)})
    return value


def _list(path: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise FileFormatError(f"{path} is {_named(value)}; accepted: a list")
    return value


def _names(path: str, value: Any) -> tuple[str, ...]:
    return tuple(_text(f"{path}[{index}]", item) for index, item in enumerate(_list(path, value)))


def _text(path: str, value: Any) -> str:
    if not isinstance(value, str):
        raise FileFormatError(f"{path} is {_named(value)}; accepted: text")
    return value


def _member(path: str, value: Any, kind: type[_Member]) -> _Member:
    try:
        return kind(value)
    except ValueError as error:
        accepted = ", ".join(member.value for member in kind)
        raise FileFormatError(f"{path} is {_named(value)}; accepted: {accepted}") from error


def _named(value: Any) -> str:
    """The value as JSON, cut short."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
