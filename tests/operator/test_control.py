"""The loop of a PowerCap: it lives through errors, keeps its grid and ends before a restore."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from powercap_operator import control, cycle
from powercap_operator.control import Control
from powercap_operator.cycle import Pace, Services
from powercap_operator.errors import ClusterError, ConflictError, MissingError
from powercap_operator.kube import Kube

FAST = Pace(interval_seconds=0.05, feedback_interval_seconds=0.02)


class Stopper:
    """kopf's flag, in memory."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def __bool__(self) -> bool:
        return self.event.is_set()

    async def wait(self, timeout: float | None = None) -> object:
        return await asyncio.wait_for(self.event.wait(), timeout)


def _control() -> Control:
    clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)  # noqa: E731
    nothing: Any = None
    return Control(Services(kube=nothing, planner=nothing, clock=clock))


async def _run(made: Control, body: Callable[[], Awaitable[None]]) -> None:
    stopped = Stopper()
    task = asyncio.create_task(made.run("cap", "uid", stopped))
    await body()
    stopped.event.set()
    await asyncio.wait_for(task, 5)


def test_a_cycle_that_breaks_is_logged_and_the_next_one_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    turns: list[str] = []
    done = asyncio.Event()

    async def run_cycle(name: str, services: Services) -> Pace:
        turns.append(name)
        if len(turns) == 1:
            raise RuntimeError("unforeseen")
        if len(turns) == 3:
            done.set()
        return FAST

    async def run_feedback(name: str, services: Services) -> Pace:
        return FAST

    monkeypatch.setattr(cycle, "run_cycle", run_cycle)
    monkeypatch.setattr(cycle, "run_feedback", run_feedback)

    async def scenario() -> None:
        made = _control()

        async def body() -> None:
            while not turns:
                await asyncio.sleep(0)
            # The first one broke before it told its pace: the change of a spec wakes the next.
            made.wake("uid")
            await asyncio.wait_for(done.wait(), 5)

        await _run(made, body)

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())

    assert turns == ["cap"] * 3
    assert "unforeseen" in caplog.text


def test_feedback_runs_between_cycles_and_can_ask_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns: list[str] = []
    done = asyncio.Event()

    async def run_cycle(name: str, services: Services) -> Pace:
        turns.append("cycle")
        return Pace(interval_seconds=60.0, feedback_interval_seconds=0.01)

    async def run_feedback(name: str, services: Services) -> Pace:
        turns.append("feedback")
        if turns.count("cycle") == 2:
            done.set()
        is_wanted = turns.count("feedback") == 3
        return Pace(
            interval_seconds=60.0, feedback_interval_seconds=0.01, is_cycle_wanted=is_wanted
        )

    monkeypatch.setattr(cycle, "run_cycle", run_cycle)
    monkeypatch.setattr(cycle, "run_feedback", run_feedback)

    async def scenario() -> None:
        await _run(_control(), lambda: asyncio.wait_for(done.wait(), 5))

    asyncio.run(scenario())

    assert turns[:6] == ["cycle", "feedback", "feedback", "feedback", "cycle", "feedback"]


def test_a_restore_waits_for_the_cycle_and_no_cycle_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    started = asyncio.Event()

    async def run_cycle(name: str, services: Services) -> Pace:
        told.append("cycle begins")
        started.set()
        await asyncio.sleep(0.05)
        told.append("cycle ends")
        return FAST

    async def restore(item: Any, services: Services) -> tuple[Any, ...]:
        told.append("restored")
        return ()

    class Api:
        async def powercap(self, name: str) -> dict[str, Any]:
            return {}

    monkeypatch.setattr(cycle, "run_cycle", run_cycle)
    monkeypatch.setattr(cycle, "restore", restore)

    async def scenario() -> bool:
        api: Any = Api()
        nothing: Any = None
        made = Control(Services(kube=api, planner=nothing, clock=datetime.datetime.now))
        task = asyncio.create_task(made.run("cap", "uid", Stopper()))
        await started.wait()
        is_done = await made.release("cap", "uid")
        await asyncio.wait_for(task, 5)
        return is_done

    assert asyncio.run(scenario())
    assert told == ["cycle begins", "cycle ends", "restored"]


def test_missed_points_of_the_grid_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control.time, "monotonic", lambda: 1000.0)

    assert control._next(999.0, 60.0) == 1059.0
    assert control._next(850.0, 60.0) == 1030.0


def test_a_loop_that_stands_still_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _control()
    made._loops["uid"] = control.Loop()
    assert made.stale_loops() == []

    made._loops["uid"].last_turn_at -= 5 * 60 + control.STALE_SECONDS + 1

    assert made.stale_loops() == ["uid"]
    assert made.seconds_since_last_turn() > 400


@pytest.mark.parametrize(
    ("code", "error"),
    [
        pytest.param(404, MissingError, id="unknown path"),
        pytest.param(409, ConflictError, id="conflict"),
        pytest.param(500, ClusterError, id="server error"),
    ],
)
def test_the_servers_refusals_become_the_operators_errors(
    code: int, error: type[Exception]
) -> None:
    class Client:
        async def get(self, *_: Any, **__: Any) -> Any:
            request = httpx2.Request("GET", "http://test")
            response = httpx2.Response(code, request=request, text="no json")
            raise httpx2.HTTPStatusError("refused", request=request, response=response)

    client: Any = Client()
    with pytest.raises(error, match="PowerCap cap"):
        asyncio.run(Kube(client).powercap("cap"))


def test_a_call_that_takes_too_long_is_an_error_not_a_hang() -> None:
    class Client:
        async def get(self, *_: Any, **__: Any) -> Any:
            raise httpx2.ReadTimeout("")

    client: Any = Client()
    with pytest.raises(ClusterError, match="ReadTimeout"):
        asyncio.run(Kube(client).powercap("cap"))
