"""What one cycle sees: the PowerCap, its targets, and the targets it must let go."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from powercap_operator import scaledobjects, status
from powercap_operator.errors import MissingError, ScaledObjectError
from powercap_operator.events import Subject
from powercap_operator.kube import Item, Kube
from powercap_operator.ledger import Key
from powercap_operator.policy import (
    Governing,
    PowerCapSpec,
    Rollout,
    TargetPolicy,
    read_governing,
)
from powercap_operator.scaledobjects import ScaledObject, Workload
from powercap_operator.status import Memory
from powercap_operator.targets import (
    MINUTE,
    Charge,
    Claim,
    Target,
    TargetState,
    build_target,
    inherited,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything read in one cycle."""

    item: Item
    """The PowerCap."""
    spec: PowerCapSpec
    memory: Memory
    targets: tuple[Target, ...]
    released: tuple[Target, ...]
    """Written once, governed no more: the user's own maximum comes back."""
    problems: tuple[str, ...]
    """ScaledObjects that cannot be read, one sentence each."""
    now: datetime.datetime
    refusal: str = ""
    """Why ``spec`` is not the one written in the PowerCap; empty when it is."""
    charges: tuple[Charge, ...] = ()
    """What other PowerCaps write and this one must leave them the watts for."""

    @property
    def name(self) -> str:
        """Name of the PowerCap."""
        return str(self.item["metadata"]["name"])

    @property
    def subject(self) -> Subject:
        """The PowerCap as a subject of Events."""
        return subject_of(self.item)

    @property
    def by_key(self) -> Mapping[Key, Target]:
        """All targets that may be written, released ones included."""
        return {target.key: target for target in (*self.targets, *self.released)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Other:
    """What matters of another PowerCap."""

    name: str
    governing: Governing | None
    """None unless it writes: Auto, known, not being deleted."""
    is_leaving: bool
    memory: Memory
    charges: tuple[Charge, ...]
    """What it states of the targets that it writes."""

    def selects(self, scaled_object: ScaledObject) -> bool:
        """Tell whether it would write a ScaledObject."""
        if self.governing is None:
            return False
        if self.governing.refusal and scaled_object.key not in self.memory.records:
            return False
        return self.governing.spec.selector.matches(
            namespace=scaled_object.namespace, labels=scaled_object.labels
        )


def subject_of(item: Item) -> Subject:
    """Return a PowerCap as a subject of Events."""
    return Subject(
        api_version=str(item.get("apiVersion", "powercap.dev/v1alpha1")),
        kind="PowerCap",
        name=str(item["metadata"]["name"]),
        uid=str(item["metadata"].get("uid", "")),
    )


async def observe(kube: Kube, item: Item, *, governing: Governing, now: datetime.datetime) -> World:
    """Read the cluster for one PowerCap; an invalid spec takes no new target into its care.

    Raises:
        ClusterError: something could not be read; nothing may be concluded from the rest.
    """
    memory = status.read_memory(item.get("status") or {})
    spec = governing.spec
    selector = spec.selector
    listed, powercaps = await asyncio.gather(
        kube.scaled_objects(namespaces=selector.namespaces, labels=selector.match_labels),
        kube.powercaps(),
    )
    others = _others(powercaps, _name(item))
    objects, problems = _readable(listed)
    if governing.refusal:
        objects = [found for found in objects if found.key in memory.records]
    workloads, hpas = await _workloads(kube, objects)
    targets = []
    for scaled_object in objects:
        claims, rivals = _claims(others, scaled_object)
        record = memory.records.get(scaled_object.key)
        if record is None or record.written is None:
            record = inherited(claims) or record
        targets.append(
            build_target(
                scaled_object,
                workload=workloads.get((scaled_object.namespace, scaled_object.target_name)),
                hpa_max=hpas.get((scaled_object.namespace, scaled_object.hpa_name)),
                policy=spec.policy_of(*scaled_object.key),
                record=record,
                rivals=rivals if spec.rollout is Rollout.AUTO else (),
                powercap=_name(item),
                now=now,
                contention_window=max(
                    MINUTE, datetime.timedelta(seconds=3 * spec.interval_seconds)
                ),
            )
        )
    own = {key for key, record in memory.records.items() if record.written is not None}
    kept, handed_over = _hand_over(targets, others)
    gone = await _unselected(
        kube, memory, selected={target.key for target in targets}, others=others, now=now
    )
    released = [*gone]
    if spec.rollout is not Rollout.AUTO:
        written = [target for target in kept if target.record.written is not None]
        released += [target for target in written if target.key in own]
        # What another PowerCap wrote is known by its record, but it is not this one's to restore.
        foreign = {target.key for target in written} - own
        kept = [_forgotten(target) if target.key in foreign else target for target in kept]
    return World(
        item=item,
        spec=spec,
        memory=memory,
        targets=(*kept, *handed_over),
        released=tuple(released),
        problems=tuple(problems),
        now=now,
        refusal=governing.refusal,
        charges=_charges(others, targets),
    )


async def observe_for_release(kube: Kube, item: Item, *, now: datetime.datetime) -> World:
    """Read what a PowerCap that is being deleted still has to give back."""
    memory = status.read_memory(item.get("status") or {})
    powercaps = await kube.powercaps()
    others = _others(powercaps, _name(item))
    released = await _unselected(kube, memory, selected=set(), others=others, now=now)
    return World(
        item=item,
        spec=read_governing(item).spec,
        memory=memory,
        targets=(),
        released=tuple(released),
        problems=(),
        now=now,
    )


def _name(item: Item) -> str:
    return str(item["metadata"]["name"])


def _readable(items: Iterable[Item]) -> tuple[list[ScaledObject], list[str]]:
    objects, problems = [], []
    for item in items:
        if item["metadata"].get("deletionTimestamp"):
            continue
        try:
            objects.append(scaledobjects.parse_scaled_object(item))
        except ScaledObjectError as error:
            name = f"{item['metadata'].get('namespace')}/{item['metadata'].get('name')}"
            problems.append(f"ScaledObject {name}: {error}")
    return sorted(objects, key=lambda item: item.key), problems


async def _workloads(
    kube: Kube, objects: list[ScaledObject]
) -> tuple[dict[Key, Workload], dict[Key, int]]:
    namespaces = {item.namespace for item in objects}
    deployments, autoscalers = await asyncio.gather(
        kube.deployments(namespaces), _autoscalers(kube, namespaces)
    )
    wanted = {(item.namespace, item.target_name) for item in objects if item.is_deployment}
    workloads = {}
    for deployment in deployments:
        workload = scaledobjects.parse_deployment(deployment)
        if (workload.namespace, workload.name) in wanted:
            workloads[workload.namespace, workload.name] = workload
    counted = await asyncio.gather(*(_counted(kube, item) for item in workloads.values()))
    hpas = {
        (item["metadata"]["namespace"], item["metadata"]["name"]): scaledobjects.parse_hpa_max(item)
        for item in autoscalers
    }
    return {(item.namespace, item.name): item for item in counted}, hpas


async def _autoscalers(kube: Kube, namespaces: Iterable[str]) -> list[Item]:
    try:
        return await kube.autoscalers(namespaces)
    except MissingError:
        # Servers before 1.23 have no autoscaling/v2; the written maximum is charged alone.
        return []


async def _counted(kube: Kube, workload: Workload) -> Workload:
    """Count pods where the server does not tell how many are terminating."""
    if workload.is_terminating_known or not workload.pod_labels:
        return workload
    pods = await kube.pods(workload.namespace, workload.pod_labels)
    return replace(workload, present=max(workload.present, pods), is_terminating_known=True)


def _others(powercaps: Iterable[Item], name: str) -> list[_Other]:
    """Return what matters of all other PowerCaps."""
    found = []
    for item in powercaps:
        if _name(item) == name:
            continue
        status_now = item.get("status") or {}
        governing = _auto_governing(item)
        found.append(
            _Other(
                name=_name(item),
                governing=governing,
                is_leaving=bool(item["metadata"].get("deletionTimestamp")),
                memory=status.read_memory(status_now),
                charges=() if governing is None else status.read_charges(status_now),
            )
        )
    return found


def _claims(
    others: Iterable[_Other], scaled_object: ScaledObject
) -> tuple[list[Claim], tuple[str, ...]]:
    """Return what other PowerCaps remember of a ScaledObject, and which of them would write it."""
    claims, rivals = [], []
    for other in others:
        record = other.memory.records.get(scaled_object.key)
        claims.append(Claim(powercap=other.name, record=record))
        # One that is being deleted still has the user's maximum to restore.
        is_restoring = other.is_leaving and record is not None and record.written is not None
        if other.selects(scaled_object) or is_restoring:
            rivals.append(other.name)
    return claims, tuple(sorted(rivals))


def _charges(others: Iterable[_Other], targets: Iterable[Target]) -> tuple[Charge, ...]:
    """Return the charges of others, without what this PowerCap writes or is taking over."""
    own = {item.key for item in targets if item.state is not TargetState.CONTESTED}
    return tuple(charge for other in others for charge in other.charges if charge.key not in own)


def _auto_governing(other: Item) -> Governing | None:
    if other["metadata"].get("deletionTimestamp"):
        return None
    governing = read_governing(other)
    return governing if governing.spec.rollout is Rollout.AUTO else None


def _hand_over(
    targets: Iterable[Target], others: Iterable[_Other]
) -> tuple[list[Target], list[Target]]:
    """Forget a contested target once the winner remembers the user's maximum; not before."""
    remembered = _remembered(others)
    kept, handed_over = [], []
    for target in targets:
        if target.state is TargetState.CONTESTED and target.key in remembered:
            handed_over.append(_forgotten(target))
        else:
            kept.append(target)
    return kept, handed_over


def _forgotten(target: Target) -> Target:
    return replace(target, record=replace(target.record, written=None, previous=None))


def _remembered(others: Iterable[_Other]) -> set[Key]:
    """Return what other PowerCaps have taken into their care."""
    return {charge.key for other in others for charge in other.charges}


async def _unselected(
    kube: Kube,
    memory: Memory,
    *,
    selected: set[Key],
    others: list[_Other],
    now: datetime.datetime,
) -> list[Target]:
    """Return the targets written once that are selected no more and in nobody else's care."""
    remembered = _remembered(others)
    found = []
    for key, record in memory.records.items():
        if key in selected or key in remembered or record.written is None:
            continue
        try:
            scaled_object = scaledobjects.parse_scaled_object(await kube.scaled_object(*key))
        except MissingError:
            continue
        except ScaledObjectError as error:
            logger.warning("cannot restore %s/%s: %s", *key, error)
            continue
        target = build_target(
            scaled_object,
            workload=None,
            hpa_max=None,
            policy=TargetPolicy(),
            record=record,
            now=now,
        )
        if target.record.written is not None:
            found.append(target)
    return found


def generation_of(item: Mapping[str, Any]) -> int:
    """Return the generation of an object's spec."""
    return int(item["metadata"].get("generation") or 0)
