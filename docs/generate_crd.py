"""Writes ``docs/crd.md`` from ``deploy/crd.yaml``; with ``--check`` only compares.

The reference says what the schema says, or the check fails.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "deploy" / "crd.yaml"
PAGE = ROOT / "docs" / "crd.md"

HEAD = """\
# PowerCap reference

Generated from `deploy/crd.yaml` by `docs/generate_crd.py`; do not edit.
What the fields do is told in [operator.md](operator.md).

"""


def render(definition: dict[str, Any]) -> str:
    """Return the page for one CustomResourceDefinition."""
    spec = definition["spec"]
    version = spec["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    names = spec["names"]
    lines = [
        HEAD + f"`{names['kind']}`, `{spec['group']}/{version['name']}`, "
        f"{spec['scope'].lower()}-scoped, short name `{names['shortNames'][0]}`.",
        schema["description"].strip(),
        "",
        "## Columns of `kubectl get powercaps`",
        "",
        "| column | meaning | from |",
        "|---|---|---|",
    ]
    for column in version["additionalPrinterColumns"]:
        wide = " (with `-o wide`)" if column.get("priority") else ""
        meaning = column.get("description", "")
        lines.append(f"| {column['name']}{wide} | {meaning} | `{column['jsonPath']}` |")
    for part in ("spec", "status"):
        inner = schema["properties"][part]
        lines += ["", f"## {part}", "", inner["description"].strip(), ""]
        lines += ["| field | type | default | accepted | meaning |", "|---|---|---|---|---|"]
        lines += list(_rows(inner, part))
    lines += ["", "## Rules across fields", ""]
    lines += [f"- `{path}`: {message}." for path, message in _rules(schema, "")]
    return "\n".join(lines) + "\n"


def _rows(schema: dict[str, Any], path: str) -> Iterator[str]:
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        inner = f"{path}.{name}"
        items = field.get("items", {})
        is_list = field["type"] == "array"
        kind = f"list of {items.get('type')}" if is_list else field["type"]
        default = "required" if name in required else _default(field)
        meaning = " ".join(field.get("description", "").split())
        yield f"| `{inner}` | {kind} | {default} | {_accepted(field)} | {meaning} |"
        yield from _rows(items if is_list else field, inner + "[]" if is_list else inner)


def _default(field: dict[str, Any]) -> str:
    default = field.get("default")
    return "" if default in (None, {}, "") else f"`{default}`"


def _accepted(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    parts = []
    if "minimum" in field:
        more = "more than" if field.get("exclusiveMinimum") else "at least"
        parts.append(f"{more} {field['minimum']}")
    if "maximum" in field:
        parts.append(f"at most {field['maximum']}")
    if "maxItems" in field:
        parts.append(f"at most {field['maxItems']}")
    return ", ".join(parts)


def _rules(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield path, rule["message"]
    for name, field in schema.get("properties", {}).items():
        inner = f"{path}.{name}".lstrip(".")
        yield from _rules(field, inner)
        yield from _rules(field.get("items", {}), inner + "[]")


def main(arguments: list[str]) -> int:
    """Write the page, or compare it; return the exit status."""
    page = render(yaml.safe_load(SOURCE.read_text()))
    if arguments == ["--check"]:
        if PAGE.exists() and PAGE.read_text() == page:
            return 0
        sys.stderr.write("docs/crd.md is out of date: run docs/generate_crd.py\n")
        return 1
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
