"""Keeps the problem and the plan of every answer as files, for ``powercap verify`` and audits."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from powercap_planner.errors import InputFileError
from powercap_planner.outcome import PlanOutcome
from powercap_planner.telemetry import event
from powercap_solver.files import plan_to_json, problem_to_json

KEPT_PLANS = 1000
"""Older plans than the newest so many are removed."""

_logger = logging.getLogger(__name__)


class Recorder:
    """Writes ``<plan id>.problem.json`` and ``<plan id>.plan.json`` into a folder.

    Args:
        folder: made when it does not exist.
        kept_plans: how many plans stay.

    Raises:
        InputFileError: the folder cannot be made.
    """

    def __init__(self, folder: Path, *, kept_plans: int = KEPT_PLANS) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputFileError(f"record: {folder} cannot be made: {error.strerror}") from error
        self._folder = folder
        self._kept_plans = kept_plans

    def record(self, outcome: PlanOutcome) -> None:
        """Write both files; a full disk costs the record, not the plan."""
        try:
            # The plan comes last: where it is, the problem is whole.
            self._write(f"{outcome.plan_id}.problem.json", problem_to_json(outcome.problem))
            self._write(f"{outcome.plan_id}.plan.json", plan_to_json(outcome.plan))
            self._prune()
        except OSError as error:
            _logger.warning(
                "plan %s is not recorded: %s",
                outcome.plan_id,
                error,
                extra=event("record_failed", plan_id=outcome.plan_id),
            )

    def _write(self, name: str, text: str) -> None:
        part = self._folder / f".{name}.part"
        part.write_text(text, encoding="utf-8")
        os.replace(part, self._folder / name)

    def _prune(self) -> None:
        plans = sorted(self._folder.glob("*.plan.json"), key=lambda path: path.stat().st_mtime_ns)
        for plan in plans[: -self._kept_plans]:
            plan.unlink(missing_ok=True)
            problem = plan.name.replace(".plan.json", ".problem.json")
            (self._folder / problem).unlink(missing_ok=True)
