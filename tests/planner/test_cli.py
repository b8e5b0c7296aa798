"""The command line: tables, JSON and what-ifs on good input, one clear line on bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from powercap_planner import planning
from powercap_planner.cli import main as cli
from powercap_planner.cli.files import load_problem
from powercap_planner.observations import ClusterObservation, DeploymentObservation
from powercap_planner.sources.files import observation_to_json, write_observation
from powercap_solver.files import plan_from_json, plan_to_json, problem_to_json

LENGTH = 200
H100 = "NVIDIA H100 80GB HBM3"


def observation() -> ClusterObservation:
    rng = np.random.default_rng(0)
    time = 1_700_000_000.0 + 60.0 * np.arange(LENGTH)
    deployments = []
    for index, name in enumerate(("chat", "code")):
        asked = 4000.0 + 3000.0 * np.sin(np.linspace(0.0, 12.0, LENGTH) + index)
        replicas = np.clip(np.ceil(asked / 1400.0), 1, 3)
        each = np.minimum(asked / replicas, 2000.0)
        watts = replicas * (70.0 + 600.0 * each / (each + 300.0))
        deployments.append(
            DeploymentObservation(
                namespace="llm",
                name=name,
                gpu_type=H100,
                gpus_per_replica=1,
                power_watts=watts * (1.0 + 0.02 * rng.normal(size=LENGTH)),
                ready_replicas=replicas,
                present_replicas=replicas,
                arrived_tps=asked,
                served_tps=replicas * each,
                running_requests=np.full(LENGTH, 9.0),
                waiting_requests=np.where(asked / replicas > 2000.0, 40.0, 0.0),
                ttft_p95_seconds=np.full(LENGTH, np.nan),
                itl_p95_seconds=np.full(LENGTH, np.nan),
                min_replicas=1,
                max_replicas=5,
            )
        )
    above = sum(one.power_watts - 70.0 * one.present_replicas for one in deployments)
    return ClusterObservation(
        time_seconds=time,
        step_seconds=60.0,
        deployments=tuple(deployments),
        gpu_count={H100: 16},
        parked_gpu_watts={H100: 70.0},
        host_idle_watts=600.0,
        total_watts=600.0 + 16 * 70.0 + above,
        measured=None,
    )


CURVES = """curve_id,gpu,gpu_tdp_w,gpus_per_replica,output_tokens_per_s,power_w
small,H100,700,1,1000,480
small,H100,700,1,8000,660
large,H100,700,4,500,1800
large,H100,700,4,6000,2500
"""
SITE: dict[str, Any] = {
    "cap": {"watts": 9000},
    "price": 80,
    "host_idle_watts": 1000,
    "gpus": {"H100": {"count": 32}},
    "deployments": [
        {"name": "chat", "curve": "small", "load": 30000, "max_replicas": 8},
        {"name": "code", "curve": "large", "load": 15000, "max_replicas": 4, "replicas": "fixed"},
    ],
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Return the working folder with a set of good input files."""
    monkeypatch.chdir(tmp_path)
    write_observation(tmp_path / "history.json", observation())
    (tmp_path / "curves.csv").write_text(CURVES)
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(SITE))
    return tmp_path


@pytest.fixture
def powercap(folder, monkeypatch, capsys):
    """Return a function that runs the command line: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["powercap", *(str(one) for one in arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return run


FROM_HISTORY = ("plan", "--observations", "history.json")
FROM_SITE = ("plan", "--site", "site.yaml", "--curves", "curves.csv")


def test_plan_prints_every_deployment_with_totals_cap_and_certificate(powercap):
    code, out, err = powercap(*FROM_HISTORY, "--cap", 3500)

    assert (code, err) == (0, "")
    for text in ("llm/chat", "llm/code", "total", "cap cluster: 3,500 W", "headroom"):
        assert text in out
    assert "shadow price" in out
    assert "optimal by fast, proven gap" in out
    assert "Difference" not in out


def test_plan_as_json_is_json_alone(powercap):
    code, out, err = powercap(*FROM_HISTORY, "--cap", 3500, "--json")

    plan = json.loads(out)["plan"]
    assert (code, err) == (0, "")
    assert [one["name"] for one in plan["targets"]] == ["chat", "code"]
    assert plan["caps"][0]["charged_watts"] <= 3500


def least_cap(out: str) -> float:
    return float(re.search(r"least cap that keeps every floor ([\d,]+) W", out)[1].replace(",", ""))


@pytest.mark.parametrize("source", [FROM_HISTORY, FROM_SITE])
def test_a_cap_that_nothing_keeps_names_the_least_that_holds(powercap, source):
    _, out, _ = powercap(*source, "--cap", 1)

    least = least_cap(out)
    _, below, _ = powercap(*source, "--cap", least - 2)
    _, at, _ = powercap(*source, "--cap", least + 1)
    assert "cap_infeasible" in below
    assert least_cap(below) == least
    assert "cap_infeasible" not in at
    assert "least cap" not in at


def test_a_plan_without_stages_claims_no_gap(powercap, monkeypatch):
    monkeypatch.setattr(planning, "verify", lambda problem, plan: ["refused by the test"])

    _, out, _ = powercap(*FROM_HISTORY, "--cap", 9000)

    assert "by lowest, no gap proven" in out
    assert "gap 0" not in out


def test_solving_tables_alone_names_the_least_cap_too(powercap, folder):
    powercap(*FROM_SITE, "--cap", 9000, "--save-problem", "problem.json")
    tables = json.loads((folder / "problem.json").read_text())["problem"]
    (folder / "bare.json").write_text(json.dumps(tables))

    _, whole, _ = powercap("solve", "problem.json", "--cap", 1)
    _, bare, _ = powercap("solve", "bare.json", "--cap", 1)

    assert least_cap(bare) == least_cap(whole)


def test_an_infeasible_cap_is_an_answer_in_json_too(powercap):
    code, out, _ = powercap(*FROM_HISTORY, "--cap", 1, "--json")

    assert code == 0
    assert json.loads(out)["plan"]["status"] == "cap_infeasible"
    assert json.loads(out)["plan"]["caps"][0]["least_cap_watts"] > 1


def test_offline_plans_take_the_end_of_the_file_for_now(powercap):
    _, out, _ = powercap(*FROM_HISTORY, "--cap", 3500, "--json")

    assert json.loads(out)["plan"]["planned_at"] == "2023-11-15T01:32:20Z"


def test_a_later_moment_makes_the_file_stale(powercap):
    code, out, err = powercap(*FROM_HISTORY, "--cap", 3500, "--at", "2023-11-16T00:00:00Z")

    assert (code, out) == (2, "")
    assert "no power measured for" in err


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        pytest.param(("--cap", "6000"), "cap W", id="cap"),
        pytest.param(("--load-factor", "0.2"), "default/chat", id="load"),
        pytest.param(("--replicas", "chat=2"), "default/chat", id="pin"),
        pytest.param(("--replicas", "default/code=1"), "default/code", id="pin by key"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "solve"])
def test_what_ifs_print_the_difference_from_the_unchanged_plan(powercap, options, changed, command):
    powercap(*FROM_SITE, "--save-problem", "problem.json")
    start = FROM_SITE if command == "plan" else ("solve", "problem.json")

    code, out, err = powercap(*start, *options)

    # Nothing fits under 6000 W: `solve` says so, `plan` shows it.
    is_told = command == "solve" and options[0] == "--cap"
    assert (code, err) == (4 if is_told else 0, "")
    table = out.partition("Difference from the unchanged plan")[2]
    row = next(line for line in table.splitlines() if changed in line)
    assert "+" in row or "-" in row


@pytest.mark.parametrize("command", ["plan", "solve"])
def test_price_and_carbon_weigh_against_what_the_site_is_used_to(powercap, folder, command):
    (folder / "site.yaml").write_text(yaml.safe_dump({**SITE, "carbon": 300}))
    powercap(*FROM_SITE, "--save-problem", "problem.json")
    start = FROM_SITE if command == "plan" else ("solve", "problem.json")

    powercap(*start, "--price", 160, "--carbon", 600, "--save-problem", "dear.json")
    dear = load_problem(folder / "dear.json").problem

    assert dear.energy_weight[0, 0] == pytest.approx(2.0)
    assert dear.served_share[0, 0] == pytest.approx(0.95)


def test_solve_gives_the_plan_that_plan_gave(powercap, folder):
    _, planned, _ = powercap(*FROM_HISTORY, "--cap", 3500, "--json", "--save-problem", "p.json")
    _, solved, _ = powercap("solve", "p.json", "--json")

    first, second = json.loads(planned)["plan"], json.loads(solved)["plan"]
    assert first["targets"] == second["targets"]
    assert first["plan_id"] == second["plan_id"]


def test_solve_takes_another_objective_with_what_ifs(powercap):
    powercap(*FROM_SITE, "--save-problem", "problem.json")

    code, out, _ = powercap(
        "solve", "problem.json", "--objective", "throughput", "--load-factor", 1.5, "--json"
    )

    document = json.loads(out)
    assert code == 0
    for which in ("plan", "unchanged"):
        stages = [stage["name"] for stage in document[which]["stages"]]
        assert "served" in stages
        assert "throughput_per_watt" not in stages


def bare_problem(powercap, folder: Path) -> Path:
    powercap(*FROM_SITE, "--save-problem", "full.json")
    bare = folder / "bare.json"
    bare.write_text(problem_to_json(load_problem(folder / "full.json").problem))
    return bare


def test_solve_changes_cap_and_replicas_of_a_bare_problem(powercap, folder):
    bare = bare_problem(powercap, folder)

    code, out, _ = powercap("solve", bare, "--cap", 12000, "--replicas", "code=1", "--json")

    document = json.loads(out)
    assert code == 0
    assert document["plan"]["replicas"]["default/code"] == [1]
    assert document["plan"]["upper_watts"][0][0] <= 12000
    assert document["plan"]["replicas"] != document["unchanged"]["replicas"]


@pytest.mark.parametrize("option", ["--load-factor", "--price", "--carbon"])
def test_solve_refuses_what_tables_alone_cannot_answer(powercap, folder, option):
    bare = bare_problem(powercap, folder)

    code, out, err = powercap("solve", bare, option, 1.5)

    assert (code, out) == (2, "")
    assert "the file holds tables alone" in err
    assert "powercap plan --save-problem" in err


def test_solve_does_not_recompute_tables_that_were_edited(powercap, folder):
    powercap(*FROM_SITE, "--save-problem", "problem.json")
    document = json.loads((folder / "problem.json").read_text())
    document["problem"]["cap_watts"] = [[12_345.0]]
    (folder / "problem.json").write_text(json.dumps(document))

    code, _, err = powercap("solve", "problem.json", "--load-factor", 2)
    _, out, _ = powercap("solve", "problem.json")

    assert code == 2
    assert "were edited" in err
    assert "cap cluster: 12,345 W" in out


def test_verify_accepts_the_plan_and_names_what_a_changed_one_violates(powercap, folder):
    powercap(*FROM_SITE, "--save-problem", "problem.json", "--output", "plan.json")
    good = powercap("verify", "problem.json", "plan.json")
    plan = plan_from_json((folder / "plan.json").read_text())
    wrong = replace(plan, choice=np.full_like(plan.choice, 3))
    (folder / "wrong.json").write_text(plan_to_json(wrong))

    code, out, _ = powercap("verify", "problem.json", "wrong.json")

    assert good[0] == 0
    assert code == 1
    assert "violated:" in out


def test_fit_prints_the_curves_and_draws_them(powercap, folder):
    code, out, err = powercap("fit", "--observations", "history.json", "--plot", "curves.png")

    assert (code, err) == (0, "")
    assert "llm/chat" in out
    assert "fitted" in out
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_fit_takes_measured_curves_exactly(powercap):
    code, out, _ = powercap("fit", "--curves", "curves.csv", "--only", "small", "--json")

    curve = json.loads(out)["small"]
    assert code == 0
    assert curve["knot_tps"] == [0.0, 1000.0, 8000.0]
    assert curve["mean_watts"] == [70.0, 480.0, 660.0]


def broken(change) -> str:
    document = json.loads(observation_to_json(observation()))
    change(document)
    return json.dumps(document)


BAD_HISTORY = {
    "negative.json": broken(lambda one: one["total_watts"].__setitem__(3, -1)),
    "unknown_type.json": broken(
        lambda one: [
            each.update(gpu_type="X1", power_watts=[None] * LENGTH) for each in one["deployments"]
        ]
    ),
    "no_metrics.json": broken(
        lambda one: [
            each.update(power_watts=[None] * LENGTH, arrived_tps=[None] * LENGTH)
            for each in one["deployments"]
        ]
    ),
    "min_above_max.json": broken(lambda one: one["deployments"][0].update(min_replicas=9)),
    "nothing.json": broken(lambda one: one.update(deployments=[])),
    "cut.json": '{"format": "powercap.obs',
    "nan.json": observation_to_json(observation()).replace(
        '"host_idle_watts": 600.0', '"host_idle_watts": NaN'
    ),
}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("negative.json", "total_watts[3]: is -1; accepted: 0 or more"),
        ("unknown_type.json", "no target has usable data: llm/chat"),
        ("no_metrics.json", "no target has usable data: llm/chat"),
        ("min_above_max.json", "max_replicas: is 5; accepted: min_replicas (9) or more"),
        ("nothing.json", "deployments: is empty"),
        ("cut.json", "not JSON"),
        ("nan.json", "host_idle_watts: is nan; accepted: a finite number"),
        ("absent.json", "absent.json: cannot be read: No such file or directory"),
    ],
)
def test_a_bad_observation_file_is_one_line_and_no_plan(powercap, folder, name, message):
    if name in BAD_HISTORY:
        (folder / name).write_text(BAD_HISTORY[name])

    code, out, err = powercap("plan", "--observations", name, "--cap", 5000)

    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(FROM_HISTORY, "cap: is missing; give --cap WATTS", id="cap missing"),
        pytest.param((*FROM_HISTORY, "--cap", 0), "cap: is 0; accepted: more than 0 W", id="cap 0"),
        pytest.param((*FROM_HISTORY, "--cap", -5), "cap: is -5; accepted", id="cap < 0"),
        pytest.param((*FROM_HISTORY, "--cap", "nan"), "cap: is nan; accepted", id="cap nan"),
        pytest.param(("plan", "--cap", 5), "give exactly one of", id="no source"),
        pytest.param(
            ("plan", "--prometheus", "http://127.0.0.1:9", "--cap", 5),
            "127.0.0.1:9",
            id="no prometheus there",
        ),
        pytest.param(
            (*FROM_HISTORY, "--cap", 5000, "--replicas", "typo=1"),
            "typo is not known; accepted: llm/chat, llm/code",
            id="unknown deployment",
        ),
        pytest.param(
            (*FROM_HISTORY, "--cap", 5000, "--replicas", "chat"), "accepted: NAME=N", id="no count"
        ),
        pytest.param(
            (*FROM_HISTORY, "--cap", 5000, "--replicas", "chat=0"), "1 or more", id="keda has no 0"
        ),
        pytest.param(
            (*FROM_HISTORY, "--cap", 5000, "--load-factor", -1), "load-factor: is -1", id="load < 0"
        ),
        pytest.param(
            (*FROM_HISTORY, "--cap", 5000, "--price", "cheap"), "price: is 'cheap'", id="price"
        ),
        pytest.param(
            (*FROM_HISTORY, "--cap", 5000, "--carbon", -3), "carbon: is -3", id="carbon < 0"
        ),
        pytest.param(
            (*FROM_HISTORY, "--cap", 5000, "--at", "noon"), "at: is 'noon'", id="no moment"
        ),
        pytest.param(("plan", "--site", "site.yaml"), "curves: is missing", id="no curves"),
        pytest.param(
            ("plan", "--site", "absent.yaml", "--curves", "curves.csv"),
            "absent.yaml: cannot be read",
            id="no site",
        ),
        pytest.param(("solve", "absent.json"), "absent.json: cannot be read", id="no problem"),
        pytest.param(("solve", "site.yaml"), "site.yaml: not JSON", id="no problem file"),
        pytest.param(("verify", "curves.csv", "curves.csv"), "curves.csv: not JSON", id="verify"),
        pytest.param(("fit",), "give either --observations or --curves", id="fit nothing"),
        pytest.param(
            ("fit", "--curves", "curves.csv", "--only", "x"), "x is not known", id="fit unknown"
        ),
        pytest.param(
            ("fit", "--curves", "curves.csv", "--plot", "absent/x.png"),
            "x.png: cannot be written",
            id="plot nowhere",
        ),
        pytest.param(
            (*FROM_SITE, "--output", "absent/plan.json"), "cannot be written", id="save nowhere"
        ),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_two(powercap, arguments, message):
    code, out, err = powercap(*arguments)

    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("480", "much", "line 2, column power_w: is 'much'", id="no number"),
        pytest.param("480", "-480", "line 2, column power_w: is '-480'", id="negative"),
        pytest.param("480", "nan", "line 2, column power_w: is 'nan'", id="nan"),
        pytest.param("power_w", "watts", "line 1: column power_w is missing", id="no column"),
        pytest.param("8000,660", "8000", "line 3, column power_w: is missing", id="short line"),
        pytest.param("700,1,8000", "700,2,8000", "line 3: ", id="two counts in one curve"),
        pytest.param("700,1,1000", "700,1.5,1000", "gpus_per_replica: is 1.5", id="half a gpu"),
    ],
)
def test_a_malformed_curve_file_is_named_by_line_and_column(powercap, folder, old, new, message):
    (folder / "curves.csv").write_text(CURVES.replace(old, new, 1))

    code, out, err = powercap(*FROM_SITE)

    assert (code, out) == (2, "")
    assert "curves.csv" in err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"cap": {"watts": 0}}, "cap.watts: is 0; accepted: more than 0", id="cap 0"),
        pytest.param({"cap": None}, "cap: is missing", id="no cap"),
        pytest.param({"capp": 1}, "capp: is not known; accepted: at, cap", id="misspelt"),
        pytest.param({"deployments": []}, "deployments: is empty", id="nothing to plan"),
        pytest.param(
            {"gpus": {"A100": {"count": 1}}}, "runs on H100, which gpus", id="no such gpu"
        ),
        pytest.param({"host_idle_watts": -1}, "host_idle_watts: is -1", id="negative"),
        pytest.param({"at": "noon"}, "at: is 'noon'", id="no moment"),
    ],
)
def test_a_malformed_site_file_is_named_by_its_field(powercap, folder, change, message):
    (folder / "site.yaml").write_text(yaml.safe_dump({**SITE, **change}))

    code, out, err = powercap(*FROM_SITE)

    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curve": "other"}, "deployments[0].curve: is 'other'; accepted: a curve_id of"),
        ({"load": "much"}, "deployments[0].load: is 'much'; accepted: a number"),
        ({"load": -1}, "deployments[0].load: is -1"),
        ({"max_replicas": 0}, "deployments[0].max_replicas: is 0"),
        ({"min_replicas": 9}, "max_replicas: is 8; accepted: min_replicas (9) or more"),
        ({"replicas": "some"}, "deployments[0].replicas: is 'some'; accepted: ceiling or fixed"),
        ({"weight": 0}, "deployments[0].weight: is 0; accepted: more than 0"),
        ({"load": {"file": "no.csv", "column": "x", "at_seconds": 0}}, "no.csv: cannot be read"),
    ],
)
def test_a_malformed_deployment_of_a_site_is_named_by_its_field(powercap, folder, change, message):
    changed = [{**SITE["deployments"][0], **change}]
    (folder / "site.yaml").write_text(yaml.safe_dump({**SITE, "deployments": changed}))

    code, out, err = powercap(*FROM_SITE)

    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["plan", "solve", "verify", "fit"])
def test_help_says_what_a_command_does_with_an_example(powercap, command):
    code, out, _ = powercap(command, "--help")

    assert code == 0
    assert f"powercap {command}" in out
    assert "Example" in out


def test_an_unknown_option_is_a_mistake_not_a_traceback(powercap):
    code, _, err = powercap("plan", "--no-such-option")

    assert code == 2
    assert "no-such-option" in err
    assert "Traceback" not in err


def test_commands_of_other_parts_are_found_and_a_broken_one_says_so(powercap, monkeypatch):
    monkeypatch.setattr(
        cli,
        "entry_points",
        lambda group: [EntryPoint(name="absent", value="powercap_no_such:command", group=group)],
    )

    code, _, err = powercap("absent")

    assert code == 2
    assert "absent is not available: No module named 'powercap_no_such'" in err


def test_the_installed_command_runs_and_does_not_import_matplotlib(folder):
    script = (
        "import sys; from powercap_planner.cli.main import main\n"
        "sys.argv = ['powercap', 'plan', '--observations', 'history.json', '--cap', '4000']\n"
        "try: main()\n"
        "except SystemExit as stop: print('matplotlib' in sys.modules, stop.code)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.splitlines()[-1] == "False 0"


@pytest.mark.parametrize("name", ["plan", "solve", "verify", "fit", "simulate"])
def test_examples_of_the_help_can_be_copied_line_by_line(powercap, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "50")
    command = cli.make_app(asked=name).registered_commands[0].callback
    examples = [
        line.strip()
        for line in (command.__doc__ or "").splitlines()
        if line.strip().startswith("powercap ")
    ]

    _, out, _ = powercap(name, "--help")

    assert examples
    shown = [line.strip() for line in out.splitlines()]
    assert [line for line in examples if line not in shown] == []
