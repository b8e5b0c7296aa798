"""Writing of steps: lowerings first and together, raises after them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from powercap_operator import scaledobjects
from powercap_operator.errors import (
    ClusterError,
    ConflictError,
    MissingError,
    OperatorError,
)
from powercap_operator.kube import Kube
from powercap_operator.ledger import Key
from powercap_operator.rollout import Step, StepReason
from powercap_operator.scaledobjects import ScaledObject
from powercap_operator.targets import Target

logger = logging.getLogger(__name__)

CONCURRENT_WRITES = 8
ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one step."""

    step: Step
    error: str = ""
    """Empty when the write is known to have landed."""

    @property
    def is_applied(self) -> bool:
        """Tell whether the write is known to have landed."""
        return not self.error


async def apply(
    kube: Kube, steps: Sequence[Step], targets: Mapping[Key, Target]
) -> tuple[Outcome, ...]:
    """Write all steps; one that fails stops no other, and is not tried again in this cycle."""
    gate = asyncio.Semaphore(CONCURRENT_WRITES)

    async def one(step: Step) -> Outcome:
        async with gate:
            return await _write(kube, step, targets[step.key])

    lowered = await asyncio.gather(*(one(step) for step in steps if not step.is_raise))
    raised = await asyncio.gather(*(one(step) for step in steps if step.is_raise))
    return (*lowered, *raised)


async def _write(kube: Kube, step: Step, target: Target) -> Outcome:
    raw = target.raw_max(step.after)
    if step.reason is StepReason.RESTORE:
        raw = target.record.user_max
    read = target.scaled_object
    resource_version = read.resource_version
    for _ in range(ATTEMPTS):
        try:
            await kube.patch_max_replicas(
                *step.key, max_replicas=raw, resource_version=resource_version
            )
        except ConflictError:
            # KEDA writes its status several times a minute: only a change of what was decided
            # on counts as foreign.
            try:
                fresh = scaledobjects.parse_scaled_object(await kube.scaled_object(*step.key))
            except OperatorError as error:
                return _failed(step, str(error))
            if _essence(fresh) != _essence(read):
                return _failed(step, "it was changed by someone else in this cycle")
            resource_version = fresh.resource_version
        except MissingError:
            return _failed(step, "it is gone")
        except ClusterError as error:
            return _failed(step, str(error))
        else:
            logger.info(
                "%s/%s: maxReplicaCount %d -> %s (%s)",
                *step.key,
                step.before,
                "unset" if raw is None else raw,
                step.reason.value,
            )
            return Outcome(step=step)
    return _failed(step, f"it changed {ATTEMPTS} times while being written")


def _essence(item: ScaledObject) -> tuple[object, ...]:
    return (item.min_replicas, item.max_replicas, item.owner, item.pause, item.target_name)


def _failed(step: Step, error: str) -> Outcome:
    logger.warning("%s/%s: maxReplicaCount was not written: %s", *step.key, error)
    return Outcome(step=step, error=error)
