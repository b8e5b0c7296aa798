"""The files a user applies and reads: manifests, samples, generated pages."""

from __future__ import annotations

import os
import re
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
from powercap_operator.policy import parse_spec
from powercap_operator.settings import parse_arguments
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
        timeout=30,
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
        timeout=60,
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


@pytest.mark.parametrize("value", ["0", "-1", "soon", "inf"])
def test_a_bad_interval_ends_with_a_message(value: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments([f"--interval={value}"], {})

    assert ended.value.code == 2
    assert "--interval" in capsys.readouterr().err
