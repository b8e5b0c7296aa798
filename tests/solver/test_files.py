"""Problem and plan files: exact round trips in both forms, and errors that name the field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_solver import file_form
from powercap_solver.certificate import verify
from powercap_solver.errors import FileFormatError
from powercap_solver.files import (
    plan_from_json,
    plan_from_npz,
    plan_to_json,
    plan_to_npz,
    problem_from_json,
    problem_from_npz,
    problem_to_json,
    problem_to_npz,
    read_plan,
    read_problem,
    write_plan,
    write_problem,
)
from powercap_solver.ladder import solve
from powercap_solver.parts import Dynamics, Grid
from powercap_solver.plan import BindingRow, Plan
from powercap_solver.problem import PlanningProblem
from powercap_solver.testing import PARTS, mixed_problems, problems_with, random_problem

OneCap = Callable[..., PlanningProblem]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "files.md"


def _same(one: Any, other: Any) -> bool:
    """Whether two problems, parts or plans are equal, arrays bit by bit."""
    for field in fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            if not isinstance(right, np.ndarray) or left.dtype != right.dtype:
                return False
            if left.shape != right.shape or left.tobytes() != right.tobytes():
                return False
        elif is_dataclass(left) and is_dataclass(right):
            if not _same(left, right):
                return False
        elif left != right and not (left != left and right != right):
            return False
    return True


def _problem(parts: tuple[str, ...] = PARTS) -> PlanningProblem:
    return random_problem(np.random.default_rng(5), domains=2, periods=2, parts=parts)


def _plan() -> Plan:
    row = BindingRow(kind="cap", name="domain0", period=0, used=1.5, limit=2.5, price=0.25)
    return replace(solve(_problem(())), binding=(row,), row_prices=np.array([0.5, math.nan]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@given(problem=mixed_problems())
def test_problems_and_plans_come_back_bit_by_bit(problem: PlanningProblem, folder: Path) -> None:
    plan = solve(problem)

    for suffix in (".json", ".npz"):
        write_problem(problem, folder / f"problem{suffix}")
        write_plan(plan, folder / f"plan{suffix}")
        read = read_problem(folder / f"problem{suffix}")
        read_again = read_plan(folder / f"plan{suffix}")

        assert _same(problem, read)
        assert _same(plan, read_again)
        assert verify(read, read_again) == verify(problem, plan)


@pytest.mark.parametrize("part", PARTS)
@given(data=st.data())
def test_each_part_comes_back_alone(part: str, data: Any, folder: Path) -> None:
    problem = data.draw(problems_with(part))
    path = folder / "part.npz"

    problem_to_npz(problem, path)

    assert _same(problem, problem_from_npz(path))
    assert _same(problem, problem_from_json(problem_to_json(problem)))


def test_equal_problems_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        problem_to_npz(_problem(), tmp_path / name)

    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_every_float_comes_back_exactly(watts: float) -> None:
    content = json.loads(problem_to_json(_problem()))
    content["cap_watts"][0][0] = watts

    read = problem_from_json(json.dumps(content))

    assert read.cap_watts[0, 0] == watts
    assert _same(read, problem_from_json(problem_to_json(read)))


def test_not_known_and_no_limit_are_null_and_never_nan(one_cap: OneCap) -> None:
    dynamics = Dynamics(
        max_raise=np.array([-1]),
        max_lower=np.array([2]),
        switching_cost=np.zeros(1),
        starts_late=np.zeros(1, dtype=bool),
        initial_replicas=np.array([-1]),
        present_upper_watts=np.zeros((1, 1)),
        max_rise_watts=np.array([np.inf]),
        max_fall_watts=np.array([50.0]),
        initial_upper_watts=np.array([np.nan]),
    )
    grid = Grid(
        price_per_mwh=np.array([[-5.0]]),
        carbon_g_per_kwh=np.array([[300.0]]),
        overhead_factor=np.ones(1),
        money_budget=-1e-6,
    )
    problem = one_cap(
        served=[[0, 10]], watts_per_replica=[100], cap=1000, dynamics=dynamics, grid=grid
    )
    plan = solve(problem)

    written, planned = json.loads(problem_to_json(problem)), json.loads(plan_to_json(plan))

    assert "NaN" not in problem_to_json(problem) + plan_to_json(plan)
    assert "Infinity" not in problem_to_json(problem) + plan_to_json(plan)
    assert written["replicas_in_force"] == [None]
    assert written["dynamics"]["max_raise"] == [None]
    assert written["dynamics"]["max_lower"] == [2]
    assert written["dynamics"]["max_rise_watts"] == [None]
    assert written["dynamics"]["initial_upper_watts"] == [None]
    assert written["grid"]["energy_budget_joules"] is None
    assert written["grid"]["money_budget"] == -1e-6
    assert written["grid"]["token_price_per_million"] is None
    assert written["pools"] is None
    assert planned["least_cap_watts"] == [[None]]
    assert planned["least_common_factor"] is None
    assert planned["kappa"] is None
    assert _same(problem, problem_from_json(problem_to_json(problem)))
    assert np.isnan(plan_from_json(plan_to_json(plan)).least_cap_watts).all()


def _in(part: str, field: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda file: file[part].__setitem__(field, value)


BROKEN_PROBLEMS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another kind": (lambda file: file.update(kind="powercap.plan"), "kind is 'powercap.plan'"),
    "no kind": (lambda file: file.pop("kind"), "kind is None"),
    "another version": (lambda file: file.update(version=1), "version is 1; accepted: 2"),
    "version that is true": (lambda file: file.update(version=True), "version is True"),
    "field missing": (lambda file: file.pop("weight"), "weight is missing"),
    "field unknown": (lambda file: file.update(wieght=[1]), "wieght is not known"),
    "part missing": (lambda file: file.pop("grid"), "grid is missing"),
    "part that is no object": (
        lambda file: file.update(pools=[1]),
        r"pools is \[1\]; accepted: an",
    ),
    "part's field missing": (lambda file: file["grid"].pop("overhead_factor"), r"grid\.overhead"),
    "part's field unknown": (_in("grid", "tax", 1), r"grid\.tax is not known"),
    "text for a number": (
        lambda file: file["cap_watts"][0].__setitem__(0, "1 kW"),
        r'cap_watts\[0\]\[0\] is "1 kW"; accepted: a finite number$',
    ),
    "null for a number": (
        lambda file: file["cap_watts"][0].__setitem__(0, None),
        r"cap_watts\[0\]\[0\] is null",
    ),
    "minus one for no limit": (
        lambda file: file["dynamics"]["max_raise"].__setitem__(0, -1),
        r"dynamics.max_raise\[0\] is -1; accepted: a whole number, or null",
    ),
    "true for a number": (
        lambda file: file["weight"].__setitem__(0, True),
        r"weight\[0\] is true",
    ),
    "number for true": (
        lambda file: file["dynamics"]["starts_late"].__setitem__(0, 1),
        r"dynamics.starts_late\[0\] is 1; accepted: true or false",
    ),
    "fraction of a replica": (
        lambda file: file["replicas"][0].__setitem__(0, 1.5),
        r"replicas\[0\]\[0\] is 1.5",
    ),
    "one entry short": (lambda file: file["weight"].pop(), "weight holds 2 entries"),
    "one sample short": (
        lambda file: file["expected"]["residual"][0].pop(),
        r"expected.residual\[0\] holds 2 entries",
    ),
    "number for a list": (lambda file: file.update(weight=3), "weight holds 3"),
    "number for a name": (
        lambda file: file["zones"].__setitem__(0, 3),
        r"zones\[0\] is 3; accepted: text",
    ),
    "unknown utility": (
        lambda file: file.update(utility="happiness"),
        'utility is "happiness"; accepted: linear, proportional_fair',
    ),
    "negative cap": (
        lambda file: file["cap_watts"][0].__setitem__(0, -5.0),
        r"cap_watts\[0, 0\] is -5",
    ),
    "negative pool": (
        lambda file: file["pools"]["gpu_count"][0].__setitem__(0, -5),
        r"pools.gpu_count\[0, 0\] is -5",
    ),
    "coverage of more than all": (_in("expected", "coverage", 1.5), "expected.coverage is 1.5"),
    "no sample": (_in("expected", "residual", []), "expected.residual"),
    "mode of no name": (
        lambda file: file["labels"]["mode_index"][0].__setitem__(0, 9),
        r"labels.mode_index\[0, 0\] is 9",
    ),
    "five variants": (
        lambda file: file["labels"]["variants"].__setitem__(0, list("abcde")),
        r"labels.variants\[0\] names 5 variants",
    ),
    "variants of too few": (
        lambda file: file["labels"]["variants"].pop(),
        "labels.variants holds 2 entries",
    ),
    "variant that is no name": (
        lambda file: file["labels"]["variants"].__setitem__(0, [1]),
        r"labels.variants\[0\]\[0\] is 1",
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


@pytest.mark.parametrize("name", [*file_form.PROBLEM, *file_form.PARTS])
def test_no_field_may_be_missing(name: str) -> None:
    content = json.loads(problem_to_json(_problem()))
    del content[name]

    with pytest.raises(FileFormatError, match=f"^{name} is missing"):
        problem_from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", "one JSON object"),
        ('{"kind": "powercap.problem", "version": 2, "weight": NaN}', "NaN"),
        ('{"kind": "powercap.problem", "version": 2, "weight": 1e999}', "missing"),
        ("[" * 100_000, "not JSON"),
    ],
    ids=["empty", "list", "nan", "infinity", "nested"],
)
def test_what_is_no_problem_file_is_refused(text: str, said: str) -> None:
    with pytest.raises(FileFormatError, match=said):
        problem_from_json(text)


BROKEN_PLANS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown status": (lambda file: file.update(status="perfect"), 'status is "perfect"'),
    "objective missing": (lambda file: file.pop("objective"), "objective is missing"),
    "stage without a bound": (lambda file: file["stages"][0].pop("bound"), r"stages\[0\].bound"),
    "stage that is no object": (
        lambda file: file["stages"].__setitem__(0, 1),
        r"stages\[0\] is 1",
    ),
    "stopped by nothing known": (
        lambda file: file["stages"][0].__setitem__("stopped_by", "boredom"),
        r'stages\[0\].stopped_by is "boredom"',
    ),
    "binding row without a price": (
        lambda file: file["binding"][0].pop("price"),
        r"binding\[0\].price is missing",
    ),
    "headroom not known": (
        lambda file: file["headroom_watts"][0].__setitem__(0, None),
        "headroom_watts",
    ),
    "kappa of too few domains": (lambda file: file.update(kappa=[[1.0]]), "kappa holds 1 entries"),
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


Arrays = dict[str, Any]

BROKEN_ARRAYS: dict[str, tuple[Callable[[Arrays], Any], str]] = {
    "another kind": (lambda file: file.update(kind="powercap.plan"), "kind is 'powercap.plan'"),
    "another version": (lambda file: file.update(version=1), "version is 1; accepted: 2"),
    "no version": (lambda file: file.pop("version"), "version is missing"),
    "version that is text": (lambda file: file.update(version="2"), "version holds <U1"),
    "field missing": (lambda file: file.pop("weight"), "weight is missing"),
    "part's field missing": (
        lambda file: file.pop("dynamics.max_raise"),
        r"dynamics\.max_raise is missing",
    ),
    "field unknown": (lambda file: file.update(wieght=[1.0]), "wieght is not known"),
    "part's field unknown": (
        lambda file: file.update({"grid.tax": 1.0}),
        r"grid\.tax is not known",
    ),
    "text for numbers": (lambda file: file.update(cap_watts=[["1 kW"]]), "cap_watts holds <U4"),
    "fraction of a replica": (
        lambda file: file.update(replicas=file["replicas"] + 0.5),
        "replicas holds float64; accepted: whole numbers",
    ),
    "numbers for true": (
        lambda file: file.update(is_ceiling=file["is_ceiling"].astype(int)),
        "is_ceiling holds int64; accepted: true or false",
    ),
    "an axis too few": (lambda file: file.update(cap_watts=[1.0]), "cap_watts has 1 axes"),
    "one entry short": (
        lambda file: file.update(weight=file["weight"][1:]),
        r"weight has shape \(2,\), expected \(3,\)",
    ),
    "part's entry short": (
        lambda file: file.update({"dynamics.max_raise": file["dynamics.max_raise"][1:]}),
        r"dynamics\.max_raise has shape \(2,\)",
    ),
    "not a number": (
        lambda file: file.update(weight=file["weight"] * np.nan),
        "weight holds NaN",
    ),
    "infinite": (
        lambda file: file.update({"grid.price_per_mwh": file["grid.price_per_mwh"] + np.inf}),
        r"grid\.price_per_mwh holds an infinite number",
    ),
    "unknown utility": (lambda file: file.update(utility="happy"), 'utility is "happy"'),
    "name twice": (
        lambda file: file.update(deployments=np.repeat(file["deployments"][:1], 3)),
        "deployments holds",
    ),
    "variants beyond four": (
        lambda file: file.update({"labels.variant_count": file["labels.variant_count"] + 9}),
        r"labels\.variant_count is out of range",
    ),
    "variants of too few": (
        lambda file: file.update({"labels.variants": file["labels.variants"][1:]}),
        r"labels\.variants holds",
    ),
}


@pytest.mark.parametrize("name", BROKEN_ARRAYS)
def test_a_broken_archive_is_refused_by_field(name: str, tmp_path: Path) -> None:
    change, said = BROKEN_ARRAYS[name]
    path = tmp_path / "problem.npz"
    problem_to_npz(_problem(), path)
    with np.load(path) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(path, **arrays)

    with pytest.raises(FileFormatError, match=said):
        problem_from_npz(path)
    with pytest.raises(FileFormatError, match=f"^{re.escape(str(path))}: "):
        read_problem(path)


BROKEN_PLAN_ARRAYS: dict[str, tuple[Callable[[Arrays], Any], str]] = {
    "unknown status": (lambda file: file.update(status="perfect"), 'status is "perfect"'),
    "stopped by nothing known": (
        lambda file: file.update({"stages.stopped_by": ["boredom"] * len(file["stages.gap"])}),
        r'stages\.stopped_by is "boredom"',
    ),
    "column missing": (lambda file: file.pop("stages.gap"), r"stages\.gap is missing"),
    "column short": (
        lambda file: file.update({"stages.gap": file["stages.gap"][1:]}),
        r"stages\.gap holds",
    ),
    "column of no axis": (lambda file: file.update({"stages.gap": 1.0}), r"stages\.gap has 0 axes"),
    "choices missing for a stage": (
        lambda file: file.update(stage_choice=file["stage_choice"][1:]),
        "stage_choice has shape",
    ),
    "prices of other domains": (
        lambda file: file.update(shadow_price_low=file["shadow_price_low"][1:]),
        "shadow_price_low has shape",
    ),
}


@pytest.mark.parametrize("name", BROKEN_PLAN_ARRAYS)
def test_a_broken_plan_archive_is_refused_by_field(name: str, tmp_path: Path) -> None:
    change, said = BROKEN_PLAN_ARRAYS[name]
    path = tmp_path / "plan.npz"
    plan_to_npz(_plan(), path)
    with np.load(path) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(path, **arrays)

    with pytest.raises(FileFormatError, match=said):
        plan_from_npz(path)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_both_plain_and_compressed_archives_are_read(compressed: bool, tmp_path: Path) -> None:
    problem, path = _problem(), tmp_path / "problem.npz"
    problem_to_npz(problem, path)
    with np.load(path) as archive:
        arrays = dict(archive)

    (np.savez_compressed if compressed else np.savez)(path, **arrays)

    assert _same(problem, problem_from_npz(path))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no archive", id="text"),
        pytest.param(b"PK\x03\x04 broken", id="broken"),
        pytest.param(b"\x93NUMPY\x01\x00", id="one array"),
        pytest.param(b"\x80\x04K\x01.", id="pickle"),
    ],
)
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "problem.npz"
    path.write_bytes(content)

    with pytest.raises(FileFormatError, match="not an npz archive"):
        problem_from_npz(path)


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "problem.npz"
    problem_to_npz(_problem(), path)
    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(FileFormatError, match="not an npz archive"):
        problem_from_npz(path)


def test_nothing_pickled_is_read(tmp_path: Path) -> None:
    path = tmp_path / "problem.npz"
    np.savez(path, kind=np.array([{"any": "object"}], dtype=object), allow_pickle=True)

    with pytest.raises(FileFormatError, match="not an npz archive of plain arrays"):
        problem_from_npz(path)


def test_one_array_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "problem.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))

    with pytest.raises(FileFormatError, match="not an npz archive"):
        problem_from_npz(path)


def test_a_name_that_an_archive_cannot_keep_is_refused(one_cap: OneCap, tmp_path: Path) -> None:
    problem = one_cap(served=[[0, 10]], watts_per_replica=[100], cap=1000)
    odd = replace(problem, zones=("zone\0",))

    with pytest.raises(FileFormatError, match="zones holds a NUL character"):
        problem_to_npz(odd, tmp_path / "problem.npz")
    assert problem_from_json(problem_to_json(odd)).zones == ("zone\0",)


def test_the_suffix_says_the_form(tmp_path: Path) -> None:
    problem, plan = _problem(), _plan()

    for name in ("it.yaml", "it"):
        path = tmp_path / name
        for act in (
            lambda path=path: write_problem(problem, path),
            lambda path=path: write_plan(plan, path),
            lambda path=path: read_problem(path),
            lambda path=path: read_plan(path),
        ):
            with pytest.raises(FileFormatError, match=r"accepted: \.json, \.npz"):
                act()
        assert not path.exists()


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    for name in ("none.json", "none.npz"):
        with pytest.raises(FileNotFoundError):
            read_problem(tmp_path / name)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(FileFormatError, match=r"plan\.json: not UTF-8 text"):
        read_plan(path)


def test_the_forms_have_every_field_of_their_types() -> None:
    problem = {field.name for field in fields(PlanningProblem)}
    plan = {field.name for field in fields(Plan)}

    assert problem == {*file_form.PROBLEM, *file_form.PARTS}
    assert plan == {*file_form.PLAN, *file_form.RECORDS}
    for made, columns in (*file_form.PARTS.values(), *file_form.RECORDS.values()):
        names = {field.name for field in fields(made)} - {file_form.VARIANT_NAMES}
        assert names == set(columns), made


def test_the_page_names_every_field() -> None:
    text = PAGE.read_text(encoding="utf-8")
    tables = [columns for _, columns in (*file_form.PARTS.values(), *file_form.RECORDS.values())]
    names = {name for table in (file_form.PROBLEM, file_form.PLAN, *tables) for name in table}

    missing = sorted(name for name in names | {*file_form.PARTS} if f"`{name}`" not in text)

    assert missing == []


def test_the_page_s_examples_hold(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "problem.json"
    path.write_text(example, encoding="utf-8")
    names: dict[str, Any] = {"path": path}

    exec(compile(snippet, str(PAGE), "exec"), names)

    assert _same(names["problem"], read_problem(tmp_path / "problem.npz"))
    assert solve(names["problem"]).choice.tolist() == [[1]]
