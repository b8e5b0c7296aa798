"""The service and its refresher, in process: what is kept, shared, refused and waited for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planner_process import sample_observation

from powercap_planner.convert import response_from_status
from powercap_planner.errors import DataMissingError, RequestError, SourceError
from powercap_planner.observations import ClusterObservation, Finding, Reading
from powercap_planner.refresher import Refresher, RefreshSettings
from powercap_planner.request import CapSpec, PlanRequest, TargetSpec
from powercap_planner.service import SOLVE_SECONDS, Grid, PlannerService

END = 1_750_000_000.0
SETTINGS = RefreshSettings(
    history_seconds=86_400,
    step_seconds=300,
    refresh_seconds=0.02,
    refit_seconds=600,
    stale_after_seconds=60,
)
REQUEST = PlanRequest(
    targets=(TargetSpec(namespace="llm", name="alpha"), TargetSpec(namespace="llm", name="beta")),
    caps=(CapSpec(watts=4500.0),),
)


class Clock:
    def __init__(self) -> None:
        self.now = END

    def now_seconds(self) -> float:
        return self.now


class Source:
    """A source that says what the test wants, and counts."""

    name = "test"

    def __init__(self) -> None:
        self.observation: ClusterObservation | Exception = sample_observation(end_seconds=END)
        self.reading: Reading | Exception | None = Reading(
            power_watts=4000.0, measured_at_seconds=END - 10, source="meter"
        )
        self.observed = 0
        self.measured: list[float] = []
        self.threads: set[str] = set()

    def observe(self, *, now_seconds, history_seconds, step_seconds):
        self.observed += 1
        self.threads.add(threading.current_thread().name)
        if isinstance(self.observation, Exception):
            raise self.observation
        return self.observation

    def measure(self, *, now_seconds, window_seconds):
        self.measured.append(window_seconds)
        if isinstance(self.reading, Exception):
            raise self.reading
        return self.reading


class Planner:
    """A service with its parts at hand."""

    def __init__(self, **settings: object) -> None:
        self.source, self.clock = Source(), Clock()
        self.version: Callable[[], object] = lambda: None
        self.refresher = Refresher(
            source=self.source,
            clock=self.clock,
            settings=replace(SETTINGS, **settings),  # type: ignore[arg-type]
            source_version=lambda: self.version(),
        )
        self.service = PlannerService(refresher=self.refresher, clock=self.clock, grid=Grid())

    async def plan(self, request: PlanRequest = REQUEST):
        return await self.service.plan(request)


@pytest.fixture
def planner():
    made = Planner()
    yield made
    made.service.close()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


def test_plan_holds_the_cap_and_says_what_it_charges(planner):
    async def work():
        await planner.refresher.refresh()
        return await planner.plan()

    outcome = run(work())

    (cap,) = outcome.caps
    assert cap.charged_watts <= 4500
    assert [f"{one.namespace}/{one.name}" for one in outcome.targets] == ["llm/alpha", "llm/beta"]
    assert all(one.replicas >= 1 for one in outcome.targets)


def test_first_request_waits_for_the_first_observation(planner):
    async def work():
        asked = asyncio.create_task(planner.plan())
        await asyncio.sleep(0.05)
        assert not asked.done()
        await planner.refresher.refresh()
        return await asked

    assert run(work()).plan_id


def test_observing_does_not_block_the_event_loop(planner):
    run(planner.refresher.refresh())

    assert threading.current_thread().name not in planner.source.threads


def test_failed_refresh_keeps_the_last_snapshot(planner):
    async def work():
        await planner.refresher.refresh()
        planner.source.observation = SourceError("prometheus is down")
        await planner.refresher.refresh()
        return await planner.plan(), await planner.service.status((CapSpec(watts=1.0),))

    outcome, status = run(work())

    assert outcome.plan_id
    assert status.source_error == "prometheus is down"
    assert status.observed_at_seconds == END


@pytest.mark.parametrize("error", [SourceError("down"), DataMissingError("no dcgm")])
def test_snapshot_that_is_too_old_is_not_planned_with(error):
    planner = Planner(stale_after_seconds=0.05)

    async def work():
        await planner.refresher.refresh()
        planner.source.observation = error
        await asyncio.sleep(0.1)
        await planner.refresher.refresh()
        await planner.plan()

    with pytest.raises(type(error), match=str(error)):
        run(work())
    planner.service.close()


@pytest.mark.parametrize("error", [SourceError("down"), DataMissingError("no dcgm")])
def test_nothing_ever_observed_is_told_as_its_cause(planner, error):
    planner.source.observation = error

    async def work():
        await planner.refresher.refresh()
        await planner.plan()

    with pytest.raises(type(error), match=str(error)):
        run(work())


def test_callers_that_wait_together_share_one_attempt(planner):
    planner.source.observation = SourceError("down")

    async def work():
        await planner.refresher.refresh()
        return await asyncio.gather(*(planner.plan() for _ in range(6)), return_exceptions=True)

    answers = run(work())

    assert all(isinstance(one, SourceError) for one in answers)
    assert planner.source.observed == 2


def test_solve_gets_less_time_than_the_caller_has_left(planner, monkeypatch):
    limits = []
    plan_now = planner.service._plan_now

    def noted(snapshot, request, limit_seconds):
        limits.append(limit_seconds)
        return plan_now(snapshot, request, limit_seconds)

    monkeypatch.setattr(planner.service, "_plan_now", noted)

    async def work():
        await planner.refresher.refresh()
        await planner.service.plan(REQUEST, time_left=lambda: 2.0)
        await planner.service.plan(REQUEST, time_left=lambda: 1000.0)

    run(work())

    assert limits[0] < 2.0
    assert limits[1] == SOLVE_SECONDS


def test_background_refresh_outlives_failures(planner):
    good = planner.source.observation

    async def work():
        task = asyncio.create_task(planner.refresher.run())
        for state in (good, SourceError("down"), RuntimeError("a bug"), good):
            planner.source.observation = state
            seen = planner.source.observed
            while planner.source.observed < seen + 2:
                await asyncio.sleep(0.01)
        alive = not task.done()
        task.cancel()
        return alive

    assert run(work())
    assert planner.refresher.last_good is not None


def test_source_that_changed_is_read_before_the_next_plan(planner):
    state = {"version": 1}
    planner.version = lambda: state["version"]

    async def work():
        await planner.refresher.refresh()
        first = await planner.plan()
        planner.source.observation = sample_observation(end_seconds=END, load_factor=0.5)
        state["version"] = 2
        return first, await planner.plan()

    first, second = run(work())

    assert planner.source.observed == 2
    assert second.targets[0].load_tps < first.targets[0].load_tps


def test_models_are_kept_until_a_refit_is_due(planner):
    async def models_after(seconds: float):
        planner.source.observation = sample_observation(end_seconds=END + seconds)
        await planner.refresher.refresh()
        return planner.refresher.last_good

    first = run(models_after(0))
    soon = run(models_after(300))
    later = run(models_after(900))

    assert soon.models is first.models
    assert later.models is not first.models
    assert later.fitted_at_seconds == END + 900


def test_new_deployment_gets_its_model_at_once(planner):
    run(planner.refresher.refresh())
    whole = sample_observation(end_seconds=END)
    renamed = replace(whole.deployments[0], name="gamma")
    planner.source.observation = replace(whole, deployments=(*whole.deployments, renamed))

    run(planner.refresher.refresh())

    assert planner.refresher.last_good is not None
    assert "llm/gamma" in planner.refresher.last_good.models


def test_equal_requests_share_one_plan(planner, monkeypatch):
    made = []
    plan_now = planner.service._plan_now

    def counted(*arguments):
        made.append(1)
        time.sleep(0.05)
        return plan_now(*arguments)

    monkeypatch.setattr(planner.service, "_plan_now", counted)

    async def work():
        await planner.refresher.refresh()
        same = await asyncio.gather(*(planner.plan() for _ in range(5)))
        other = await planner.plan(replace(REQUEST, caps=(CapSpec(watts=4600.0),)))
        return same, other

    same, other = run(work())

    assert len(made) == 2
    assert {one.plan_id for one in same} == {same[0].plan_id}
    assert other.plan_id != same[0].plan_id


def test_caller_who_hangs_up_does_not_take_the_plan_from_others(planner):
    async def work():
        await planner.refresher.refresh()
        first = asyncio.create_task(planner.plan())
        second = asyncio.create_task(planner.plan())
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert run(work()).plan_id


def test_same_snapshot_and_request_give_the_same_plan():
    first, second = Planner(), Planner()

    async def work(planner):
        await planner.refresher.refresh()
        return await planner.plan()

    assert run(work(first)).plan_id == run(work(second)).plan_id
    first.service.close()
    second.service.close()


def test_unknown_deployment_is_refused_by_its_place(planner):
    unknown = replace(REQUEST, targets=(*REQUEST.targets, TargetSpec(namespace="llm", name="nope")))

    async def work():
        await planner.refresher.refresh()
        await planner.plan(unknown)

    with pytest.raises(RequestError) as raised:
        run(work())

    assert raised.value.field == "deployments[2]"


def test_measured_watts_are_those_at_the_meter(planner):
    cap = CapSpec(watts=9000.0, window_seconds=120, overhead_factor=1.5, fixed_overhead_watts=100.0)

    status = run(planner.service.status((cap,)))

    (one,) = status.caps
    assert one.measured_watts == 4000 * 1.5 + 100
    assert one.age_seconds == 10
    assert (one.source, one.reason) == ("meter", "")
    assert planner.source.measured == [120]


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        pytest.param(None, "not all GPUs and hosts are measured", id="missing"),
        pytest.param(SourceError("prometheus is down"), "prometheus is down", id="down"),
        pytest.param(
            Reading(power_watts=4000.0, measured_at_seconds=END - 3600, source="meter"),
            "last measured 3600 s ago",
            id="old",
        ),
    ],
)
def test_watts_that_are_not_measured_are_unset_with_a_reason(planner, reading, reason):
    planner.source.reading = reading

    (one,) = run(planner.service.status((CapSpec(watts=1.0),))).caps

    assert one.measured_watts is None
    assert reason in one.reason


def test_status_and_plan_say_what_the_observation_assumes(planner):
    assumed = Finding(reason="HostPowerAssumed", message="800 W are assumed for node-2")
    planner.source.observation = replace(planner.source.observation, findings=(assumed,))

    async def work():
        await planner.refresher.refresh()
        return await planner.plan(), await planner.service.status((CapSpec(watts=1.0),))

    outcome, status = run(work())

    assert assumed in outcome.findings
    (sent,) = response_from_status(status).findings
    assert (sent.reason, sent.message) == (assumed.reason, assumed.message)


def test_status_says_why_a_measurement_is_refused(planner):
    planner.source.reading = DataMissingError("Kubernetes counts 8 GPUs that nobody reports")

    (one,) = run(planner.service.status((CapSpec(watts=1.0),))).caps

    assert one.measured_watts is None
    assert "8 GPUs" in one.reason


def test_status_names_every_model(planner):
    async def work():
        await planner.refresher.refresh()
        return await planner.service.status((CapSpec(watts=1.0),))

    status = run(work())

    assert sorted(status.models) == ["llm/alpha", "llm/beta"]
    assert status.source_error == ""


def test_empty_history_is_an_error_of_the_source(planner):
    whole = sample_observation(end_seconds=END)
    none = np.empty(0)
    planner.source.observation = replace(
        whole, time_seconds=none, total_watts=none.copy(), deployments=()
    )

    async def work():
        await planner.refresher.refresh()
        await planner.plan()

    with pytest.raises(SourceError, match="holds nothing"):
        run(work())
