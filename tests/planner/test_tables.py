"""Tables: nothing is lost on a narrow screen, and what is not known is not shown as a number."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from powercap_planner.cli.difference import print_difference
from powercap_planner.cli.tables import (
    CapRow,
    PlanRows,
    TargetRow,
    finding_lines,
    print_plan,
)
from powercap_planner.observations import Finding

REASON = "cap binds: one more replica needs 620 W, 210 W are left"
ROWS = PlanRows(
    targets=(
        TargetRow(
            deployment="llm/chat",
            gpus="2 x H100",
            load_tps=12_345.0,
            replicas_now=None,
            replicas_allowed=3,
            planned_watts=1500.0,
            charged_watts=1860.0,
            served_tps=9000.0,
            reason=REASON,
        ),
    ),
    caps=(
        CapRow(
            name="cluster",
            cap_watts=5000.0,
            charged_watts=4790.0,
            planned_watts=4500.0,
            base_watts=2930.0,
            unmanaged_watts=0.0,
            headroom_watts=210.0,
            shadow_price_low=0.5,
            shadow_price_high=1.5,
            is_binding=True,
            least_cap_watts=None,
        ),
    ),
    status="optimal",
    rung="fast",
    gap=0.0,
)


def printed(rows: PlanRows, *, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_plan(console, rows)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [90, 150])
def test_every_number_and_the_reason_are_there_at_any_width(width):
    text = " ".join(printed(ROWS, width=width).replace("│", " ").split())

    for part in ("llm/chat", "2 x H100", "12,345", "- → 3", "1,500", "1,860", "9,000", "6.00"):
        assert part in text
    for word in ("cap binds:", "620 W", "210 W", "shadow price 0.5 to 1.5", "2.00"):
        assert word in text


def test_a_price_that_is_not_known_is_said_to_be_so():
    unknown = replace(ROWS.caps[0], shadow_price_low=float("nan"), shadow_price_high=float("nan"))

    text = printed(replace(ROWS, caps=(unknown,)), width=150)

    assert "shadow price not known" in text
    assert "nan" not in text


def test_a_gap_that_nothing_proved_is_not_shown_as_none():
    text = printed(replace(ROWS, rung="lowest", gap=float("nan")), width=150)

    assert "optimal by lowest, no gap proven" in text
    assert "gap 0" not in text


@pytest.mark.parametrize(
    ("watts", "said"),
    [
        pytest.param(6123.0, "least cap that keeps every floor 6,123 W", id="known"),
        pytest.param(float("nan"), "least cap that keeps every floor not known", id="not known"),
    ],
)
def test_a_cap_that_is_too_low_comes_with_the_least_that_would_do(watts, said):
    text = printed(replace(ROWS, caps=(replace(ROWS.caps[0], least_cap_watts=watts),)), width=150)

    assert said in text


def test_a_cap_that_keeps_every_floor_names_no_other():
    assert "least cap" not in printed(ROWS, width=150)


def test_a_difference_shows_what_changed_and_what_did_not():
    console = Console(file=io.StringIO(), width=150)
    after = replace(
        ROWS, targets=(replace(ROWS.targets[0], replicas_allowed=5, served_tps=9000.0),)
    )

    print_difference(console, ROWS, after)
    row = next(
        line
        for line in console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        if "llm/chat" in line
    )

    assert "+2" in row
    assert row.count("=") == 2


def test_what_is_found_of_several_deployments_is_said_once():
    found = [Finding(reason="A", message="same", deployment=name) for name in ("x/1", "x/2")]

    assert finding_lines([*found, Finding(reason="B", message="of all")]) == (
        "A: same (x/1, x/2)",
        "B: of all",
    )
