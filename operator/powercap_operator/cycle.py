"""One cycle of one PowerCap: observe, ask, decide, remember, write, report.

Only this module joins the parts; what is decided is decided in ``decision``.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from powercap_operator import actuate, convert, events, report, status
from powercap_operator.actuate import Outcome
from powercap_operator.decision import (
    Decision,
    Failure,
    FailureKind,
    Situation,
    decide,
    decide_shedding,
    is_over_cap,
)
from powercap_operator.errors import (
    ClusterError,
    ConflictError,
    MissingError,
    PlanError,
)
from powercap_operator.kube import Item, Kube
from powercap_operator.plan import CapPlan, Measurement
from powercap_operator.policy import Cap, Governing, PowerCapSpec, Rollout, read_governing
from powercap_operator.rollout import Step, StepReason
from powercap_operator.world import World, observe, observe_for_release
from powercap_proto.client import (
    PlannerError,
    PlannerNotReady,
    PlannerRefused,
    PlannerUnavailable,
)
from powercap_proto.v1 import planner_pb2

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""A PowerCap may be edited while its cycle runs: start over, a few times."""


class Planner(Protocol):
    """What the operator asks of the planner."""

    async def calculate_optimal_replicas(
        self, request: planner_pb2.CalculateOptimalReplicasRequest
    ) -> planner_pb2.CalculateOptimalReplicasResponse:
        """Return a plan."""

    async def get_status(
        self, request: planner_pb2.GetStatusRequest
    ) -> planner_pb2.GetStatusResponse:
        """Return what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What a cycle needs of the outside."""

    kube: Kube
    planner: Planner
    clock: Callable[[], datetime.datetime]
    settle_seconds: float = 60.0
    """From a lowering to the end of its pods and the next scrape, s."""
    interval_seconds: float | None = None
    """Overrides the interval of every PowerCap, s; None: their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When to look again, s."""

    interval_seconds: float = 60.0
    feedback_interval_seconds: float = 15.0
    is_cycle_wanted: bool = False
    """A full cycle should come at once."""


async def run_cycle(name: str, services: Services) -> Pace:
    """Run one full cycle; every failure of the outside ends as a condition or in the log."""
    return await _until_settled(name, services, _full_cycle)


async def run_feedback(name: str, services: Services) -> Pace:
    """Look at the meter between cycles, and shed when it is above the cap."""
    return await _until_settled(name, services, _feedback_cycle)


async def restore(item: Item, services: Services) -> tuple[Outcome, ...]:
    """Give every target its user's own maximum back.

    Raises:
        ClusterError: the targets cannot be read.
    """
    world = await observe_for_release(services.kube, item, now=services.clock())
    outcomes = await actuate.apply(services.kube, _restoring(world), world.by_key)
    await _post(
        services, world, events.of_steps(world.subject, _applied(outcomes), _subjects(world))
    )
    return outcomes


async def _until_settled(
    name: str, services: Services, body: Callable[[Item, Governing, Services], Any]
) -> Pace:
    for _ in range(ATTEMPTS):
        try:
            item = await services.kube.powercap(name)
        except MissingError:
            return Pace()
        if item["metadata"].get("deletionTimestamp"):
            return Pace()
        read = read_governing(item)
        governing = replace(read, spec=_paced(read.spec, services.interval_seconds))
        pace = Pace(
            interval_seconds=governing.spec.interval_seconds,
            feedback_interval_seconds=governing.spec.feedback_interval_seconds,
        )
        try:
            is_cycle_wanted = await body(item, governing, services)
        except ConflictError:
            continue
        except MissingError:
            return pace
        except ClusterError as error:
            logger.warning("PowerCap %s: %s", name, error)
            await _refuse(item, services, reason="ClusterError", message=str(error))
            return pace
        return replace(pace, is_cycle_wanted=bool(is_cycle_wanted))
    logger.info(
        "PowerCap %s changed %d times in its cycle; the next one tries again", name, ATTEMPTS
    )
    return pace


def _paced(spec: PowerCapSpec, interval_seconds: float | None) -> PowerCapSpec:
    if interval_seconds is None:
        return spec
    feedback = min(spec.feedback_interval_seconds, interval_seconds)
    return replace(spec, interval_seconds=interval_seconds, feedback_interval_seconds=feedback)


async def _full_cycle(item: Item, governing: Governing, services: Services) -> bool:
    world = await observe(services.kube, item, governing=governing, now=services.clock())
    plan, failure = await _ask(world, services)
    measurement, silence = await _measure(world.spec.cap, services)
    if not world.targets or world.refusal:
        failure = silence
    elif failure is not None and failure.kind is FailureKind.UNREACHABLE and silence is None:
        # It answers here, so it is there: what it cannot reach are its metrics.
        failure = replace(failure, kind=FailureKind.NOT_READY)
    now = services.clock()
    situation = _situation(replace(world, now=now), services, plan, failure, measurement)
    decision = decide(situation)
    if not world.refusal:
        decision = replace(decision, steps=(*_restoring(world), *decision.steps))
    await _carry_out(replace(world, now=now), situation, decision, services)
    return False


async def _feedback_cycle(item: Item, governing: Governing, services: Services) -> bool:
    measurement, failure = await _measure(governing.spec.cap, services)
    now = services.clock()
    empty = World(
        item=item,
        spec=governing.spec,
        memory=status.read_memory(item.get("status") or {}),
        targets=(),
        released=(),
        problems=(),
        now=now,
        refusal=governing.refusal,
    )
    situation = _situation(empty, services, None, failure, measurement)
    was_unreachable = _was_unreachable(item)
    if not is_over_cap(situation):
        await _write_status(item, report.feedback(item, situation), services)
        return was_unreachable and failure is None
    world = await observe(services.kube, item, governing=governing, now=now)
    situation = replace(situation, targets=world.targets)
    decision = decide_shedding(situation)
    if decision.steps:
        item = await _write_status(item, report.intent(world, situation, decision), services)
        world = replace(world, item=item)
    outcomes = await actuate.apply(services.kube, decision.steps, world.by_key)

    def after(item: Item) -> dict[str, Any]:
        shown = report.feedback(item, situation)
        if outcomes:
            full = report.final(replace(world, item=item), situation, decision, outcomes)
            shown |= {"targets": full["targets"], **report.lowered(situation, decision)}
        return shown

    await _report(item, after, services)
    await _tell(world, situation, decision, outcomes, services)
    return False


async def _carry_out(
    world: World, situation: Situation, decision: Decision, services: Services
) -> None:
    if decision.steps:
        # Before the first write: a crash in between must not lose a user's own maximum, and of
        # two operators only the one whose status lands goes on.
        before = report.intent(world, situation, decision)
        world = replace(world, item=await _write_status(world.item, before, services))
    outcomes = await actuate.apply(services.kube, decision.steps, world.by_key)
    await _report(
        world.item,
        lambda item: report.final(replace(world, item=item), situation, decision, outcomes),
        services,
    )
    await _tell(world, situation, decision, outcomes, services)


async def _report(item: Item, build: Callable[[Item], dict[str, Any]], services: Services) -> None:
    try:
        await _write_status(item, build(item), services)
    except ConflictError:
        # The steps are out and the intent remembers them: report over whatever came in between.
        fresh = await services.kube.powercap(item["metadata"]["name"])
        await _write_status(fresh, build(fresh), services)


async def _ask(world: World, services: Services) -> tuple[CapPlan | None, Failure | None]:
    if not world.targets or world.refusal:
        return None, None
    request = convert.plan_request(
        world.spec,
        world.targets,
        charges=world.charges,
        is_plan_in_force=world.spec.rollout is Rollout.AUTO and world.memory.in_force is not None,
    )
    try:
        response = await services.planner.calculate_optimal_replicas(request)
        now = services.clock()
        plan = convert.read_plan(response, cap=world.spec.cap, charges=world.charges, now=now)
        return plan, None
    except (PlannerError, PlanError) as error:
        failure = _failure(error)
        logger.warning("PowerCap %s: %s: %s", world.name, failure.kind.value, failure.message)
        return None, failure


async def _measure(cap: Cap, services: Services) -> tuple[Measurement | None, Failure | None]:
    if not math.isfinite(cap.watts):
        return None, None
    try:
        response = await services.planner.get_status(convert.status_request(cap))
    except PlannerError as error:
        return None, _failure(error)
    return convert.read_measurement(response), None


def _failure(error: PlannerError | PlanError) -> Failure:
    kind = FailureKind.UNUSABLE
    if isinstance(error, PlannerUnavailable):
        kind = FailureKind.UNREACHABLE
    elif isinstance(error, PlannerNotReady):
        kind = FailureKind.NOT_READY
    elif isinstance(error, PlannerRefused):
        kind = FailureKind.REFUSED
    field = getattr(error, "field", "")
    message = f"{error} (field {field})" if field and field not in str(error) else str(error)
    return Failure(kind=kind, message=message)


def _situation(
    world: World,
    services: Services,
    plan: CapPlan | None,
    failure: Failure | None,
    measurement: Measurement | None,
) -> Situation:
    return Situation(
        spec=world.spec,
        targets=world.targets,
        refusal=world.refusal,
        plan=plan,
        failure=failure,
        measurement=measurement,
        in_force=world.memory.in_force,
        last_shed_at=world.memory.last_shed_at,
        settling=world.memory.settling,
        now=world.now,
        settle_seconds=services.settle_seconds,
    )


def _restoring(world: World) -> tuple[Step, ...]:
    return tuple(
        Step(
            key=target.key,
            before=target.current,
            after=target.user_max,
            reason=StepReason.RESTORE,
        )
        for target in world.released
    )


def _was_unreachable(item: Item) -> bool:
    found = (item.get("status") or {}).get("conditions") or ()
    return any(
        condition.get("type") == "PlannerReachable" and condition.get("status") == "False"
        for condition in found
    )


def _applied(outcomes: tuple[Outcome, ...]) -> tuple[Step, ...]:
    return tuple(outcome.step for outcome in outcomes if outcome.is_applied)


def _subjects(world: World) -> dict[tuple[str, str], events.Subject]:
    return {key: events.of_scaled_object(target) for key, target in world.by_key.items()}


async def _tell(
    world: World,
    situation: Situation,
    decision: Decision,
    outcomes: tuple[Outcome, ...],
    services: Services,
) -> None:
    told = [*events.of_foreign_changes(world.subject, world.targets)]
    told += events.of_steps(world.subject, _applied(outcomes), _subjects(world))
    measurement = situation.measurement
    if decision.shed_watts > 0 and measurement is not None and measurement.watts is not None:
        told.append(
            events.of_shedding(
                world.subject,
                decision,
                measured=measurement.watts,
                cap=situation.spec.cap.watts,
            )
        )
    await _post(services, world, tuple(told))


async def _post(services: Services, world: World, told: tuple[events.Event, ...]) -> None:
    gate = asyncio.Semaphore(actuate.CONCURRENT_WRITES)

    async def one(event: events.Event) -> None:
        try:
            async with gate:
                await services.kube.post_event(event, now=world.now)
        except ClusterError as error:
            # An Event tells; it does not act. The cycle goes on without it.
            logger.warning("PowerCap %s: %s", world.name, error)

    await asyncio.gather(*(one(event) for event in told))


async def _write_status(item: Item, after: dict[str, Any], services: Services) -> Item:
    patch = status.merge_patch(item.get("status") or {}, after)
    if not patch:
        return item
    metadata = item["metadata"]
    return await services.kube.patch_status(
        metadata["name"], status=patch, resource_version=metadata["resourceVersion"]
    )


async def _refuse(item: Item, services: Services, *, reason: str, message: str) -> None:
    after = report.refused(item, reason=reason, message=message, now=services.clock())
    try:
        await _write_status(item, after, services)
    except ClusterError as error:
        logger.warning("PowerCap %s: %s", item["metadata"]["name"], error)
