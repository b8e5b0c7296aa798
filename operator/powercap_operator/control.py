"""The loop of each PowerCap: full cycles on a sharp grid, looks at the meter in between.

One loop per PowerCap, inside kopf's daemon. It must live: whatever goes wrong in a cycle is
logged, and the next one comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from powercap_operator import cycle
from powercap_operator.cycle import Pace, Services
from powercap_operator.errors import ClusterError, MissingError

logger = logging.getLogger(__name__)

STALE_SECONDS = 180.0
"""A loop silent for this long beyond five of its intervals is taken for dead."""
CYCLE_LIMIT_SECONDS = 300.0


class Stopper(Protocol):
    """kopf's flag that a daemon must end."""

    def __bool__(self) -> bool:
        """Tell whether to end."""

    async def wait(self, timeout: float | None = None) -> object:
        """Wait for it."""


@dataclass(slots=True)
class Loop:
    """One PowerCap's loop."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while anything is written, so that a restore never meets a cycle."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    is_ended: bool = False
    pace: Pace = field(default_factory=Pace)
    last_turn_at: float = field(default_factory=time.monotonic)


class Control:
    """All loops of one process."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._loops: dict[str, Loop] = {}

    async def run(self, name: str, uid: str, stopped: Stopper) -> None:
        """Run the loop of one PowerCap until it is stopped."""
        loop = self._loops.setdefault(uid, Loop())
        next_cycle_at = time.monotonic()
        try:
            while not stopped and not loop.is_ended:
                loop.last_turn_at = time.monotonic()
                is_woken = loop.wake.is_set()
                loop.wake.clear()
                if is_woken or time.monotonic() >= next_cycle_at:
                    # A cycle out of turn begins a grid of its own, or the next would be late.
                    began_at = time.monotonic() if is_woken else next_cycle_at
                    await self._turn(name, loop, cycle.run_cycle)
                    next_cycle_at = _next(began_at, loop.pace.interval_seconds)
                else:
                    await self._turn(name, loop, cycle.run_feedback)
                    if loop.pace.is_cycle_wanted:
                        loop.wake.set()
                until_cycle = next_cycle_at - time.monotonic()
                pause = max(0.0, min(until_cycle, loop.pace.feedback_interval_seconds))
                await _pause(loop.wake, stopped, pause)
        finally:
            self._loops.pop(uid, None)

    def wake(self, uid: str) -> None:
        """Ask for a full cycle at once: the spec changed."""
        if loop := self._loops.get(uid):
            loop.wake.set()

    async def release(self, name: str, uid: str) -> bool:
        """Restore every target of a PowerCap that is being deleted; its loop writes no more.

        Returns:
            Whether all is restored; if not, ask again later.
        """
        loop = self._loops.get(uid) or Loop()
        async with loop.lock:
            loop.is_ended = True
            try:
                item = await self.services.kube.powercap(name)
                outcomes = await cycle.restore(item, self.services)
            except MissingError:
                return True
            except ClusterError as error:
                logger.warning("PowerCap %s: not restored yet: %s", name, error)
                return False
        return all(outcome.is_applied for outcome in outcomes)

    def stale_loops(self) -> list[str]:
        """Return the loops that stopped turning."""
        now = time.monotonic()
        return [
            uid
            for uid, loop in self._loops.items()
            if now - loop.last_turn_at > 5 * loop.pace.interval_seconds + STALE_SECONDS
        ]

    def seconds_since_last_turn(self) -> float:
        """Return the age of the oldest loop's last turn, s; 0 without a loop."""
        now = time.monotonic()
        return max((now - loop.last_turn_at for loop in self._loops.values()), default=0.0)

    async def _turn(
        self, name: str, loop: Loop, body: Callable[[str, Services], Awaitable[Pace]]
    ) -> None:
        try:
            async with loop.lock, asyncio.timeout(CYCLE_LIMIT_SECONDS):
                if not loop.is_ended:
                    loop.pace = await body(name, self.services)
        except TimeoutError:
            logger.error("PowerCap %s: a cycle took over %.0f s", name, CYCLE_LIMIT_SECONDS)
        except Exception:
            # The loop must live: without it nothing would shed or fall back.
            logger.exception("PowerCap %s: a cycle failed", name)


def _next(planned_at: float, interval_seconds: float) -> float:
    """Return the next point of the grid; points that were missed are left out."""
    missed = max(0.0, time.monotonic() - planned_at) // interval_seconds
    return planned_at + (missed + 1) * interval_seconds


async def _pause(wake: asyncio.Event, stopped: Stopper, seconds: float) -> None:
    tasks = [asyncio.ensure_future(wake.wait()), asyncio.ensure_future(stopped.wait())]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
