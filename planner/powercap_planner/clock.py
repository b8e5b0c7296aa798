"""What time it is for planning: the real time, or that of a replayed file."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from powercap_planner.errors import InputFileError
from powercap_planner.sources.files import read_observation


class Clock(Protocol):
    """Tells the moment against which the age of measurements is judged."""

    def now_seconds(self) -> float:
        """Return Unix time, s."""


class SystemClock:
    """The real time."""

    def now_seconds(self) -> float:
        """Return Unix time, s."""
        return time.time()


class FileClock:
    """The last time of an observation file, however long ago that is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[object, float] | None = None

    def now_seconds(self) -> float:
        """Return Unix time, s; read again when the file changes, as before while it is broken.

        Raises:
            InputFileError: the file could never be used.
        """
        mark = fingerprint(self._path)
        if self._seen is None:
            self._seen = (mark, float(read_observation(self._path).time_seconds[-1]))
        elif self._seen[0] != mark:
            with suppress(InputFileError):
                self._seen = (mark, float(read_observation(self._path).time_seconds[-1]))
        return self._seen[1]


def fingerprint(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is rewritten or replaced; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
