"""Plans and status for whoever asks: what the gRPC servicer is a thin face of.

Solving and measuring run in threads. Equal requests for the same snapshot share one plan while
it is being made, and for a few seconds after.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from powercap_planner.clock import Clock
from powercap_planner.errors import PowercapPlannerError
from powercap_planner.grid.series import CarbonProvider, PriceProvider
from powercap_planner.grid.weight import read_conditions
from powercap_planner.observations import Reading
from powercap_planner.outcome import PlanOutcome
from powercap_planner.planning import make_plan
from powercap_planner.recorder import Recorder
from powercap_planner.refresher import Refresher, Snapshot
from powercap_planner.request import CapSpec, PlanRequest
from powercap_planner.status import CapMeasurement, PlannerStatus
from powercap_planner.telemetry import event
from powercap_solver.settings import SolveSettings

SOLVE_SECONDS = 10.0
"""Most time a solve may take, s."""
SOLVE_SHARE_FRACTION = 0.7
"""Share of a caller's remaining time that the solve may take: the rest is for the answer."""
REUSE_SECONDS = 2.0
"""Equal requests and measurements within this time share one answer, s."""
SOLVERS = 2
"""Plans made at the same time; more wait."""

_logger = logging.getLogger(__name__)
_Key = TypeVar("_Key")
_Answer = TypeVar("_Answer")
_Answers = dict[_Key, tuple[float, asyncio.Task[_Answer]]]
"""By what was asked: when it was begun, monotonic s, and the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Providers of price and carbon, and the zone of requests that name none."""

    zone: str = ""
    price: PriceProvider | None = None
    carbon: CarbonProvider | None = None


class PlannerService:
    """Answers requests from the refresher's snapshot."""

    def __init__(
        self, *, refresher: Refresher, clock: Clock, grid: Grid, recorder: Recorder | None = None
    ) -> None:
        self._refresher = refresher
        self._clock = clock
        self._grid = grid
        self._recorder = recorder
        self._solvers = ThreadPoolExecutor(SOLVERS, thread_name_prefix="solve")
        self._plans: _Answers[tuple[object, ...], PlanOutcome] = {}
        self._readings: _Answers[float, Reading | None] = {}

    async def plan(
        self, request: PlanRequest, *, time_left: Callable[[], float | None] = lambda: None
    ) -> PlanOutcome:
        """Return a plan within the caller's time.

        Args:
            request: what is asked.
            time_left: seconds until the caller's deadline, asked when the solve begins; None
                without one.

        Raises:
            RequestError: the request names what nobody knows.
            DataMissingError: measurements that planning needs are missing.
            SourceError: the source has been silent for too long.
        """
        snapshot = await self._refresher.current()
        limit, seconds_left = SOLVE_SECONDS, time_left()
        if seconds_left is not None:
            limit = max(0.1, min(limit, SOLVE_SHARE_FRACTION * seconds_left))
        zoned = replace(request, grid_zone=request.grid_zone or self._grid.zone)
        key = (snapshot.number, limit == SOLVE_SECONDS, zoned)
        now = time.monotonic()
        self._plans = _usable(self._plans, now)
        if key not in self._plans:
            task = asyncio.create_task(self._make_plan(snapshot, zoned, limit))
            self._plans[key] = (now, task)
        # Shielded: one caller that hangs up must not take the plan from the others.
        return await asyncio.shield(self._plans[key][1])

    async def status(self, caps: tuple[CapSpec, ...]) -> PlannerStatus:
        """Return what is measured against each cap; what is not measured says why."""
        now = await asyncio.to_thread(self._clock.now_seconds)
        measured = [await self._measured(cap, now) for cap in caps]
        snapshot, error = self._refresher.last_good, self._refresher.error
        return PlannerStatus(
            now_seconds=now,
            caps=tuple(measured),
            source_name=self._refresher.source.name,
            source_error="" if error is None else str(error),
            observed_at_seconds=None if snapshot is None else snapshot.observed_at_seconds,
            models={} if snapshot is None else snapshot.models,
            findings=() if snapshot is None else snapshot.observation.findings,
        )

    def close(self) -> None:
        """Let running solves end, start no more."""
        self._solvers.shutdown(wait=False, cancel_futures=True)

    async def _make_plan(
        self, snapshot: Snapshot, request: PlanRequest, limit_seconds: float
    ) -> PlanOutcome:
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        outcome = await loop.run_in_executor(
            self._solvers, self._plan_now, snapshot, request, limit_seconds
        )
        _log_plan(outcome, seconds=time.monotonic() - started)
        return outcome

    def _plan_now(
        self, snapshot: Snapshot, request: PlanRequest, limit_seconds: float
    ) -> PlanOutcome:
        now = self._clock.now_seconds()
        grid = read_conditions(
            price=self._grid.price,
            carbon=self._grid.carbon,
            zone=request.grid_zone,
            now_seconds=now,
        )
        outcome = make_plan(
            observation=snapshot.observation,
            models=snapshot.models,
            grid=grid,
            request=request,
            now_seconds=now,
            solve_settings=SolveSettings(deadline_seconds=limit_seconds),
        )
        if self._recorder is not None:
            self._recorder.record(outcome)
        return outcome

    async def _measured(self, cap: CapSpec, now_seconds: float) -> CapMeasurement:
        reason = ""
        try:
            reading = await self._reading(cap.window_seconds, now_seconds)
        except PowercapPlannerError as error:
            reading, reason = None, str(error)
        if reading is None:
            return CapMeasurement(
                cap=cap,
                measured_watts=None,
                measured_at_seconds=None,
                age_seconds=None,
                source=self._refresher.source.name,
                reason=reason or "not all GPUs and hosts are measured",
            )
        age = max(0.0, now_seconds - reading.measured_at_seconds)
        limit = self._refresher.settings.stale_after_seconds
        watts = reading.power_watts * cap.overhead_factor + cap.fixed_overhead_watts
        return CapMeasurement(
            cap=cap,
            measured_watts=watts if age <= limit else None,
            measured_at_seconds=reading.measured_at_seconds,
            age_seconds=age,
            source=reading.source,
            reason="" if age <= limit else f"last measured {age:.0f} s ago, more than {limit:.0f}",
        )

    async def _reading(self, window_seconds: float, now_seconds: float) -> Reading | None:
        now = time.monotonic()
        self._readings = _usable(self._readings, now)
        if window_seconds not in self._readings:
            work = asyncio.to_thread(
                self._refresher.source.measure,
                now_seconds=now_seconds,
                window_seconds=window_seconds,
            )
            self._readings[window_seconds] = (now, asyncio.create_task(work))
        return await asyncio.shield(self._readings[window_seconds][1])


def _usable(answers: _Answers[_Key, _Answer], now: float) -> _Answers[_Key, _Answer]:
    """Return the answers that are being made or were made just now."""
    return {
        key: (made, task)
        for key, (made, task) in answers.items()
        if now - made < REUSE_SECONDS or not task.done()
    }


def _log_plan(outcome: PlanOutcome, *, seconds: float) -> None:
    cap, plan = outcome.caps[0], outcome.plan
    gap = max((stage.gap for stage in plan.stages), default=float("nan"))
    served = sum(one.served_tps for one in outcome.targets)
    _logger.info(
        "plan %s: %.0f of %.0f W charged, %.0f tokens/s served, %s by %s",
        outcome.plan_id,
        cap.charged_watts,
        cap.cap_watts,
        served,
        plan.status.value,
        plan.rung,
        extra=event(
            "planned",
            plan_id=outcome.plan_id,
            cap_watts=cap.cap_watts,
            charged_watts=cap.charged_watts,
            planned_watts=cap.planned_watts,
            headroom_watts=cap.headroom_watts,
            served_tps=served,
            status=plan.status.value,
            rung=plan.rung,
            gap=gap,
            seconds=round(seconds, 3),
            replicas={
                f"{one.namespace}/{one.name}": [one.replicas_now, one.replicas, one.reason]
                for one in outcome.targets
            },
        ),
    )
