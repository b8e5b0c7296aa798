"""Problems and plans as JSON for people: named fields, units in the names, exact floats.

Arrays are nested lists, parts are objects, what is absent, unlimited or not known is null. Floats
have as many digits as read back to the same value. ``file_form`` says what each field is.
"""

from __future__ import annotations

import enum
import json
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from powercap_solver.errors import FileFormatError
from powercap_solver.file_form import (
    PARTS,
    PLAN,
    PROBLEM,
    RECORDS,
    VARIANT_NAMES,
    VARIANTS,
    VERSION,
    Column,
    Sizes,
    as_member,
    check_keys,
    kappa_from_file,
    kappa_to_file,
)
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem

_DTYPES: Mapping[type, type] = {int: np.int64, float: np.float64, bool: np.bool_}


def written(kind: str, content: Mapping[str, Any]) -> str:
    """Return the text of a file of ``kind``."""
    return json.dumps({"kind": kind, "version": VERSION, **content}, allow_nan=False)


def problem_content(problem: PlanningProblem) -> dict[str, Any]:
    """Return what a problem's file holds."""
    content = _plain_fields(problem, PROBLEM)
    for name, (_, columns) in PARTS.items():
        part = getattr(problem, name)
        content[name] = None if part is None else _plain_fields(part, columns)
    if problem.labels is not None:
        content["labels"][VARIANT_NAMES] = [list(names) for names in problem.labels.variants]
    return content


def plan_content(plan: Plan) -> dict[str, Any]:
    """Return what a plan's file holds."""
    content = _plain_fields(plan, PLAN)
    if kappa_to_file(plan.kappa) is None:
        content["kappa"] = None
    for name, (_, columns) in RECORDS.items():
        content[name] = [_plain_fields(record, columns) for record in getattr(plan, name)]
    return content


def _plain_fields(source: Any, columns: Mapping[str, Column]) -> dict[str, Any]:
    return {name: _plain(getattr(source, name), column) for name, column in columns.items()}


def _plain(value: Any, column: Column) -> Any:
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        if column.null is None:
            return value.tolist()
        plain = value.astype(object)
        plain[np.isnan(value) if math.isnan(column.null) else value == column.null] = None
        return plain.tolist()
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, enum.Enum):
        return value.value
    if column.null is not None and (math.isnan(value) or value == column.null):
        return None
    return value


def parsed(text: str, kind: str) -> dict[str, Any]:
    """Return the object in ``text``, less its kind and version.

    Raises:
        FileFormatError: when it is not a file of ``kind`` in this version.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FileFormatError(f"the file holds {_named(content)}; accepted: one JSON object")
    if (found := content.pop("kind", None)) != kind:
        raise FileFormatError(f"kind is {found!r}; accepted: {kind!r}")
    version = content.pop("version", None)
    if version != VERSION or isinstance(version, bool):
        raise FileFormatError(f"version is {version!r}; accepted: {VERSION}")
    return content


def _refuse_constant(name: str) -> None:
    raise FileFormatError(f"the file holds {name}; accepted: numbers, and null for not known")


def problem_values(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``PlanningProblem``.

    Raises:
        FileFormatError: naming the field and what is accepted.
    """
    check_keys("", content, {*PROBLEM, *PARTS})
    sizes = {
        "d": _length("deployments", content["deployments"]),
        "c": _length("domains", content["domains"]),
        "z": _length("zones", content["zones"]),
        "t": _length("period_seconds", content["period_seconds"]),
        "k": _width("replicas", content["replicas"]),
        "m": _length("draw_domain", content["draw_domain"]),
        "v": VARIANTS,
    }
    values = _read_fields("", content, PROBLEM, sizes)
    for name, (made, columns) in PARTS.items():
        values[name] = _part(name, content[name], made, columns, sizes)
    return values


def _part(name: str, content: Any, made: type, columns: Mapping[str, Column], sizes: Sizes) -> Any:
    if content is None:
        return None
    path = f"{name}."
    variants = {VARIANT_NAMES} if name == "labels" else set()
    check_keys(path, _object(name, content), {*columns, *variants})
    for letter, field in (("p", "names"), ("n", "modes"), ("s", "residual")):
        if field in columns:
            sizes = {**sizes, letter: _length(path + field, content[field])}
    values = _read_fields(path, content, columns, sizes)
    if variants:
        path += VARIANT_NAMES
        _length(path, content[VARIANT_NAMES], sizes["d"])
        values[VARIANT_NAMES] = tuple(
            _texts(f"{path}[{index}]", names) for index, names in enumerate(content[VARIANT_NAMES])
        )
    return made(**values)


def plan_values(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``Plan``.

    Raises:
        FileFormatError: naming the field and what is accepted.
    """
    check_keys("", content, {*PLAN, *RECORDS})
    sizes = {
        "d": _length("choice", content["choice"]),
        "c": _length("upper_watts", content["upper_watts"]),
        "g": _length("stages", content["stages"]),
        "r": _length("row_prices", content["row_prices"]),
    }
    widest = "choice" if sizes["d"] else "upper_watts"
    sizes["t"] = _width(widest, content[widest])
    values = _read_fields("", content, PLAN, sizes)
    values["kappa"] = kappa_from_file(values["kappa"])
    for name, (made, columns) in RECORDS.items():
        _length(name, content[name])
        values[name] = tuple(
            _record(f"{name}[{index}]", item, made, columns)
            for index, item in enumerate(content[name])
        )
    return values


def _record(path: str, content: Any, made: type, columns: Mapping[str, Column]) -> Any:
    check_keys(f"{path}.", _object(path, content), set(columns))
    return made(**_read_fields(f"{path}.", content, columns, {}))


def _read_fields(
    path: str, content: Mapping[str, Any], columns: Mapping[str, Column], sizes: Sizes
) -> dict[str, Any]:
    return {
        name: _read(path + name, content[name], column, sizes) for name, column in columns.items()
    }


def _read(path: str, value: Any, column: Column, sizes: Sizes) -> Any:
    if value is None and column.is_optional:
        return None
    if column.kind is str and column.axes:
        return _texts(path, value)
    if column.kind is str:
        return _text(path, value)
    if issubclass(column.kind, enum.StrEnum):
        return as_member(path, _text(path, value), column.kind)
    if not column.axes:
        return _number(path, value, column)
    flat: list[Any] = []
    shape = tuple(sizes[letter] for letter in column.axes)
    _flatten(path, value, shape, column, flat)
    try:
        return np.array(flat, dtype=_DTYPES[column.kind]).reshape(shape)
    except OverflowError as error:
        raise FileFormatError(f"{path} holds a number that is too large") from error


def _flatten(
    path: str, value: Any, shape: tuple[int, ...], column: Column, flat: list[Any]
) -> None:
    if not shape:
        flat.append(_number(path, value, column))
        return
    _length(path, value, shape[0])
    for index, item in enumerate(value):
        _flatten(f"{path}[{index}]", item, shape[1:], column, flat)


def _number(path: str, value: Any, column: Column) -> Any:
    if value is None and column.null is not None:
        return column.kind(column.null)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if column.kind is bool:
        is_accepted = isinstance(value, bool)
    elif column.kind is int:
        # -1 has one spelling in a file, null, where it says "no limit" or "not known".
        is_accepted = is_number and isinstance(value, int) and value != column.null
    else:
        # A literal such as 1e999 reads as infinity.
        is_accepted = is_number and abs(value) <= sys.float_info.max
    if not is_accepted:
        accepted = {int: "a whole number", float: "a finite number", bool: "true or false"}
        null = "" if column.null is None else ", or null"
        raise FileFormatError(f"{path} is {_named(value)}; accepted: {accepted[column.kind]}{null}")
    return column.kind(value)


def _length(path: str, value: Any, expected: int | None = None) -> int:
    accepted = "a list" if expected is None else f"a list of {expected}"
    if not isinstance(value, list):
        raise FileFormatError(f"{path} holds {_named(value)}; accepted: {accepted}")
    if expected is not None and len(value) != expected:
        raise FileFormatError(f"{path} holds {len(value)} entries; accepted: {accepted}")
    return len(value)


def _width(path: str, table: Any) -> int:
    return _length(f"{path}[0]", table[0]) if _length(path, table) else 0


def _object(path: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FileFormatError(f"{path} is {_named(value)}; accepted: an object")
    return value


def _texts(path: str, value: Any) -> tuple[str, ...]:
    _length(path, value)
    return tuple(_text(f"{path}[{index}]", item) for index, item in enumerate(value))


def _text(path: str, value: Any) -> str:
    if not isinstance(value, str):
        raise FileFormatError(f"{path} is {_named(value)}; accepted: text")
    return value


def _named(value: Any) -> str:
    """The value as JSON, cut short."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
