"""The files a user applies and reads: manifests, samples, generated pages."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube import Client, codecs
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_global_resource

from powercap_operator.conditions import ConditionType
from powercap_operator.decision import FailureKind
from powercap_operator.errors import SettingsError
from powercap_operator.policy import parse_spec
from powercap_operator.settings import parse_arguments, require_liveness_port
from powercap_operator.targets import TargetState

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "operator.md").read_text()

PowerCap = create_global_resource("powercap.dev", "v1alpha1", "PowerCap", "powercaps")


def _documents(name: str) -> list[dict[str, Any]]:
    loaded = yaml.safe_load_all((ROOT / "deploy" / name).read_text())
    return [document for document in loaded if document]


def _properties(schema: dict[str, Any], path: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, field in schema.get("properties", {}).items():
        found.append((f"{path}.{name}", field))
        found += _properties(field, f"{path}.{name}")
        found += _properties(field.get("items", {}), f"{path}.{name}[]")
    return found


def test_the_reference_says_what_the_schema_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate_crd.py", "--check"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_every_field_is_described_and_watts_and_seconds_name_their_unit() -> None:
    (definition,) = _documents("crd.yaml")
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    for part in ("spec", "status"):
        for path, field in _properties(schema["properties"][part], part):
            text = field.get("description", "")
            assert text, f"{path} has no description"
            if field["type"] == "number" and path.lower().endswith("watts"):
                assert re.search(r"\bW\b", text), f"{path} names no unit"
            if path.endswith("Seconds"):
                assert re.search(r"\bs\b", text), f"{path} names no unit"


def test_the_guide_names_every_state_condition_and_failure() -> None:
    for word in (*TargetState, *ConditionType, *FailureKind):
        assert f"`{word.value}`" in GUIDE, word


def test_the_guide_shows_the_real_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "powercap_operator.main", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "COLUMNS": "88"},
    )

    # Python versions wrap differently; the words are the same.
    assert " ".join(done.stdout.split()) in " ".join(GUIDE.split())


def test_samples_are_valid() -> None:
    samples = _documents("samples/powercap.yaml")

    specs = [parse_spec(sample["spec"]) for sample in samples]

    assert len(specs) == 2


@pytest.mark.servers
def test_the_api_server_accepts_samples_and_manifests(
    kube_admin: Client, crds: object, operator_kubeconfig: Path
) -> None:
    for name in ("operator.yaml", "planner.yaml"):
        for document in _documents(name):
            kube_admin.create(codecs.from_dict(document), dry_run=True)
    for sample in _documents("samples/powercap.yaml"):
        kube_admin.create(PowerCap(sample), dry_run=True)
    with pytest.raises(ApiError):
        kube_admin.get(PowerCap, "inference")


def test_kustomization_lists_every_manifest() -> None:
    (listed,) = _documents("kustomization.yaml")
    manifests = {path.name for path in (ROOT / "deploy").glob("*.yaml")} - {"kustomization.yaml"}

    assert set(listed["resources"]) == manifests


def test_only_scaled_objects_and_own_resources_are_written() -> None:
    role = next(item for item in _documents("rbac.yaml") if item["kind"] == "ClusterRole")

    written = {
        resource
        for rule in role["rules"]
        for resource in rule["resources"]
        if {"patch", "update", "delete", "create"} & set(rule["verbs"])
    }

    assert written == {"powercaps", "powercaps/status", "scaledobjects", "events"}
    assert not any("*" in rule["verbs"] + rule["resources"] for rule in role["rules"])


def test_arguments_overrule_the_environment() -> None:
    environment = {"POWERCAP_PLANNER": "there:1", "POWERCAP_SETTLE": "5"}

    given = parse_arguments(["--planner", "here:2"], environment)

    assert (given.planner, given.settle_seconds) == ("here:2", 5.0)
    assert parse_arguments(["--liveness-port", "0"], {}).liveness is None


BAD_SETTINGS = [
    *(
        pytest.param("--interval", "POWERCAP_INTERVAL", value, "seconds, more than 0")
        for value in ("0", "-1", "soon", "inf", "nan", "")
    ),
    pytest.param("--planner-timeout", "POWERCAP_PLANNER_TIMEOUT", "20s", "seconds, more than 0"),
    pytest.param("--kube-timeout", "POWERCAP_KUBE_TIMEOUT", "-", "seconds, more than 0"),
    pytest.param("--settle", "POWERCAP_SETTLE", "a minute", "seconds, more than 0"),
    *(
        pytest.param("--liveness-port", "POWERCAP_LIVENESS_PORT", value, "0 to 65535")
        for value in ("65536", "-1", "http", "80.5", "")
    ),
    *(
        pytest.param("--planner", "POWERCAP_PLANNER", value, "host:port")
        for value in ("", "planner", "planner:", ":50051", "planner:70000", "a b:1")
    ),
    pytest.param("--log-level", "POWERCAP_LOG_LEVEL", "loud", "DEBUG, INFO, WARNING, ERROR"),
]


@pytest.mark.parametrize(("flag", "variable", "value", "accepted"), BAD_SETTINGS)
def test_a_bad_setting_ends_with_one_message_that_names_it(
    flag: str, variable: str, value: str, accepted: str, capsys: Any
) -> None:
    for arguments, environment, name in (
        ([f"{flag}={value}"], {}, flag),
        ([], {variable: value}, variable),
    ):
        with pytest.raises(SystemExit) as ended:
            parse_arguments(arguments, environment)

        assert ended.value.code == 2
        said = capsys.readouterr().err
        message = said[said.index("error: ") :]
        for part in (name, repr(value), accepted):
            assert part in message


def test_a_taken_liveness_port_is_refused_by_name() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(SettingsError, match=rf"POWERCAP_LIVENESS_PORT is {port}: .*free"):
            require_liveness_port(parse_arguments([f"--liveness-port={port}"], {}))

    require_liveness_port(parse_arguments([f"--liveness-port={port}"], {}))
    require_liveness_port(parse_arguments(["--liveness-port=0"], {}))


def test_a_bad_variable_does_no_harm_where_the_command_line_overrules_it() -> None:
    environment = {"POWERCAP_LIVENESS_PORT": "http", "POWERCAP_INTERVAL": "soon"}

    given = parse_arguments(["--liveness-port=0", "--interval=5"], environment)

    assert (given.liveness, given.interval_seconds) == (None, 5.0)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        pytest.param(
            "POWERCAP_LIVENESS_PORT", "65536", "is '65536'; accepted: 0 to 65535", id="port"
        ),
        pytest.param("KUBECONFIG", "/nowhere/config", "is '/nowhere/config': ", id="no cluster"),
        pytest.param("KUBECONFIG", __file__, "accepted: a kubeconfig", id="no kubeconfig"),
    ],
)
def test_a_bad_variable_ends_the_process_without_a_traceback(
    variable: str, value: str, message: str
) -> None:
    environment = {key: text for key, text in os.environ.items() if "KUBERNETES" not in key}
    done = subprocess.run(
        [sys.executable, "-m", "powercap_operator.main"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**environment, variable: value},
    )

    assert done.returncode == 2
    assert f"{variable} " in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
