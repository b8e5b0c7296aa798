"""The commands in the documentation print what it says they print, and name every option."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from powercap_planner.cli.main import make_app

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "offline-what-if.md"
RUN = "from powercap_planner.cli.main import main; main()"


def transcripts() -> list[list[tuple[str, str]]]:
    """Return the console blocks of the page: commands, each with the output shown under it."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE) for block in blocks]


def run(command: str, *, folder: Path, data: str) -> str:
    """Run one ``powercap`` command as a shell would, redirection and $DATA included."""
    program, *arguments = shlex.split(command.replace("$DATA", data))
    assert program == "powercap"
    target = None
    if ">" in arguments:
        *arguments, _, target = arguments
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=folder,
        env={"DATA": data, "PATH": "", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if target:
        (folder / target).write_text(done.stdout)
        return ""
    return done.stdout


def comparable(text: str) -> str:
    """Return the text without trailing blanks, and without the times of stages."""
    timeless = re.sub(r" *\d+\.\d{3} s\b", " # s", text)
    return "\n".join(line.rstrip() for line in timeless.rstrip().splitlines())


@pytest.mark.parametrize("number", range(len(transcripts())))
def test_the_page_shows_what_its_commands_print(number, request, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    transcript = transcripts()[number]
    needs_data = any("$DATA" in command for command, _ in transcript)
    data = str(request.getfixturevalue("real_data")) if needs_data else ""

    for command, shown in transcript:
        printed = run(command, folder=tmp_path, data=data)

        assert comparable(printed) == comparable(shown)


def test_the_page_shows_generated_and_measured_sites():
    commands = [command for transcript in transcripts() for command, _ in transcript]

    assert sum("examples/site.yaml" in command for command in commands) >= 3
    assert any("$DATA" in command for command in commands)
    assert any(command.startswith("powercap solve") for command in commands)


@pytest.mark.parametrize("name", ["plan", "solve", "verify", "fit"])
def test_every_option_is_in_the_reference(name):
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    section = page.partition(f"## powercap {name}\n")[2].partition("\n## ")[0]
    command = typer.main.get_command(make_app(asked=name)).commands[name]

    for parameter in command.params:
        for option in parameter.opts:
            shown = option if option.startswith("-") else option.upper()
            assert f"`{shown}" in section, f"{name} {shown}"
