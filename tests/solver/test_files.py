"""Problem and plan files: exact round trips, and errors that name the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_solver.certificate import verify
from powercap_solver.errors import FileFormatError
from powercap_solver.files import (
    plan_from_json,
    plan_to_json,
    problem_from_json,
    problem_to_json,
)
from powercap_solver.ladder import solve
from powercap_solver.plan import Plan
from powercap_solver.problem import PlanningProblem
from powercap_solver.testing import random_problem, small_problems

OneCap = Callable[..., PlanningProblem]


def _same(one: Any, other: Any) -> bool:
    for field in fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            if left.dtype != right.dtype or left.tobytes() != right.tobytes():
                return False
        elif left != right:
            return False
    return True


@given(small_problems())
def test_problems_and_plans_come_back_bit_by_bit(problem: PlanningProblem) -> None:
    plan = solve(problem)

    read_problem = problem_from_json(problem_to_json(problem))
    read_plan = plan_from_json(plan_to_json(plan))

    assert _same(problem, read_problem)
    assert _same(plan, read_plan)
    assert verify(read_problem, read_plan) == ()


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_every_float_comes_back_exactly(watts: float) -> None:
    problem = _problem()
    content = json.loads(problem_to_json(problem))
    content["cap_watts"][0][0] = watts

    read = problem_from_json(json.dumps(content))

    assert read.cap_watts[0, 0] == watts
    assert _same(read, problem_from_json(problem_to_json(read)))


def _problem() -> PlanningProblem:
    return random_problem(np.random.default_rng(5))


def test_not_known_is_null_and_never_nan(one_cap: OneCap) -> None:
    plan = solve(one_cap(served=[[0, 10]], watts_per_replica=[100], cap=1000))

    text = plan_to_json(plan)

    assert "NaN" not in text
    assert json.loads(text)["least_cap_watts"] == [[None]]
    assert np.isnan(plan_from_json(text).least_cap_watts).all()


BROKEN_PROBLEMS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another kind": (lambda file: file.update(kind="powercap.plan"), "kind is"),
    "another version": (lambda file: file.update(version=2), "version is 2"),
    "field missing": (lambda file: file.pop("weight"), "weight is missing"),
    "field unknown": (lambda file: file.update(wieght=[1]), "wieght is not known"),
    "text for a number": (
        lambda file: file["cap_watts"][0].__setitem__(0, "1 kW"),
        r'cap_watts\[0\]\[0\] is "1 kW"',
    ),
    "null for a number": (
        lambda file: file["cap_watts"][0].__setitem__(0, None),
        r"cap_watts\[0\]\[0\] is null",
    ),
    "true for a number": (
        lambda file: file["weight"].__setitem__(0, True),
        r"weight\[0\] is true",
    ),
    "fraction of a replica": (
        lambda file: file["replicas"][0].__setitem__(0, 1.5),
        r"replicas\[0\]\[0\] is 1.5",
    ),
    "one entry short": (lambda file: file["weight"].pop(), "weight holds 2 entries"),
    "number for a list": (lambda file: file.update(weight=3), "weight holds 3"),
    "negative cap": (
        lambda file: file["cap_watts"][0].__setitem__(0, -5.0),
        r"cap_watts\[0, 0\] is -5",
    ),
    "name twice": (
        lambda file: file["deployments"].__setitem__(1, file["deployments"][0]),
        "deployments holds",
    ),
    "too large for a whole number": (
        lambda file: file["priority"].__setitem__(0, 10**30),
        "priority holds a number that is too large",
    ),
}


@pytest.mark.parametrize("name", BROKEN_PROBLEMS)
def test_a_broken_problem_file_is_refused_by_field(name: str) -> None:
    change, said = BROKEN_PROBLEMS[name]
    content = json.loads(problem_to_json(_problem()))
    change(content)

    with pytest.raises(FileFormatError, match=said):
        problem_from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", "one JSON object"),
        ('{"kind": "powercap.problem", "version": 1, "weight": NaN}', "NaN"),
        ('{"kind": "powercap.problem", "version": 1, "weight": 1e999}', "missing"),
        ("[" * 100_000, "not JSON"),
    ],
    ids=["empty", "list", "nan", "infinity", "nested"],
)
def test_what_is_no_problem_file_is_refused(text: str, said: str) -> None:
    with pytest.raises(FileFormatError, match=said):
        problem_from_json(text)


BROKEN_PLANS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown status": (lambda file: file.update(status="perfect"), "status is"),
    "stage without a bound": (lambda file: file["stages"][0].pop("bound"), r"stages\[0\].bound"),
    "stage that is no object": (
        lambda file: file["stages"].__setitem__(0, 1),
        r"stages\[0\] is 1",
    ),
    "headroom not known": (
        lambda file: file["headroom_watts"][0].__setitem__(0, None),
        "headroom_watts",
    ),
    "choices missing for a stage": (
        lambda file: file["stage_choice"].pop(),
        "stage_choice holds",
    ),
    "infinite gap": (
        lambda file: file["stages"][0].__setitem__("gap", 10**400),
        r"stages\[0\].gap",
    ),
}


@pytest.mark.parametrize("name", BROKEN_PLANS)
def test_a_broken_plan_file_is_refused_by_field(name: str) -> None:
    change, said = BROKEN_PLANS[name]
    content = json.loads(plan_to_json(_plan()))
    change(content)

    with pytest.raises(FileFormatError, match=said):
        plan_from_json(json.dumps(content))


def _plan() -> Plan:
    return solve(_problem())
