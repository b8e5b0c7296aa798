"""The whole demo, once: the planner in its own process, a day of plans over gRPC, the files."""

import io
import json
import struct
import subprocess
import sys

import pytest
from rich.console import Console

from powercap_planner.sources.files import read_observation
from powercap_simulator.demo import DEFAULT_CAP_WATTS, EVENT_SHARE, Files, run
from powercap_solver.certificate import verify
from powercap_solver.files import plan_from_json, problem_from_json


@pytest.fixture(scope="module")
def shown() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def files(shown: io.StringIO, tmp_path_factory: pytest.TempPathFactory) -> Files:
    console = Console(file=shown, width=160)
    out = tmp_path_factory.mktemp("demo")
    return run(console, out=out, seed=4, cap_watts=DEFAULT_CAP_WATTS)


def test_watts_stay_under_every_cap(files: Files, shown: io.StringIO) -> None:
    rows = [line for line in shown.getvalue().splitlines() if line.count("│") == 13]

    spans = [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]
    by_span = {cells[0].split()[0]: cells for cells in spans if cells[2]}
    assert {"before", "event", "after", "whole"} <= by_span.keys()
    assert all(cells[3] == "never" for cells in by_span.values())
    most = float(by_span["event"][2].replace(",", ""))
    assert most <= EVENT_SHARE * DEFAULT_CAP_WATTS
    assert float(by_span["event"][8 + 1].replace(",", "")) > most


def test_the_event_changes_the_plan_and_the_table_says_why(
    files: Files, shown: io.StringIO
) -> None:
    text = shown.getvalue()

    assert "Plan before the event" in text
    assert "Plan for the event that starts at 15:00" in text
    assert "cap cluster: 18,500 W" in text
    assert "cap cluster: 12,950 W, binding" in text
    assert text.count("proven gap") == 2
    assert "the user's maximum" in text
    assert "cap binds" in text


def test_the_saved_plan_is_the_verified_plan_of_the_saved_problem(files: Files) -> None:
    problem = problem_from_json(files.problem.read_text())
    plan = plan_from_json(files.plan.read_text())

    assert verify(problem, plan) == ()
    assert problem.cap_watts.tolist() == [[EVENT_SHARE * DEFAULT_CAP_WATTS]]
    assert plan.upper_watts[0, 0] <= problem.cap_watts[0, 0]
    command = [sys.executable, "-c", "from powercap_planner.cli.main import main; main()"]
    done = subprocess.run(
        [*command, "verify", str(files.problem), str(files.plan)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_file_is_written_and_named_on_the_screen(files: Files, shown: io.StringIO) -> None:
    header = files.picture.read_bytes()[:24]
    width, height = struct.unpack(">II", header[16:])
    events = [json.loads(line)["event"] for line in files.log.read_text().splitlines() if line]

    assert header.startswith(b"\x89PNG")
    assert (width, height) == (1210, 770)
    assert read_observation(files.observation).deployments
    assert events.count("planned") >= 48
    for path in (files.picture, files.problem, files.plan, files.observation, files.log):
        assert str(path) in shown.getvalue().replace("\n", "")
