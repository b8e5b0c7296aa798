"""The image that the manifests name: what the Dockerfile copies and installs is there.

No container is built here. What is checked is what a build would trip over.
"""

from __future__ import annotations

import configparser
import fnmatch
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def _instructions() -> list[tuple[str, list[str]]]:
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], shlex.split(line)[1:]) for line in lines]


def _arguments(instruction: str) -> list[list[str]]:
    return [arguments for name, arguments in _instructions() if name == instruction]


def _copied() -> list[str]:
    """Return what comes from the repository."""
    return [
        source
        for arguments in _arguments("COPY")
        if not arguments[0].startswith("--from")
        for source in arguments[:-1]
    ]


def _is_sent(path: str) -> bool:
    """Tell whether .dockerignore lets a path through; the last rule that matches decides."""
    is_sent = True
    for rule in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = rule.removeprefix("!").removeprefix("**/")
        parts = [path, *(str(parent) for parent in Path(path).parents)]
        name = Path(path).name if "**/" in rule else None
        if rule and any(fnmatch.fnmatch(part, pattern) for part in ([name] if name else parts)):
            is_sent = rule.startswith("!")
    return is_sent


def _metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _listed(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _containers() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return pod spec and container of every Deployment of the manifests."""
    found = []
    for path in sorted((ROOT / "deploy").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document and document["kind"] == "Deployment":
                pod = document["spec"]["template"]["spec"]
                found += [(pod, container) for container in pod["containers"]]
    return found


def test_what_is_copied_exists_and_is_sent_to_the_build() -> None:
    copied = _copied()

    assert copied
    for path in copied:
        assert (ROOT / path).exists(), path
        assert _is_sent(path), path
    for path in ("tests", ".git", ".venv", "planner/powercap_planner/__pycache__"):
        assert not _is_sent(path), path


def test_all_that_the_wheel_is_made_of_is_copied() -> None:
    metadata = _metadata()
    sources = [line.split("=")[1].strip() for line in _listed(metadata["options"]["package_dir"])]
    files = ["setup.cfg", "pyproject.toml", metadata["metadata"]["license_files"]]
    files.append(metadata["metadata"]["long_description"].removeprefix("file: "))

    missing = {*files, *(source.split("/")[0] for source in sources)} - set(_copied())

    assert not missing


def test_the_extras_that_are_installed_are_there_and_all_they_need_is_pinned() -> None:
    extras = dict(_metadata()["options.extras_require"])
    installed = next(a for run in _arguments("RUN") for a in run if a.startswith(".["))
    wanted = set(installed.removeprefix(".[").removesuffix("]").split(","))
    pins = {
        canonicalize_name(Requirement(line).name): Requirement(line)
        for line in _listed((ROOT / "deploy" / "constraints.txt").read_text())
        if not line.startswith("#")
    }
    needed = _listed(_metadata()["options"]["install_requires"])
    for extra in sorted(wanted | {"solver"}):
        needed += _listed(extras[extra])

    assert wanted == {"planner", "operator"}
    for text in needed:
        requirement = Requirement(text)
        if requirement.name == "powercap":
            continue
        (pin,) = pins[canonicalize_name(requirement.name)].specifier
        assert pin.operator == "==", text
        assert Version(pin.version) in requirement.specifier, text


def test_the_base_is_a_plain_reference_to_a_python_that_is_supported() -> None:
    ((argument,),) = _arguments("ARG")
    name, _, reference = argument.partition("=")

    assert {base[0] for base in _arguments("FROM")} == {f"${{{name}}}"}
    found = re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", reference)
    assert found, reference
    lowest = _metadata()["options"]["python_requires"].removeprefix(">=")
    assert Version(found[1]) >= Version(lowest)


def test_nobody_runs_as_root_and_the_manifests_name_the_same_user() -> None:
    ((user,),) = _arguments("USER")
    number = int(user.split(":")[0])

    assert number > 0
    for pod, container in _containers():
        assert pod["securityContext"]["runAsUser"] == number, container["name"]
        assert pod["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize("command", ["powercap-operator", "powercap-planner"])
def test_the_manifests_start_what_is_installed_from_the_image_of_this_version(command: str) -> None:
    metadata = _metadata()
    scripts = [
        line.split("=")[0].strip()
        for line in _listed(metadata["options.entry_points"]["console_scripts"])
    ]
    started = {tuple(container["command"]): container["image"] for _, container in _containers()}

    assert command in scripts
    assert started[command,] == f"powercap:{metadata['metadata']['version']}"
    assert len(started) == 2


def test_the_guide_builds_the_image_that_the_manifests_name() -> None:
    command = f"docker build -f deploy/Dockerfile -t {_containers()[0][1]['image']} ."

    assert command in (ROOT / "docs" / "operator.md").read_text()
    assert command in DOCKERFILE.read_text()
