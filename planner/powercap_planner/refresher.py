"""The snapshot that plans are made from, kept fresh in the background.

Observing and fitting run in threads. A refresh that fails leaves the last good snapshot, whose
age grows; nothing is ever filled in.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from powercap_planner.clock import Clock
from powercap_planner.curves.fit import fit_models
from powercap_planner.curves.model import DeploymentModel
from powercap_planner.errors import DataMissingError, PowercapPlannerError, SourceError
from powercap_planner.observations import ClusterObservation
from powercap_planner.sources.protocol import MetricsSource
from powercap_planner.telemetry import event

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSettings:
    """How much is read, and how often."""

    history_seconds: float
    step_seconds: float
    refresh_seconds: float
    refit_seconds: float
    stale_after_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """One observation with the models fitted to it or shortly before."""

    number: int
    observation: ClusterObservation
    models: dict[str, DeploymentModel]
    fitted_at_seconds: float
    """End of the history the models were fitted to, Unix s."""
    observed_at_seconds: float
    """By the planning clock, Unix s."""
    taken_at_monotonic: float
    source_version: object


class Refresher:
    """Observes again every so often and keeps the last good snapshot.

    Args:
        source: where observations come from.
        clock: what now is.
        settings: how much and how often.
        source_version: tells when the source has changed and must be read before the next
            plan (a file); None where only time tells.
    """

    def __init__(
        self,
        *,
        source: MetricsSource,
        clock: Clock,
        settings: RefreshSettings,
        source_version: Callable[[], object] | None = None,
    ) -> None:
        self.source = source
        self.clock = clock
        self.settings = settings
        self.error: PowercapPlannerError | None = None
        """Why the last refresh failed; None when it did not."""
        self._source_version = source_version or (lambda: None)
        self._snapshot: Snapshot | None = None
        self._attempts = 0
        self._lock = asyncio.Lock()
        self._tried = asyncio.Event()

    @property
    def last_good(self) -> Snapshot | None:
        """The newest snapshot, whatever its age."""
        return self._snapshot

    async def run(self) -> None:
        """Refresh for ever; cancel to end."""
        while True:
            try:
                await self.refresh()
            except Exception:
                # The loop must live: the snapshot ages and says so.
                _logger.exception("refresh failed unexpectedly", extra=event("refresh_broken"))
            await asyncio.sleep(self.settings.refresh_seconds)

    async def refresh(self) -> None:
        """Observe once; on failure keep the last snapshot and remember why."""
        await self._refresh_since(None)

    async def _refresh_since(self, attempts: int | None) -> None:
        """Observe once, unless another attempt than the one known has ended meanwhile."""
        async with self._lock:
            if attempts is not None and attempts != self._attempts:
                return
            try:
                self._snapshot = await asyncio.to_thread(self._observe, self._snapshot)
                self.error = None
            except PowercapPlannerError as error:
                self.error = error
                _logger.warning("not observed: %s", error, extra=event("refresh_failed"))
            finally:
                self._attempts += 1
                self._tried.set()

    async def current(self) -> Snapshot:
        """Return a snapshot young enough to plan with.

        Raises:
            DataMissingError: an exporter that planning needs is missing.
            SourceError: the source does not answer and the last snapshot is too old.
        """
        await self._tried.wait()
        snapshot, attempts = self._snapshot, self._attempts
        if snapshot is None or snapshot.source_version != self._source_version():
            # Callers that wait together share one attempt.
            await self._refresh_since(attempts)
            snapshot = self._snapshot
        error = self.error
        if snapshot is None:
            raise error or SourceError(f"{self.source.name}: not observed yet")
        age = time.monotonic() - snapshot.taken_at_monotonic
        if age > self.settings.stale_after_seconds:
            if isinstance(error, DataMissingError):
                raise error
            raise SourceError(
                f"the last observation is {age:.0f} s old, more than "
                f"{self.settings.stale_after_seconds:.0f} s: {error or 'no newer one came'}"
            )
        return snapshot

    def _observe(self, last: Snapshot | None) -> Snapshot:
        started = time.monotonic()
        version = self._source_version()
        now = self.clock.now_seconds()
        observation = self.source.observe(
            now_seconds=now,
            history_seconds=self.settings.history_seconds,
            step_seconds=self.settings.step_seconds,
        )
        if not observation.time_seconds.size:
            raise SourceError(
                f"{self.source.name}: holds nothing of the last "
                f"{self.settings.history_seconds:.0f} s"
            )
        end = float(observation.time_seconds[-1])
        keys = {one.key for one in observation.deployments}
        if last is None or not keys <= last.models.keys() or self._is_due(end, last):
            models, fitted_at = fit_models(observation), end
            _logger.info(
                "fitted %d models",
                len(models),
                extra=event(
                    "fitted",
                    models={key: model.kind.value for key, model in sorted(models.items())},
                    seconds=round(time.monotonic() - started, 3),
                ),
            )
        else:
            models, fitted_at = last.models, last.fitted_at_seconds
        return Snapshot(
            number=0 if last is None else last.number + 1,
            observation=observation,
            models=models,
            fitted_at_seconds=fitted_at,
            observed_at_seconds=now,
            taken_at_monotonic=time.monotonic(),
            source_version=version,
        )

    def _is_due(self, end_seconds: float, last: Snapshot) -> bool:
        # By the data's own time: a replayed file may jump by hours, either way.
        return abs(end_seconds - last.fitted_at_seconds) >= self.settings.refit_seconds
