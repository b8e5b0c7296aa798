"""Problems and plans as files: JSON for people, npz for large instances (``docs/files.md``).

A file says its ``kind`` (``powercap.problem`` or ``powercap.plan``) and ``version`` (2). Both
forms give back exactly what was written, and both refuse what is malformed by the field's name.
"""

from __future__ import annotations

from pathlib import Path

from powercap_solver import json_form, npz_form
from powercap_solver.errors import FileFormatError, ProblemError
from powercap_solver.file_form import PLAN_KIND, PROBLEM_KIND, VERSION
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem

__all__ = [
    "PLAN_KIND",
    "PROBLEM_KIND",
    "VERSION",
    "plan_from_json",
    "plan_from_npz",
    "plan_to_json",
    "plan_to_npz",
    "problem_from_json",
    "problem_from_npz",
    "problem_to_json",
    "problem_to_npz",
    "read_plan",
    "read_problem",
    "write_plan",
    "write_problem",
]

JSON, NPZ = ".json", ".npz"


def problem_to_json(problem: PlanningProblem) -> str:
    """Write ``problem`` as JSON text."""
    return json_form.written(PROBLEM_KIND, json_form.problem_content(problem))


def problem_from_json(text: str) -> PlanningProblem:
    """Read a problem.

    Raises:
        FileFormatError: naming the field and what is accepted.
    """
    content = json_form.parsed(text, PROBLEM_KIND)
    try:
        return PlanningProblem(**json_form.problem_values(content))
    except ProblemError as error:
        raise FileFormatError(str(error)) from error


def plan_to_json(plan: Plan) -> str:
    """Write ``plan`` as JSON text."""
    return json_form.written(PLAN_KIND, json_form.plan_content(plan))


def plan_from_json(text: str) -> Plan:
    """Read a plan; whether it is right for a problem is ``certificate.verify``'s question.

    Raises:
        FileFormatError: naming the field and what is accepted.
    """
    return Plan(**json_form.plan_values(json_form.parsed(text, PLAN_KIND)))


def problem_to_npz(problem: PlanningProblem, path: Path) -> None:
    """Write ``problem`` as one array per field.

    Raises:
        FileFormatError: when a name cannot be kept in such a file.
        OSError: when ``path`` cannot be written.
    """
    npz_form.save(path, PROBLEM_KIND, npz_form.problem_arrays(problem))


def problem_from_npz(path: Path) -> PlanningProblem:
    """Read a problem.

    Raises:
        FileFormatError: naming the field and what is accepted.
        OSError: when ``path`` cannot be read.
    """
    arrays = npz_form.load(path, PROBLEM_KIND)
    try:
        return PlanningProblem(**npz_form.problem_values(arrays))
    except ProblemError as error:
        raise FileFormatError(str(error)) from error


def plan_to_npz(plan: Plan, path: Path) -> None:
    """Write ``plan`` as one array per field.

    Raises:
        FileFormatError: when a name cannot be kept in such a file.
        OSError: when ``path`` cannot be written.
    """
    npz_form.save(path, PLAN_KIND, npz_form.plan_arrays(plan))


def plan_from_npz(path: Path) -> Plan:
    """Read a plan; whether it is right for a problem is ``certificate.verify``'s question.

    Raises:
        FileFormatError: naming the field and what is accepted.
        OSError: when ``path`` cannot be read.
    """
    return Plan(**npz_form.plan_values(npz_form.load(path, PLAN_KIND)))


def read_problem(path: Path) -> PlanningProblem:
    """Read a problem in the form that the suffix names, ``.json`` or ``.npz``.

    Raises:
        FileFormatError: naming the file, the field and what is accepted.
        OSError: when ``path`` cannot be read.
    """
    is_npz = _is_npz(path)
    try:
        return problem_from_npz(path) if is_npz else problem_from_json(_text(path))
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error


def write_problem(problem: PlanningProblem, path: Path) -> None:
    """Write a problem in the form that the suffix names, ``.json`` or ``.npz``.

    Raises:
        FileFormatError: when the suffix is another, or a name cannot be kept.
        OSError: when ``path`` cannot be written.
    """
    if _is_npz(path):
        problem_to_npz(problem, path)
    else:
        path.write_text(problem_to_json(problem) + "\n", encoding="utf-8")


def read_plan(path: Path) -> Plan:
    """Read a plan in the form that the suffix names, ``.json`` or ``.npz``.

    Raises:
        FileFormatError: naming the file, the field and what is accepted.
        OSError: when ``path`` cannot be read.
    """
    is_npz = _is_npz(path)
    try:
        return plan_from_npz(path) if is_npz else plan_from_json(_text(path))
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan in the form that the suffix names, ``.json`` or ``.npz``.

    Raises:
        FileFormatError: when the suffix is another, or a name cannot be kept.
        OSError: when ``path`` cannot be written.
    """
    if _is_npz(path):
        plan_to_npz(plan, path)
    else:
        path.write_text(plan_to_json(plan) + "\n", encoding="utf-8")


def _is_npz(path: Path) -> bool:
    if path.suffix not in (JSON, NPZ):
        raise FileFormatError(f"{path} ends in {path.suffix!r}; accepted: {JSON}, {NPZ}")
    return path.suffix == NPZ


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"not UTF-8 text: {error}") from error
