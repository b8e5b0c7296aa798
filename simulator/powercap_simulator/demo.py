"""``powercap demo``: a day of an emulated cluster under a power cap, from measuring to acting.

One emulated day is history. The planner, a process of its own, learns from it and plans over gRPC;
the next day runs under its plans, with a demand-response event in the afternoon. The same day
without any cap is emulated beside it.
"""

from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from powercap_planner.cli.tables import print_plan
from powercap_planner.convert import request_from_message
from powercap_planner.curves.fit import fit_models
from powercap_planner.errors import PowercapPlannerError
from powercap_planner.grid.weight import read_conditions
from powercap_planner.observations import ClusterObservation
from powercap_planner.planning import make_plan
from powercap_planner.sources.files import read_observation, write_observation
from powercap_proto.client import PlannerClient, PlannerError
from powercap_proto.v1 import planner_pb2 as pb
from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.control import CapEvent, CappedCluster, CapSchedule, PlannedCycle
from powercap_simulator.demo_report import plan_rows, print_course, print_models
from powercap_simulator.errors import PowercapSimulatorError
from powercap_simulator.history import WindowedHistory
from powercap_simulator.outcome import course_of
from powercap_simulator.planner_process import PlannerProcess
from powercap_simulator.scenario import Scenario, mixed_scenario
from powercap_simulator.workload import DAY_SECONDS
from powercap_solver.files import plan_to_json, problem_to_json

HOUR_SECONDS = 3600.0
PLAN_SECONDS = 1800.0
"""Between two plans; at an event's edges there is one more."""
LEAD_SECONDS = 300.0
"""An event's own plan is made this long before it starts: pods need time to go."""
TEST_SECONDS = 2400.0
"""How long the capacity test holds a deployment at one replica."""
HISTORY_SECONDS = DAY_SECONDS + HOUR_SECONDS
"""What the planner is shown: yesterday at this time is in it."""
EVENT_HOURS = (15.0, 18.0)
EVENT_SHARE = 0.7
"""The event cuts the cap by 30 %."""
DEFAULT_CAP_WATTS = 18_500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What the demo writes."""

    observation: Path
    problem: Path
    plan: Path
    picture: Path
    log: Path


def command(
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path(
        "out/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal days.")] = 1,
    cap: Annotated[
        float, typer.Option(min=1.0, help="Cap outside the demand-response event, W.")
    ] = DEFAULT_CAP_WATTS,
) -> None:
    """Emulate two days of a mixed GPU cluster: one to learn from, one under a power cap.

    Needs no server and no root. Starts the planner as its own process, asks it for plans over
    gRPC every virtual half hour, and applies them as the operator does. Writes the
    observations, the problem and plan of the demand-response event, and a picture of the day.
    """
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=150)
    try:
        run(console, out=out, seed=seed, cap_watts=cap)
    except (PowercapSimulatorError, PowercapPlannerError, PlannerError, OSError) as error:
        typer.echo(f"powercap demo: {error}", err=True)
        raise typer.Exit(1) from error


def run(console: Console, *, out: Path, seed: int, cap_watts: float) -> Files:
    """Run the demo and return the files it wrote.

    Raises:
        PowercapSimulatorError: the planner could not be started.
        PlannerError: the planner gave no plan.
    """
    began = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    files = Files(
        observation=out / "observation.json",
        problem=out / "problem.json",
        plan=out / "plan.json",
        picture=out / "day.png",
        log=out / "planner.log",
    )
    scenario = mixed_scenario()
    _describe(console, scenario)
    cluster = SimulatedCluster(scenario, seed=seed)
    _learning_day(cluster)
    midnight = cluster.now_seconds
    free = copy.deepcopy(cluster)
    history = WindowedHistory(cluster)
    learned = history.observe(window_seconds=HISTORY_SECONDS)
    write_observation(files.observation, learned)
    _say(
        console,
        began,
        "one day emulated and observed; at its busiest hour each deployment was held at one "
        f"replica for {TEST_SECONDS / 60:.0f} min, so that its saturation was seen",
    )

    schedule = _schedule(midnight, cap_watts)
    with (
        ThreadPoolExecutor(1) as beside,
        PlannerProcess(files.observation, log=files.log, refit_seconds=10 * DAY_SECONDS) as planner,
        PlannerClient(planner.address) as client,
    ):
        # Runs while the planner thinks; it shares nothing with the controlled day.
        uncapped = beside.submit(free.step, DAY_SECONDS)
        capped = CappedCluster(cluster, schedule=schedule, ask=client.calculate_optimal_replicas)
        day = _Day(
            console=console,
            capped=capped,
            history=history,
            files=files,
            learned=learned,
            began=began,
        )
        _say(console, began, f"planner started as its own process at {planner.address}")
        times = _plan_times(midnight, schedule)
        day.plan(times[1])
        print_models(console, client.get_status(pb.GetStatusRequest()))
        day.run(times, schedule)
        uncapped.result()
    _say(console, began, f"{len(capped.cycles)} plans over gRPC, {_answer_times(capped.cycles)}")
    _say(console, began, "the same day without any cap was emulated beside it")

    under = course_of(cluster, since_seconds=midnight)
    without = course_of(free, since_seconds=midnight)
    # Here, not at the top: every call of the command line imports this module.
    from powercap_simulator.picture import draw_day

    print_course(console, capped=under, free=without, schedule=schedule)
    draw_day(files.picture, capped=under, free=without, schedule=schedule, cycles=capped.cycles)
    _name_files(console, files)
    _say(console, began, "done")
    return files


class _Day:
    """The controlled day, with the plan tables before and at the event."""

    def __init__(
        self,
        *,
        console: Console,
        capped: CappedCluster,
        history: WindowedHistory,
        files: Files,
        learned: ClusterObservation,
        began: float,
    ) -> None:
        self._console = console
        self._capped = capped
        self._history = history
        self._files = files
        self._learned = learned
        self._began = began

    def plan(self, next_seconds: float) -> PlannedCycle:
        """Ask for the plan from now until ``next_seconds``."""
        now = self._capped.cluster.now_seconds
        return self._capped.plan(until_next_seconds=next_seconds - now)

    def run(self, times: list[float], schedule: CapSchedule) -> None:
        """Run to the last of ``times``; the plan of the first has been made."""
        cluster = self._capped.cluster
        self._capped.advance(times[1] - times[0])
        for now, until in pairwise(times[1:]):
            observation = self._history.observe(window_seconds=HISTORY_SECONDS)
            write_observation(self._files.observation, observation)
            before = self._capped.cycles[-1]
            cycle = self.plan(until)
            if cycle.request.power_cap_watts < before.request.power_cap_watts:
                starts = _clock(schedule.events[0].start_seconds)
                self._show(before, "Plan before the event")
                self._show(cycle, f"Plan for the event that starts at {starts}")
                self._save(cycle)
            elif (now - times[0]) % (3 * HOUR_SECONDS) == 0:
                self._tell(cycle)
            self._capped.advance(until - cluster.now_seconds)

    def _tell(self, cycle: PlannedCycle) -> None:
        cap = cycle.response.caps[0]
        allowed = sum(one.optimal_replicas for one in cycle.response.deployment_replicas)
        watts = self._capped.cluster.last.measured_watts
        status = cycle.response.status
        doubt = "" if status == "optimal" else f" ({status})"
        _say(
            self._console,
            self._began,
            f"{_clock(cycle.time_seconds)}: {watts:,.0f} W measured, {allowed} replicas allowed, "
            f"{cap.charged_watts:,.0f} W charged of {cap.cap_watts:,.0f} W{doubt}",
        )

    def _show(self, cycle: PlannedCycle, title: str) -> None:
        self._console.print()
        rows = plan_rows(cycle)
        print_plan(self._console, rows, title=f"{title}: {_clock(cycle.time_seconds)}")
        self._console.print()

    def _save(self, cycle: PlannedCycle) -> None:
        """Save problem and plan: made again offline, since the gRPC answer carries neither.

        Raises:
            PowercapSimulatorError: when the offline plan is another than the one from gRPC.
        """
        observation = read_observation(self._files.observation)
        now = float(observation.time_seconds[-1])
        outcome = make_plan(
            observation=observation,
            # The planner fitted its curves once, to the day before.
            models=fit_models(self._learned),
            grid=read_conditions(price=None, carbon=None, zone="", now_seconds=now),
            request=request_from_message(cycle.request),
            now_seconds=now,
        )
        offline = {f"{one.namespace}/{one.name}": one.replicas for one in outcome.targets}
        answered = {
            f"{one.namespace}/{one.name}": one.optimal_replicas
            for one in cycle.response.deployment_replicas
        }
        if offline != answered:
            raise PowercapSimulatorError(
                f"the offline plan {offline} is not the one from gRPC {answered}"
            )
        self._files.problem.write_text(problem_to_json(outcome.problem), encoding="utf-8")
        self._files.plan.write_text(plan_to_json(outcome.plan), encoding="utf-8")


def _schedule(midnight_seconds: float, cap_watts: float) -> CapSchedule:
    start, end = (midnight_seconds + hour * HOUR_SECONDS for hour in EVENT_HOURS)
    event = CapEvent(start_seconds=start, end_seconds=end, cap_watts=EVENT_SHARE * cap_watts)
    return CapSchedule(cap_watts=cap_watts, events=(event,))


def _plan_times(midnight_seconds: float, schedule: CapSchedule) -> list[float]:
    """Return when plans are made, and the end of the day."""
    regular = [
        midnight_seconds + step * PLAN_SECONDS for step in range(int(DAY_SECONDS // PLAN_SECONDS))
    ]
    edges = [
        moment
        for event in schedule.events
        for moment in (event.start_seconds - LEAD_SECONDS, event.end_seconds)
    ]
    return [*sorted({*regular, *edges}), midnight_seconds + DAY_SECONDS]


def _learning_day(cluster: SimulatedCluster) -> None:
    """Emulate a day in which each deployment is once held at one replica, at its busiest hour.

    Below its maximum an autoscaler never lets a replica saturate; what nobody has seen the planner
    must charge by nameplate.
    """
    begin = cluster.now_seconds
    times = begin + np.arange(0.0, DAY_SECONDS, TEST_SECONDS / 4)
    moments: list[tuple[float, int, bool]] = []
    for index, spec in enumerate(cluster.scenario.deployments):
        busiest = float(times[np.argmax(spec.workload.rate_rps(times))])
        start = min(max(begin, busiest - TEST_SECONDS / 2), begin + DAY_SECONDS - TEST_SECONDS)
        moments += [(start, index, True), (start + TEST_SECONDS, index, False)]
    for moment, index, is_held in sorted(moments):
        cluster.step(moment - cluster.now_seconds)
        spec = cluster.scenario.deployments[index]
        held = max(1, spec.min_replicas)
        cluster.set_max_replicas(spec.key, held if is_held else spec.max_replicas)
    cluster.step(begin + DAY_SECONDS - cluster.now_seconds)


def _describe(console: Console, scenario: Scenario) -> None:
    gpus = ", ".join(f"{count} x {name}" for name, count in scenario.gpu_count.items())
    console.print(
        f"Emulated cluster: {len(scenario.deployments)} deployments on {gpus}", highlight=False
    )


def _answer_times(cycles: list[PlannedCycle]) -> str:
    times = sorted(cycle.answer_seconds for cycle in cycles)
    return f"median answer {times[len(times) // 2] * 1000:.0f} ms"


def _name_files(console: Console, files: Files) -> None:
    console.print()
    for path, what in (
        (files.picture, "watts against the cap, and tokens, over the day"),
        (files.problem, "planning problem of the event"),
        (files.plan, "its plan with the certificate"),
        (files.observation, "the planner's last input"),
        (files.log, "the planner's log"),
    ):
        console.print(f"{path}: {what}", highlight=False, soft_wrap=True)
    console.print(
        f"check it: powercap verify {files.problem} {files.plan}", highlight=False, soft_wrap=True
    )


def _say(console: Console, began: float, text: str) -> None:
    console.print(f"[{time.perf_counter() - began:5.1f} s] {text}", markup=False, highlight=False)


def _clock(time_seconds: float) -> str:
    return f"{datetime.fromtimestamp(time_seconds, tz=UTC):%H:%M}"
