"""Files that the commands read and write; what cannot be done is said in one line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from powercap_planner.errors import InputFileError
from powercap_planner.inputs import PlanningInputs
from powercap_planner.inputs_file import inputs_from_fields, inputs_to_dict
from powercap_planner.sources.fields import Fields
from powercap_solver.errors import FileFormatError
from powercap_solver.files import plan_from_json, problem_from_json, problem_to_json
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem

KIND = "powercap.planning"
"""A problem with what it follows from; a bare problem has the solver's own kind."""
VERSION = 1


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
    """Write a problem together with what it follows from."""
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

    Raises:
        InputFileError: naming the file and the field.
    """
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
    """Read a plan.

    Raises:
        InputFileError: naming the file and the field.
    """
    try:
        return plan_from_json(read_text(path))
    except FileFormatError as error:
        raise InputFileError(f"{path}: {error}") from error


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
