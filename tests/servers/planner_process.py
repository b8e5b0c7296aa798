"""The planner as its own process with its real entry point, and observations to feed it."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from control_plane import die_with_parent

from powercap_planner.config import ServeConfig
from powercap_planner.observations import ClusterObservation, DeploymentObservation, Reading
from powercap_planner.server import PlannerServer

START_SECONDS = 60.0
STOP_SECONDS = 15.0
ENTRY_POINT = Path(sys.executable).parent / "powercap-planner"


class PlannerProcess:
    """One ``powercap-planner``; use as a context manager.

    Args:
        arguments: of the command line; ``--listen`` is added when it is not among them.
        environment: variables on top of this process's own.
        command: the program, ``powercap-planner`` by default.
    """

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str | Path] = (ENTRY_POINT,),
    ) -> None:
        listen = () if "--listen" in arguments else ("--listen", "127.0.0.1:0")
        self._command = [str(one) for one in (*command, *arguments, *listen)]
        self._environment = {**os.environ, **(environment or {})}
        self._lines: queue.Queue[str] = queue.Queue()
        self.log: list[dict[str, Any]] = []
        """Events so far, in order."""
        self.other_output: list[str] = []
        """Lines on standard error that are no JSON."""
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    @property
    def target(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> PlannerProcess:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it listens.

        Raises:
            TimeoutError: it did not listen; what it wrote is in the message.
        """
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        self.port = int(self.wait_for("listening")["port"])

    def stop(self) -> int:
        """Ask the process to end, and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def kill(self) -> None:
        """Kill the process, as a node failure would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def wait_for(self, event: str, *, seconds: float = START_SECONDS) -> dict[str, Any]:
        """Return the next event of a name.

        Raises:
            TimeoutError: none came; what the process wrote is in the message.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if not line:
                break
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.other_output.append(line.rstrip())
                continue
            if self.log[-1].get("event") == event:
                return self.log[-1]
        raise TimeoutError(f"no {event!r} of {self._command}: {self.log} {self.other_output}")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as stream:
            for line in stream:
                self._lines.put(line)
        self._lines.put("")


class PlannerThread:
    """The same server in this process, on an event loop of its own: quicker to start.

    Args:
        settings: of ``ServeConfig``; ``listen`` is a free port.
    """

    def __init__(self, **settings: Any) -> None:
        self._server = PlannerServer(ServeConfig(listen="127.0.0.1:0", **settings))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def target(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self._server.port}"

    def __enter__(self) -> PlannerThread:
        self._thread.start()
        self._run(self._server.start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._server.stop(0))
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(START_SECONDS)


def sample_observation(
    *,
    end_seconds: float,
    windows: int = 288,
    step_seconds: float = 300.0,
    load_factor: float = 1.0,
    seed: int = 7,
) -> ClusterObservation:
    """Return a day of two deployments on H100s, at times saturated, and two parked GPUs.

    One replica draws 250 + 350 (1 - exp(-load/600)) W and carries 1,000 tokens/s.
    """
    random = np.random.default_rng(seed)
    time_seconds = end_seconds - step_seconds * np.arange(windows - 1, -1, -1.0)
    phase = 2 * np.pi * time_seconds / 86_400
    deployments = []
    total = np.full(windows, 2 * 70.0 + 400.0)
    for place, (name, replicas, mean) in enumerate((("alpha", 4, 3000.0), ("beta", 3, 2000.0))):
        load = mean * load_factor * (1 + 0.5 * np.sin(phase + place))
        load = load * random.normal(1.0, 0.03, windows)
        served = np.minimum(load, 1000.0 * replicas)
        each = served / replicas
        power = replicas * (250 + 350 * (1 - np.exp(-each / 600)))
        power = power * random.normal(1.0, 0.01, windows)
        total = total + power
        overload = load > served
        count = np.full(windows, float(replicas))
        deployments.append(
            DeploymentObservation(
                namespace="llm",
                name=name,
                gpu_type="NVIDIA H100 80GB HBM3",
                gpus_per_replica=1,
                power_watts=power,
                ready_replicas=count,
                present_replicas=count.copy(),
                arrived_tps=load,
                served_tps=served,
                running_requests=each / 50,
                waiting_requests=np.where(overload, 20.0, 0.0),
                ttft_p95_seconds=np.where(overload, 4.0, 0.3),
                itl_p95_seconds=np.full(windows, 0.03),
                min_replicas=1,
                max_replicas=replicas,
            )
        )
    return ClusterObservation(
        time_seconds=time_seconds,
        step_seconds=step_seconds,
        deployments=tuple(deployments),
        gpu_count={"NVIDIA H100 80GB HBM3": 9},
        parked_gpu_watts={"NVIDIA H100 80GB HBM3": 70.0},
        host_idle_watts=400.0,
        total_watts=total,
        measured=Reading(
            power_watts=float(total[-1]), measured_at_seconds=end_seconds, source="sample"
        ),
    )
