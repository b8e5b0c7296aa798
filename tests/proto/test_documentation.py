"""Every field of the contract is in docs/rpc.md, and the snippet there is valid."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from powercap_planner.config import load
from powercap_proto.v1 import planner_pb2 as v1

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "rpc.md").read_text()
FIELDS = [
    (name, field.name)
    for name, message in v1.DESCRIPTOR.message_types_by_name.items()
    for field in message.fields
]


@pytest.mark.parametrize(("message", "field"), FIELDS, ids=[".".join(one) for one in FIELDS])
def test_field_is_documented(message, field):
    assert f"`{field}`" in TEXT or f".{field}`" in TEXT


def test_python_snippet_is_valid():
    snippet = TEXT.split("```python\n")[1].split("```")[0]

    compile(snippet, "rpc.md", "exec")


def test_configuration_is_accepted(tmp_path):
    file = tmp_path / "planner.yaml"
    file.write_text(TEXT.split("```yaml\n")[1].split("```")[0])

    config = load(file=file, environment={}, flags={})

    assert config.grid.zone == yaml.safe_load(file.read_text())["grid"]["zone"]
