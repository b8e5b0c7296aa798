"""The planner as a process of its own, started with its real entry point."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from powercap_simulator.errors import PlannerProcessError

START_SECONDS = 30.0
STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05


class PlannerProcess:
    """Runs ``powercap-planner`` on an observation file; its clock is the file's last time.

    Its log, JSON lines, goes to a file; the port is read from there.
    """

    def __init__(self, observations: Path, *, log: Path, refit_seconds: float) -> None:
        """Prepare; the process begins with ``start``."""
        self.address = ""
        """``host:port``, once started."""
        self._log = log
        self._command = [
            # What the console script powercap-planner does, wherever that is installed.
            *(sys.executable, "-c", "from powercap_planner.server import main; main()"),
            *("--listen", "127.0.0.1:0"),
            *("--observations", str(observations), "--observations-clock", "file"),
            *("--refit-seconds", str(refit_seconds)),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it listens.

        Raises:
            PlannerProcessError: it ended, or did not listen in time.
        """
        with self._log.open("wb") as stream:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.address:
            if self._process.poll() is not None:
                raise PlannerProcessError(
                    f"the planner ended with {self._process.returncode}: {self._last_lines()}"
                )
            if time.monotonic() > deadline:
                self.stop()
                raise PlannerProcessError(f"the planner did not listen in {START_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
            self._find_port()
        return self

    def stop(self) -> None:
        """End it, by force if it does not end by itself."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _find_port(self) -> None:
        for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(entry, dict) and entry.get("event") == "listening":
                self.address = f"127.0.0.1:{entry['port']}"

    def _last_lines(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace").strip()
        return " | ".join(text.splitlines()[-3:]) or "no log"
