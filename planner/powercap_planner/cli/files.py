"""Files that the commands read and write; what cannot be done is said in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from powercap_planner.errors import InputFileError, RequestError
from powercap_planner.inputs import PlanningInputs
from powercap_planner.inputs_file import inputs_from_fields, inputs_to_dict
from powercap_planner.sources.fields import Fields
from powercap_solver.errors import FileFormatError
from powercap_solver.files import (
    JSON,
    NPZ,
    plan_from_json,
    plan_from_npz,
    problem_from_json,
    problem_from_npz,
    problem_to_json,
    write_plan,
    write_problem,
)
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem

KIND = "powercap.planning"
"""A problem with what it follows from; a bare problem has the solver's own kind."""
VERSION = 1

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProblemFile:
    """What a problem file holds."""

    problem: PlanningProblem
    inputs: PlanningInputs | None
    """What the problem follows from; None for a bare problem."""
    planned_at_seconds: float
    """Unix time; 0 for a bare problem."""


def save_problem(
    path: Path,
    problem: PlanningProblem,
    inputs: PlanningInputs,
    *,
    planned_at_seconds: float,
) -> None:
    """Write a problem together with what it follows from, or as npz the tables alone.

    Raises:
        InputFileError: when it cannot be written.
    """
    if path.suffix == NPZ:
        save_bare_problem(path, problem)
        return
    document = {
        "kind": KIND,
        "version": VERSION,
        "planned_at_seconds": planned_at_seconds,
        "problem": json.loads(problem_to_json(problem)),
        "inputs": inputs_to_dict(inputs),
    }
    write_text(path, json.dumps(document, allow_nan=False) + "\n")


def load_problem(path: Path) -> ProblemFile:
    """Read a problem, and what it follows from where the file holds that.

    A file is read as npz when its name ends so, as JSON otherwise.

    Raises:
        InputFileError: naming the file and the field.
    """
    if path.suffix == NPZ:
        problem = _read_npz(path, problem_from_npz)
        return ProblemFile(problem=problem, inputs=None, planned_at_seconds=0.0)
    text = read_text(path)
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputFileError(f"{path}: not JSON: {error}") from error
    try:
        if not isinstance(document, dict) or document.get("kind") != KIND:
            return ProblemFile(problem=problem_from_json(text), inputs=None, planned_at_seconds=0.0)
        fields = Fields(document)
        if (version := fields.whole("version")) != VERSION:
            raise fields.error("version", f"is {version}; accepted: {VERSION}")
        return ProblemFile(
            problem=problem_from_json(json.dumps(document.get("problem"))),
            inputs=inputs_from_fields(fields.child("inputs")),
            planned_at_seconds=fields.number("planned_at_seconds", low=0),
        )
    except (InputFileError, FileFormatError) as error:
        raise InputFileError(f"{path}: {error}") from error


def load_plan(path: Path) -> Plan:
    """Read a plan, as npz when the name ends so, as JSON otherwise.

    Raises:
        InputFileError: naming the file and the field.
    """
    if path.suffix == NPZ:
        return _read_npz(path, plan_from_npz)
    try:
        return plan_from_json(read_text(path))
    except FileFormatError as error:
        raise InputFileError(f"{path}: {error}") from error


def save_bare_problem(path: Path, problem: PlanningProblem) -> None:
    """Write a problem's tables in the form that the suffix names.

    Raises:
        InputFileError: when they cannot be written.
    """
    _write(path, lambda: write_problem(problem, path))


def save_plan(path: Path, plan: Plan) -> None:
    """Write a plan in the form that the suffix names.

    Raises:
        InputFileError: when it cannot be written.
    """
    _write(path, lambda: write_plan(plan, path))


def check_target(path: Path | None, *, option: str) -> None:
    """Refuse a file that could not be written later, after all the work.

    Raises:
        RequestError: naming the option.
    """
    if path is None:
        return
    if path.suffix not in (JSON, NPZ):
        raise RequestError(option, f"is {path}; accepted: a name that ends in {JSON} or {NPZ}")
    if not path.parent.is_dir():
        raise RequestError(option, f"{path} cannot be written: its folder does not exist")


def _read_npz(path: Path, read: Callable[[Path], _Read]) -> _Read:
    try:
        return read(path)
    except FileFormatError as error:
        raise InputFileError(f"{path}: {error}") from error
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror}") from error


def _write(path: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except FileFormatError as error:
        raise InputFileError(f"{path}: cannot be written: {error}") from error
    except OSError as error:
        raise InputFileError(f"{path}: cannot be written: {error.strerror}") from error


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        InputFileError: when it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputFileError(f"{path}: cannot be read: {reason}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file.

    Raises:
        InputFileError: when it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputFileError(f"{path}: cannot be written: {error.strerror}") from error
