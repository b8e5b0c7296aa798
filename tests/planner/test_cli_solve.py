"""``powercap solve`` and ``verify``: exit codes, every option, pure JSON, mistakes in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powercap_planner.cli import main as cli
from powercap_planner.cli import solve as solve_command
from powercap_planner.cli.questions import sentence
from powercap_solver.files import read_plan, read_problem, write_plan, write_problem
from powercap_solver.ladder import solve
from powercap_solver.one_more import Counterfactual, Fall, Need
from powercap_solver.parts import Grid, Labels
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import Method, SolveSettings

RUN = "from powercap_planner.cli.main import main; main()"
METHODS = [method.value for method in Method]
A, B = "serving/chat", "serving/code"


def problem_of(*, caps: dict[str, float], periods: int = 1, **changes: Any) -> PlanningProblem:
    """Two deployments; replicas of ``chat`` draw 1000 W each, those of ``code`` 600 W.

    Both draw in the first domain, each in one of its own where there are three.
    """
    served = np.array([[0.0, 900.0, 1700.0, 2400.0], [0.0, 500.0, 950.0, 1300.0]])
    upper = np.array([[0.0, 1000.0, 2000.0, 3000.0], [0.0, 600.0, 1200.0, 1800.0]])
    domains = tuple(caps)
    draws = [(0, 0), (0, 1), *([(1, 0), (2, 1)] if len(domains) == 3 else [])]
    domain, deployment = np.array(draws).T if domains else np.zeros((2, 0), dtype=np.int64)

    def by_period(table: Any) -> Any:
        return np.repeat(np.array(table, dtype=np.float64)[:, None], periods, axis=1)

    zeros = by_period(np.zeros(len(domains)))
    made = PlanningProblem(
        deployments=(A, B),
        domains=domains,
        zones=("de",),
        period_seconds=np.full(periods, 300.0),
        option_count=np.array([4, 4]),
        replicas=np.tile(np.arange(4), (2, 1)),
        served_tps=by_period(served),
        power_watts=by_period(0.9 * upper),
        draw_domain=domain.astype(np.int64),
        draw_deployment=deployment.astype(np.int64),
        upper_watts=by_period(upper[deployment]),
        load_tps=by_period([3000.0, 1500.0]),
        weight=np.ones(2),
        priority=np.array([1, 0]),
        min_replicas=np.zeros(2, dtype=np.int64),
        min_served_fraction=np.zeros(2),
        served_share=np.full((2, periods), 0.998),
        is_ceiling=np.ones(2, dtype=np.bool_),
        replicas_in_force=np.full(2, -1),
        zone_index=np.zeros(2, dtype=np.int64),
        energy_weight=np.ones((1, periods)),
        zone_base_watts=np.zeros((1, periods)),
        cap_watts=by_period(list(caps.values())).reshape(len(domains), periods),
        overhead_factor=np.ones(len(domains)),
        fixed_overhead_watts=np.zeros(len(domains)),
        base_watts=zeros.reshape(len(domains), periods),
        unmanaged_watts=zeros.reshape(len(domains), periods),
        fixed_watts=zeros.reshape(len(domains), periods),
    )
    return replace(made, **changes)


ONE = {"row": 2700.0}
"""Holds two of chat and one of code: 2600 W, 2200 tokens/s."""
THREE = {"row": 2500.0, "rack a": 2500.0, "rack b": 1300.0}
"""Holds one of chat and two of code: 2200 W, 1850 tokens/s."""


@pytest.fixture
def powercap(tmp_path, monkeypatch, capsys):
    """Return a function that runs the command line in a folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    write_problem(problem_of(caps=ONE), tmp_path / "one.json")
    write_problem(problem_of(caps=ONE), tmp_path / "one.npz")
    write_problem(problem_of(caps=THREE, periods=2), tmp_path / "three.json")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["powercap", *(str(one) for one in arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return run


def solved(powercap, *arguments: object) -> dict[str, Any]:
    code, out, err = powercap("solve", *arguments, "--json")
    assert (code, err) == (0, "")
    return dict(json.loads(out))


def row_of(out: str, title: str, start: str) -> list[str]:
    """Return the cells of the line that starts so, in the table with that title."""
    table = out.partition(f"\n{title}")[2]
    line = next(line for line in table.splitlines() if line.startswith(f"│ {start} "))
    return [cell.strip() for cell in line.strip("│").split("│")]


# --- exit codes ---------------------------------------------------------------------------------


def test_0_says_that_every_stage_is_proven(powercap):
    code, out, err = powercap("solve", "one.json")

    assert (code, err) == (0, "")
    assert "optimal by fast, proven gap 0" in out


def test_3_says_which_floors_yielded_and_which_caps_would_keep_them(powercap, tmp_path):
    floors = problem_of(caps=ONE, min_replicas=np.array([2, 2]))
    write_problem(floors, tmp_path / "floors.json")

    code, out, _ = powercap("solve", "floors.json")

    assert code == 3
    assert f"floor yielded: {B}, period 0: min_replicas 2 asked, 1 planned" in out
    assert "least cap that keeps every floor 3,200 W" in out
    factor = float(re.search(r"all caps times ([\d.]+) would keep every floor", out)[1])
    assert factor * 2700 >= 3200 * (1 - 1e-9)
    assert factor == pytest.approx(3200 / 2700, abs=2e-4)
    assert powercap("solve", "floors.json", "--cap", 2700 * factor)[0] == 0


def test_4_says_that_nothing_fits(powercap, tmp_path):
    no_zero = problem_of(caps=ONE)
    upper = no_zero.upper_watts + 2000.0
    write_problem(replace(no_zero, upper_watts=upper), tmp_path / "tight.npz")

    code, out, _ = powercap("solve", "tight.npz")

    assert code == 4
    assert "cap_infeasible" in out


def test_5_says_which_stage_stopped_before_its_proof(powercap):
    code, out, _ = powercap("solve", "one.json", "--method", "greedy", "--gap", 0)

    assert code == 5
    assert "not proven to the gap: served stopped by heuristic" in out


def test_the_gap_that_is_asked_decides_what_is_proven(powercap):
    code, out, _ = powercap(
        "solve", "one.json", "--method", "greedy", "--gap", 0.9, "--objective", "throughput"
    )

    assert code in (0, 5)
    assert (code == 0) == ("optimal by greedy" in out)


def test_a_deadline_gives_a_plan_that_holds(powercap):
    code, out, err = powercap("solve", "three.json", "--time-limit", 1e-6, "--output", "p.json")

    assert code in (0, 5)
    assert (code == 5) == ("not proven to the gap" in out)
    assert "Traceback" not in err
    assert powercap("verify", "three.json", "p.json")[0] == 0


def test_help_names_every_exit_code(powercap):
    _, out, _ = powercap("solve", "--help")

    for code in (0, 2, solve_command.FLOORS_YIELDED, solve_command.INFEASIBLE, 5):
        assert re.search(rf"^ +{code}  \w", out, re.MULTILINE)


# --- stdout -------------------------------------------------------------------------------------


def run_apart(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("method", METHODS)
def test_json_is_all_of_stdout_whatever_a_back_end_prints(powercap, tmp_path, method):
    asked = ("--rates", "--one-more", "chat", "--time-limit", "20")

    done = run_apart(tmp_path, "solve", "three.json", "--method", method, "--json", *asked)

    document = json.loads(done.stdout)
    assert done.returncode == (5 if method == "greedy" else 0), done.stderr
    assert document["plan"]["replicas"] == {A: [1, 1], B: [2, 2]} or method == "greedy"
    assert {"rates", "one_more"} <= set(document)


def test_what_c_code_and_children_print_never_reaches_stdout(tmp_path):
    script = (
        "import ctypes, subprocess, sys\n"
        "from powercap_planner.cli.only_ours import only_ours_on_stdout\n"
        "with only_ours_on_stdout():\n"
        "    print('python')\n"
        "    ctypes.CDLL(None).puts(b'buffered by C')\n"
        "    subprocess.run(['echo', 'child'], check=True)\n"
        "print('ours')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout == "ours\n"
    assert sorted(done.stderr.splitlines()) == ["buffered by C", "child", "python"]


@pytest.mark.parametrize("closed", ["1>&-", "2>&-"])
def test_a_closed_stream_is_no_traceback(powercap, tmp_path, closed):
    command = f"{sys.executable} -c '{RUN}' solve one.json --output p.json {closed}"

    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert "Traceback" not in done.stderr
    assert (tmp_path / "p.json").exists()


# --- methods, objectives, files -----------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_verified_plan_and_says_its_name(powercap, method):
    code, out, _ = powercap("solve", "three.json", "--method", method, "--output", "plan.npz")

    assert code == (5 if method == "greedy" else 0)
    assert powercap("verify", "three.json", "plan.npz")[0] == 0
    rung = method if method in ("fast", "greedy") else "compact"
    assert f"by {rung}," in out


@pytest.mark.parametrize("form", ["json", "npz"])
def test_both_forms_are_read_and_written_alike(powercap, tmp_path, form):
    arguments = ("--output", f"plan.{form}", "--save-problem", f"problem.{form}")

    code, _, _ = powercap("solve", f"one.{form}", *arguments, "--cap", 3300)

    plan = read_plan(tmp_path / f"plan.{form}")
    kept = read_problem(tmp_path / f"problem.{form}")
    assert code == 0
    assert kept.cap_watts.tolist() == [[3300.0]]
    assert plan.choice.tolist() == [[2], [2]]
    assert powercap("verify", f"problem.{form}", f"plan.{form}")[0] == 0
    assert powercap("verify", f"one.{form}", f"plan.{form}")[0] == 1


def test_net_value_is_for_problems_with_token_prices(powercap, tmp_path):
    grid = Grid(
        price_per_mwh=np.array([[90.0]]),
        carbon_g_per_kwh=np.array([[300.0]]),
        overhead_factor=np.ones(1),
        token_price_per_million=np.array([0.5, 0.001]),
    )
    # Fixed replicas: what a ceiling allows beyond the best is given back whatever it costs.
    priced = problem_of(caps=ONE, grid=grid, is_ceiling=np.zeros(2, dtype=np.bool_))
    write_problem(priced, tmp_path / "priced.json")

    code, out, err = powercap("solve", "one.json", "--objective", "net_value")
    document = solved(powercap, "priced.json", "--objective", "net_value")
    _, table, _ = powercap("solve", "priced.json", "--objective", "net_value")

    assert (code, out) == (2, "")
    assert err.startswith("powercap: objective: is net_value, and the problem has no grid.token_")
    assert document["plan"]["replicas"] == {A: [2], B: [0]}
    assert "money/s per W" in table


def test_throughput_has_no_stage_of_watts(powercap):
    stages = solved(powercap, "one.json", "--objective", "throughput")["plan"]["stages"]

    assert "throughput_per_watt" not in [stage["name"] for stage in stages]


# --- the table ----------------------------------------------------------------------------------


def test_several_caps_and_periods_have_a_line_each(powercap):
    _, out, _ = powercap("solve", "three.json")

    assert out.startswith("Plan, period 0 of 2 (300 s)")
    assert row_of(out, "Caps", "rack b")[:4] == ["rack b", "1,300", "1,200", "100"]
    assert row_of(out, "Periods", "     1")[2:5] == ["4,500", "1,850", "3"]
    assert "row 2,200/2,500 (300)" in out
    assert row_of(out, "Stages", "served")[1] == "1,110,000"
    assert "binding: cap rack b, period 1: 1,200 of 1,300 W above base" in out


def test_modes_and_variants_are_shown_where_options_have_them(powercap, tmp_path):
    vectors = np.zeros((2, 4, 4), dtype=np.int64)
    vectors[0, :, 0], vectors[0, :, 1] = [0, 1, 1, 2], [0, 0, 1, 1]
    labels = Labels(
        modes=("full", "eco"),
        mode_index=np.array([[0, 0, 1, 0], [0, 1, 1, 1]]),
        variants=(("h100", "a100"), ()),
        variant_replicas=vectors,
    )
    write_problem(problem_of(caps=ONE, labels=labels), tmp_path / "labelled.json")

    _, out, _ = powercap("solve", "labelled.json")
    document = solved(powercap, "labelled.json")

    assert "eco, 1 x h100, 1 x a100" in out
    assert document["plan"]["options"] == {A: ["eco, 1 x h100, 1 x a100"], B: ["eco"]}


def test_a_pin_keeps_every_mode_of_that_many_replicas(powercap, tmp_path):
    labels = Labels(
        modes=("full", "eco"),
        mode_index=np.array([[0, 1, 0, 0], [0, 0, 0, 0]]),
        variants=((), ()),
        variant_replicas=np.zeros((2, 4, 4), dtype=np.int64),
    )
    replicas = np.array([[0, 1, 1, 2], [0, 1, 2, 3]])
    problem = problem_of(caps=ONE, labels=labels, replicas=replicas)
    write_problem(problem, tmp_path / "modes.json")

    document = solved(powercap, "modes.json", "--replicas", "chat=1", "--save-problem", "k.json")

    kept = read_problem(tmp_path / "k.json")
    assert kept.option_count.tolist() == [2, 4]
    assert kept.served_tps[0, 0].tolist() == [900.0, 1700.0, 0.0, 0.0]
    assert document["plan"]["options"][A] == ["full"]


def test_a_problem_without_caps_is_solved(powercap, tmp_path):
    write_problem(problem_of(caps={}), tmp_path / "free.json")

    code, out, _ = powercap("solve", "free.json", "--rates")
    refused = powercap("solve", "free.json", "--cap", 5)

    assert code == 0
    assert "rates: no cap binds" in out
    assert refused[0] == 2
    assert "cap: cannot be changed: the problem has no cap" in refused[2]


def test_many_deployments_are_counted_and_not_all_listed(powercap, tmp_path, monkeypatch):
    monkeypatch.setattr(solve_command, "_MOST_ROWS", 1)

    _, out, _ = powercap("solve", "one.json", "--cap", 2000)

    assert "and 1 more" in out
    assert "Difference" in out


# --- what if ------------------------------------------------------------------------------------


def test_caps_of_several_domains_are_changed_by_name(powercap):
    document = solved(powercap, "three.json", "--cap", "rack b=700", "--cap", "row=2700")

    assert document["unchanged"]["replicas"] == {A: [1, 1], B: [2, 2]}
    assert document["plan"]["replicas"] == {A: [2, 2], B: [1, 1]}
    assert document["plan"]["upper_watts"] == [[2600.0] * 2, [2000.0] * 2, [600.0] * 2]


def test_the_difference_names_the_caps_that_changed(powercap):
    _, out, _ = powercap("solve", "three.json", "--cap", "rack b=700", "--replicas", "chat=1")

    table = out.partition("Difference from the unchanged plan")[2]
    assert "cap W rack b" in table
    assert "-600" in table


def test_pins_and_caps_together_are_solved_as_asked(powercap):
    document = solved(powercap, "one.npz", "--cap", "row=5000", "--replicas", f"{B}=1")

    assert document["plan"]["replicas"] == {A: [3], B: [1]}


# --- rates, one more, warm ----------------------------------------------------------------------


def test_rates_stand_beside_the_shadow_price(powercap):
    document = solved(powercap, "one.json", "--rates")
    _, out, _ = powercap("solve", "one.json", "--rates")

    (rate,) = document["rates"]
    measured = rate["measured"]
    assert (rate["domain"], rate["period"]) == ("row", 0)
    assert rate["shadow_price_low"] <= rate["shadow_price_high"]
    # 1700 + 500 tokens/s at 2600 W; 2400 at 3000 W; 900 + 950 at 2200 W.
    assert measured["value_per_second"] == pytest.approx(2200)
    assert measured["larger_cap_watts"] == pytest.approx(3000)
    assert measured["rate_up"] == pytest.approx(200 / 300)
    assert measured["kept_cap_watts"] == pytest.approx(2600)
    assert measured["smaller_cap_watts"] == pytest.approx(2200)
    assert measured["rate_down"] == pytest.approx(350 / 500)
    cells = row_of(out, "Rates of caps", "row")
    assert cells[2] == "2,700.0"
    assert cells[4] == "0.667"
    assert cells[6] == "0.7"


def test_one_more_replica_is_a_sentence_with_who_pays(powercap):
    document = solved(powercap, "one.json", "--one-more", "code", "--one-more", A)
    _, out, _ = powercap("solve", "one.json", "--one-more", "code")

    said = (
        f"one more replica of {B} (1 to 2) needs 600 W of row, 100 W remain; the cheapest way to "
        f"free them costs 350 tokens/s: {A} falls by 1"
    )
    assert said in out
    assert document["one_more"][0]["sentence"] == said
    assert document["one_more"][0]["measured"]["falls"] == [
        {"deployment": A, "period": 0, "replicas": 1}
    ]
    assert document["one_more"][1]["deployment"] == A


def test_one_more_replica_that_fits_or_cannot_be_says_so(powercap):
    _, fits, _ = powercap("solve", "three.json", "--one-more", "chat", "--cap", "row=9000")
    _, none, _ = powercap("solve", "one.json", "--one-more", "chat", "--cap", 9000)
    _, never, _ = powercap("solve", "one.json", "--one-more", "chat", "--cap", 500)

    assert f"one more replica of {A} (2 to 3) needs 1,000 W of rack a, 500 W remain; it c" in fits
    assert f"one more replica of {A}: {A} has no option with more replicas" in none
    assert "the cap of row does not allow it" in never


def test_a_failing_question_does_not_lose_the_plan(powercap, monkeypatch):
    from powercap_planner.cli import questions
    from powercap_solver.errors import SolverError

    def fails(*_: object, **__: object) -> None:
        raise SolverError("refused by the test")

    monkeypatch.setattr(questions, "cap_rates", fails)
    monkeypatch.setattr(questions, "one_more_replica", fails)

    code, out, _ = powercap("solve", "one.json", "--rates", "--one-more", "chat")

    assert code == 0
    assert "refused by the test (row, period 0)" in out
    assert f"one more replica of {A}: not known: refused by the test" in out


def test_a_warm_start_is_taken_in_silence(powercap):
    powercap("solve", "three.json", "--output", "earlier.npz")

    document = solved(powercap, "three.json", "--warm", "earlier.npz")

    assert "notes" not in document
    assert document["plan"]["replicas"] == {A: [1, 1], B: [2, 2]}


def test_a_warm_start_that_does_not_fit_is_told(powercap, tmp_path):
    powercap("solve", "one.json", "--output", "earlier.json")
    plan = read_plan(tmp_path / "earlier.json")
    write_plan(
        replace(plan, stages=(), stage_choice=np.zeros((0, 2, 1), dtype=np.int64)),
        tmp_path / "without.json",
    )
    two = problem_of(caps={"row": 2700.0, "pdu": 9000.0})
    write_problem(two, tmp_path / "two.json")

    _, other, _ = powercap("solve", "three.json", "--warm", "earlier.json")
    _, empty, _ = powercap("solve", "one.json", "--warm", "without.json")
    notes = solved(powercap, "two.json", "--warm", "earlier.json")["notes"]

    assert "note: warm: earlier.json is of other deployments, periods or options" in other
    assert "note: warm: without.json has no stage 'served'" in empty
    assert "prices of 1 limits and the problem has 2" in notes[0]


# --- mistakes -----------------------------------------------------------------------------------


def written(folder: Path, **changes: Any) -> dict[str, Any]:
    document = json.loads((folder / "one.json").read_text())
    return {**document, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 1}, "version is 1; accepted: 2"),
        ({"kind": "powercap.plan"}, "kind is 'powercap.plan'; accepted: 'powercap.problem'"),
        ({"weight": [1.0, -1.0]}, "weight[1]"),
        ({"weight": [1.0]}, "weight holds 1 entries; accepted: a list of 2"),
        ({"weight": [1.0, None]}, "weight[1] is null; accepted: a finite number"),
        ({"extra": 1}, "extra"),
        ({"draw_domain": [0, 7]}, "draw_domain"),
    ],
)
@pytest.mark.parametrize("command", ["solve", "verify"])
def test_a_malformed_json_problem_is_named_by_field(powercap, tmp_path, command, changes, message):
    (tmp_path / "bad.json").write_text(json.dumps(written(tmp_path, **changes)))

    code, out, err = powercap(command, "bad.json", *(["plan.json"] if command == "verify" else []))

    assert (code, out) == (2, "")
    assert err.startswith("powercap: bad.json: ")
    assert message in err
    assert err.count("\n") == 1


def cut(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes()[:200])


def no_archive(source: Path, target: Path) -> None:
    target.write_bytes(b"\x93NUMPY nothing")


def without_weight(source: Path, target: Path) -> None:
    arrays = dict(np.load(source, allow_pickle=False))
    del arrays["weight"]
    np.savez(target, **arrays)


def text_for_watts(source: Path, target: Path) -> None:
    arrays = dict(np.load(source, allow_pickle=False))
    np.savez(target, **{**arrays, "cap_watts": np.array([["many"]])})


def pickled(source: Path, target: Path) -> None:
    arrays = dict(np.load(source, allow_pickle=False))
    np.savez(target, **{**arrays, "weight": np.array([1.0, {}], dtype=object)})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "not an npz archive"),
        (no_archive, "not an npz archive"),
        (without_weight, "weight"),
        (text_for_watts, "cap_watts holds <U4; accepted: numbers"),
        (pickled, "not an npz archive of plain arrays"),
    ],
)
def test_a_malformed_npz_problem_is_named(powercap, tmp_path, spoil, message):
    spoil(tmp_path / "one.npz", tmp_path / "bad.npz")

    code, out, err = powercap("solve", "bad.npz")

    assert (code, out) == (2, "")
    assert err.startswith("powercap: bad.npz: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.json",), "absent.json: cannot be read: No such file or directory"),
        (("absent.npz",), "absent.npz: cannot be read: No such file or directory"),
        (("one.json", "--gap", 1), "gap: is 1; accepted: 0 or more, less than 1"),
        (("one.json", "--gap", "nan"), "gap: is nan; accepted"),
        (("one.json", "--time-limit", 0), "time-limit: is 0; accepted: more than 0 s"),
        (("one.json", "--time-limit", "inf"), "time-limit: is inf"),
        (("one.json", "--cap", "row=much"), "cap: is 'row=much'; accepted: WATTS or DOMAIN=WATTS"),
        (("one.json", "--cap", "nan"), "cap: is nan; accepted: more than 0 W"),
        (("one.json", "--cap", "pdu=9"), "cap: pdu is not a domain; accepted: row"),
        (("one.json", "--cap", 9, "--cap", "row=8"), "cap: of row is given twice"),
        (("three.json", "--cap", 9), "accepted: DOMAIN=9, DOMAIN one of row, rack a, rack b"),
        (("one.json", "--replicas", "chat=9"), "accepted, as the problem offers: 0, 1, 2, 3"),
        (("one.json", "--one-more", "typo"), "one-more: typo is not known; accepted: serving/chat"),
        (("one.json", "--warm", "absent.json"), "absent.json: cannot be read"),
        (("one.json", "--warm", "one.json"), "one.json: kind is 'powercap.problem'"),
        (("one.json", "--output", "plan.txt"), "accepted: a name that ends in .json or .npz"),
        (("one.json", "--output", "no/plan.json"), "output: no/plan.json cannot be written"),
        (("one.json", "--save-problem", "no/p.npz"), "save-problem: no/p.npz cannot be written"),
        (("one.json", "--load-factor", 2), "load-factor: cannot be applied: the file holds tables"),
        (("one.json", "--price", "nan"), "price: is nan"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(powercap, arguments, message):
    code, out, err = powercap("solve", *arguments)

    assert (code, out) == (2, "")
    assert err.startswith("powercap: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("option", [("--method", "simplex"), ("--objective", "fun")])
def test_an_unknown_choice_is_told_with_what_is_accepted(powercap, option):
    code, out, err = powercap("solve", "one.json", *option)

    assert (code, out) == (2, "")
    assert option[1] in err
    assert "'greedy'" in err or "'throughput'" in err


# --- verify -------------------------------------------------------------------------------------


def test_verify_lists_what_is_wrong_line_by_line(powercap, tmp_path):
    powercap("solve", "one.json", "--output", "plan.json")
    plan = read_plan(tmp_path / "plan.json")
    wrong = replace(plan, upper_watts=plan.upper_watts + 5, headroom_watts=plan.headroom_watts + 5)
    write_plan(wrong, tmp_path / "wrong.npz")

    good = powercap("verify", "one.npz", "plan.json")
    code, out, _ = powercap("verify", "one.npz", "wrong.npz")

    assert good == (0, "plan.json: verified against one.npz\n", "")
    assert code == 1
    assert len(out.splitlines()) >= 2
    assert all(line.startswith("violated: ") for line in out.splitlines())


def test_verify_takes_a_plan_of_another_problem_for_a_violation(powercap, tmp_path):
    write_plan(solve(problem_of(caps=THREE, periods=2)), tmp_path / "other.json")

    code, out, err = powercap("verify", "one.json", "other.json")

    assert (code, err) == (1, "")
    assert out.startswith("violated: ")


def test_verify_of_what_is_no_plan_is_a_mistake(powercap, tmp_path):
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")

    for name, message in (("one.json", "kind is"), ("cut.npz", "not an npz archive")):
        code, out, err = powercap("verify", "one.json", name)

        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


def test_the_settings_reach_the_solver(powercap, monkeypatch):
    seen: list[SolveSettings] = []
    original = solve_command.solve_verified

    def spied(problem: PlanningProblem, settings: SolveSettings, **rest: Any) -> Any:
        seen.append(settings)
        return original(problem, settings, **rest)

    monkeypatch.setattr(solve_command, "solve_verified", spied)

    powercap("solve", "one.json", "--method", "scip", "--gap", 1e-3, "--time-limit", 7)

    assert (seen[0].method, seen[0].relative_gap) == (Method.SCIP, 1e-3)
    assert seen[0].deadline_seconds == 7


def test_sentences_say_what_fits_and_what_is_not_sure():
    problem = problem_of(caps=ONE)
    plan = solve(problem)
    need = Need(kind="cap", name="row", needed=600.0, left=700.0)
    fits = Counterfactual(
        deployment=B,
        period=0,
        replicas=1,
        larger=2,
        needs=(need,),
        binding=None,
        lost_per_second=0.0,
        lost_error_per_second=0.0,
        lost_tps=0.0,
        falls=(),
        reason="",
    )
    short = replace(need, left=100.0)
    weighted = replace(
        fits,
        needs=(short, Need(kind="pool", name="h100", needed=1.0, left=0.0)),
        binding=short,
        lost_per_second=700.0,
        lost_error_per_second=3.0,
        lost_tps=-20.0,
        falls=(Fall(deployment=A, period=1, replicas=2), Fall(deployment=B, period=0, replicas=1)),
    )

    assert sentence(problem, plan, fits) == (
        f"one more replica of {B} (1 to 2) needs 600 W of row, 700 W remain: it fits beside the "
        "plan and costs 0 tokens/s"
    )
    assert sentence(problem, plan, weighted) == (
        f"one more replica of {B} (1 to 2) needs 600 W of row, 100 W remain and 1 GPU of h100, "
        "0 remain; the cheapest way to free them costs 700 weighted tok/s (to within 3), "
        f"20 more tokens/s served: {B} falls by 1, {A} falls by 2 in period 1"
    )
