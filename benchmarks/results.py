"""Results as tidy files: a JSON line per solve, a CSV row per solve and stage."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from settings import Case

Line = dict[str, Any]

_STAGE_FIELDS = ("objective", "bound", "gap", "method", "seconds", "stopped_by")
_CASE_FIELDS = (
    "family",
    "path",
    "size",
    "seed",
    "method",
    "gap",
    "limit_seconds",
    "last_stage",
    "start",
    "parameters",
)


def key_of(line: Line) -> tuple[Any, ...]:
    """What tells equal work: everything of the case but the repeat."""
    return tuple(
        json.dumps(line[name], sort_keys=True) if name == "parameters" else line[name]
        for name in _CASE_FIELDS
    )


def read_lines(path: Path) -> list[Line]:
    """Every line of a result file, ``.jsonl`` or ``.jsonl.gz``.

    Raises:
        SystemExit: when it is none.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        lines = [json.loads(each) for each in text.splitlines() if each.strip()]
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        missing = [name for name in (*_CASE_FIELDS, "repeat", "seconds") if name not in line]
        if missing:
            raise SystemExit(f"{path}, line {number}: no {missing[0]!r}; is it a result of run.py?")
    return lines


def write_csv(lines: Iterable[Line], path: Path) -> None:
    """One row per solve and stage; what the stage has comes first with ``stage_``."""
    rows = [row for line in lines for row in _rows(line)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def _rows(line: Line) -> list[Line]:
    shared = {name: _plain(value) for name, value in line.items() if name != "stages"}
    if not line["stages"]:
        return [{**shared, "stage": ""}]
    return [
        {
            **shared,
            "stage": name,
            **{f"stage_{field}": stage[field] for field in _STAGE_FIELDS},
        }
        for name, stage in line["stages"].items()
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return json.dumps(value) if value else ""
    return value


def described(case: Case) -> str:
    """A case in a few words, for the progress bar."""
    start = "" if case.start == "cold" else f" {case.start}"
    return f"{case.family} {case.size} seed {case.seed} {case.method}{start}"
