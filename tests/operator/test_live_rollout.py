"""The operator on a real API server: what it writes, in which order, and what it gives back."""

from __future__ import annotations

from typing import Any

import pytest
from lightkube.core.exceptions import ApiError


def test_a_plan_is_written_and_told(site: Any, planner: Any, start_operator: Any) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 4)
    start_operator()

    cap = site.cap(watts=1000)

    site.wait(lambda: site.maximum("chat") == 4, "the plan is written")
    site.wait(lambda: site.condition(cap, "Ready").get("reason") == "PlanInForce", "settled")
    status = site.status(cap)
    target = site.target(cap, "chat")
    assert target["userMax"] == 10
    assert target["allowed"] == 4
    assert target["state"] == "Managed"
    assert status["chargedWatts"] == pytest.approx(400)
    assert status["headroomWatts"] == pytest.approx(600)
    assert status["managedTargets"] == "1/1"
    assert "MaximumLowered" in dict(site.events()), site.events()
    assert "from 10 to 4" in dict(site.events())["MaximumLowered"]
    assert "PlanApplied" in dict(site.events(of=cap))
