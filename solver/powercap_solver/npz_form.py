"""Problems and plans as npz for large instances: one array for each field, nothing else.

Keys are the fields' names; those of a part begin with its name (``dynamics.max_raise``), as do
those of a plan's records (``stages.objective``, one entry per record). A part that is absent has
no keys. Names are arrays of unicode text. Unlimited is infinite or -1, not known is NaN or -1, as
in memory. ``file_form`` says what each field is; nothing is ever unpickled.
"""

from __future__ import annotations

import enum
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
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
    as_member,
    check_keys,
    kappa_from_file,
    kappa_to_file,
)
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem

Arrays = dict[str, np.ndarray[Any, Any]]

_KINDS = {
    int: ("i", "whole numbers", np.int64),
    float: ("fi", "numbers", np.float64),
    bool: ("b", "true or false", np.bool_),
    str: ("U", "text", np.str_),
}
_LABELS_VARIANTS = f"labels.{VARIANT_NAMES}"
_VARIANT_COUNT = "labels.variant_count"


def save(path: Path, kind: str, arrays: Arrays) -> None:
    """Write a file of ``kind``; equal arrays give equal bytes."""
    whole = {"kind": np.array(kind), "version": np.array(VERSION), **arrays}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **whole)


def load(path: Path, kind: str) -> Arrays:
    """Return the arrays of a file of ``kind``, less its kind and version.

    Raises:
        FileFormatError: when it is not a file of ``kind`` in this version.
        OSError: when it cannot be opened.
    """
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: np.asarray(archive[name]) for name in archive.files}
        except (
            # What numpy and zipfile raise on bytes that are no archive, or a broken one.
            AttributeError,
            EOFError,
            KeyError,
            MemoryError,
            NotImplementedError,
            OSError,
            RuntimeError,
            TypeError,
            ValueError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise FileFormatError(f"not an npz archive of plain arrays: {error}") from error
    check_keys("", {name: 0 for name in arrays if name in ("kind", "version")}, {"kind", "version"})
    found = _value("kind", arrays.pop("kind"), Column(kind=str))
    if found != kind:
        raise FileFormatError(f"kind is {found!r}; accepted: {kind!r}")
    version = _value("version", arrays.pop("version"), Column(kind=int))
    if version != VERSION:
        raise FileFormatError(f"version is {version}; accepted: {VERSION}")
    return arrays


def problem_arrays(problem: PlanningProblem) -> Arrays:
    """Return what a problem's file holds.

    Raises:
        FileFormatError: when a name holds a NUL character, which such files cannot keep.
    """
    arrays = _columns("", problem, PROBLEM)
    for name, (_, columns) in PARTS.items():
        part = getattr(problem, name)
        if part is not None:
            arrays |= _columns(f"{name}.", part, columns)
    if problem.labels is not None:
        variants = problem.labels.variants
        padded = [(*names, *[""] * (VARIANTS - len(names))) for names in variants]
        arrays[_LABELS_VARIANTS] = _text_array(_LABELS_VARIANTS, padded).reshape(-1, VARIANTS)
        arrays[_VARIANT_COUNT] = np.array([len(names) for names in variants], dtype=np.int64)
    return arrays


def plan_arrays(plan: Plan) -> Arrays:
    """Return what a plan's file holds.

    Raises:
        FileFormatError: when a name holds a NUL character, which such files cannot keep.
    """
    arrays = _columns("", plan, PLAN)
    if kappa_to_file(plan.kappa) is None:
        del arrays["kappa"]
    for name, (_, columns) in RECORDS.items():
        records = getattr(plan, name)
        for field, column in columns.items():
            key = f"{name}.{field}"
            values = [getattr(record, field) for record in records]
            if issubclass(column.kind, str):
                arrays[key] = _text_array(key, values)
            else:
                arrays[key] = np.array(values, dtype=_KINDS[column.kind][2])
    return arrays


def _columns(path: str, source: Any, columns: Mapping[str, Column]) -> Arrays:
    arrays = {}
    for name, column in columns.items():
        value = getattr(source, name)
        if value is None:
            continue
        if issubclass(column.kind, str):
            arrays[path + name] = _text_array(path + name, value)
        else:
            arrays[path + name] = np.asarray(value)
    return arrays


def _text_array(key: str, value: Any) -> np.ndarray[Any, Any]:
    array = np.array(value, dtype=np.str_)
    if any("\0" in text for text in np.ravel(np.array(value, dtype=object)).tolist()):
        raise FileFormatError(f"{key} holds a NUL character; accepted in an npz: text without")
    return array


def problem_values(arrays: Arrays) -> dict[str, Any]:
    """Return the arguments of ``PlanningProblem``, which checks the shapes.

    Raises:
        FileFormatError: naming the field and what is accepted.
    """
    present = {name: part for name, part in PARTS.items() if _has(arrays, name)}
    known = _known("", arrays, PROBLEM)
    for name, (_, columns) in present.items():
        known |= _known(f"{name}.", arrays, columns)
    if "labels" in present:
        known |= {_LABELS_VARIANTS, _VARIANT_COUNT}
    check_keys("", arrays, known)
    values = _read("", arrays, PROBLEM)
    for name, (made, columns) in PARTS.items():
        values[name] = None
        if name in present:
            part = _read(f"{name}.", arrays, columns)
            if name == "labels":
                part[VARIANT_NAMES] = _variants(arrays)
            values[name] = made(**part)
    return values


def plan_values(arrays: Arrays) -> dict[str, Any]:
    """Return the arguments of ``Plan``.

    Raises:
        FileFormatError: naming the field and what is accepted.
    """
    records = {f"{name}.{field}" for name, (_, made) in RECORDS.items() for field in made}
    check_keys("", arrays, _known("", arrays, PLAN) | records)
    values = _read("", arrays, PLAN)
    values["kappa"] = kappa_from_file(values["kappa"])
    for name, (made, columns) in RECORDS.items():
        table = {
            field: _value(f"{name}.{field}", arrays[f"{name}.{field}"], column, extra=1)
            for field, column in columns.items()
        }
        count = len(next(iter(table.values())))
        for field, entries in table.items():
            if len(entries) != count:
                raise FileFormatError(
                    f"{name}.{field} holds {len(entries)} entries; accepted: {count}"
                )
        values[name] = tuple(
            made(**{field: entries[index] for field, entries in table.items()})
            for index in range(count)
        )
    _check_plan_shapes(values)
    return values


def _check_plan_shapes(values: Mapping[str, Any]) -> None:
    choice, caps = values["choice"].shape, values["upper_watts"].shape
    wanted = {name: caps for name, column in PLAN.items() if column.axes == "ct"}
    wanted["stage_choice"] = (len(values["stages"]), *choice)
    if values["kappa"].shape == (0, 0):
        del wanted["kappa"]
    for name, shape in wanted.items():
        if values[name].shape != shape:
            raise FileFormatError(f"{name} has shape {values[name].shape}, expected {shape}")


def _has(arrays: Arrays, part: str) -> bool:
    return any(name.startswith(f"{part}.") for name in arrays)


def _known(path: str, arrays: Arrays, columns: Mapping[str, Column]) -> set[str]:
    """Keys that must be there, and optional ones that are."""
    return {
        path + name
        for name, column in columns.items()
        if not column.is_optional or path + name in arrays
    }


def _read(path: str, arrays: Arrays, columns: Mapping[str, Column]) -> dict[str, Any]:
    return {
        name: _value(path + name, arrays[path + name], column) if path + name in arrays else None
        for name, column in columns.items()
    }


def _value(key: str, array: np.ndarray[Any, Any], column: Column, *, extra: int = 0) -> Any:
    """An array, a single value, a tuple of names, or (``extra`` 1) a list of single values."""
    base = str if issubclass(column.kind, str) else column.kind
    kinds, accepted, dtype = _KINDS[base]
    if array.dtype.kind not in kinds:
        raise FileFormatError(f"{key} holds {array.dtype}; accepted: {accepted}")
    axes = len(column.axes) + extra
    if array.ndim != axes:
        raise FileFormatError(f"{key} has {array.ndim} axes; accepted: {axes}")
    if base is float:
        _check_finite(key, np.asarray(array, dtype=dtype), column)
    if axes and not (extra or base is str):
        return np.ascontiguousarray(array, dtype=dtype)
    plain = array.astype(dtype).tolist()
    if issubclass(column.kind, enum.StrEnum):
        if not axes:
            return as_member(key, plain, column.kind)
        return [as_member(key, text, column.kind) for text in plain]
    return tuple(plain) if axes and base is str and not extra else plain


def _check_finite(key: str, array: np.ndarray[Any, Any], column: Column) -> None:
    null = column.null
    if np.isnan(array).any() and not (null is not None and math.isnan(null)):
        raise FileFormatError(f"{key} holds NaN; accepted: numbers")
    if np.isinf(array).any() and not (null is not None and math.isinf(null)):
        raise FileFormatError(f"{key} holds an infinite number; accepted: finite ones")


def _variants(arrays: Arrays) -> tuple[tuple[str, ...], ...]:
    names = arrays[_LABELS_VARIANTS]
    counts = _value(_VARIANT_COUNT, arrays[_VARIANT_COUNT], Column(axes="d", kind=int))
    if names.dtype.kind != "U" or names.shape != (len(counts), VARIANTS):
        raise FileFormatError(
            f"{_LABELS_VARIANTS} holds {names.dtype} of shape {names.shape}; accepted: text of "
            f"shape {(len(counts), VARIANTS)}"
        )
    if ((counts < 0) | (counts > VARIANTS)).any():
        raise FileFormatError(f"{_VARIANT_COUNT} is out of range; accepted: 0 to {VARIANTS}")
    rows = zip(names.tolist(), counts.tolist(), strict=True)
    return tuple(tuple(row[:count]) for row, count in rows)
