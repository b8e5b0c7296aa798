"""The status of a PowerCap: what it remembers, and what it shows.

The list of targets is the operator's memory: it holds every user's own maximum. It is therefore
written before the first patch and read back after a restart.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from powercap_operator import times
from powercap_operator.decision import PlanInForce, Settling
from powercap_operator.ledger import Key
from powercap_operator.targets import Charge, Record, Target, TargetState


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is read back from a status."""

    records: Mapping[Key, Record] = field(default_factory=dict)
    in_force: PlanInForce | None = None
    last_shed_at: datetime.datetime | None = None
    settling: Settling | None = None


def read_memory(status: Mapping[str, Any]) -> Memory:
    """Read what the last cycle left; what cannot be read is not remembered."""
    records = [_record(item) for item in status.get("targets") or ()]
    return Memory(
        records={record.key: record for record in records},
        in_force=_in_force(status.get("plan") or {}),
        last_shed_at=times.from_text((status.get("lastShed") or {}).get("time")),
        settling=_settling(status.get("settling") or {}),
    )


def read_charges(status: Mapping[str, Any]) -> tuple[Charge, ...]:
    """Return what a status states of the targets that its PowerCap writes."""
    return tuple(
        _charge(item)
        for item in status.get("targets") or ()
        if item.get("state") in (TargetState.MANAGED, TargetState.HELD)
    )


def target_status(
    target: Target, record: Record, *, state: str, planned: int | None, reason: str
) -> dict[str, Any]:
    """Return one entry of ``status.targets``."""
    item = target.scaled_object
    entry: dict[str, Any] = {
        "namespace": item.namespace,
        "name": item.name,
        "workload": {"kind": item.target_kind, "name": item.target_name},
        "state": state,
        "reason": reason,
        "userMin": item.min_replicas,
        "requested": target.workload.requested if target.workload else None,
        "present": target.present,
        "planned": planned,
        **_record_fields(record),
    }
    return {key: value for key, value in entry.items() if value is not None}


def remembered_status(record: Record, *, reason: str) -> dict[str, Any]:
    """Return the entry of a target that could not be read in this cycle but must be kept."""
    entry = {
        "namespace": record.key[0],
        "name": record.key[1],
        "state": "Unknown",
        "reason": reason,
        **_record_fields(record),
    }
    return {key: value for key, value in entry.items() if value is not None}


def watts_at(time: datetime.datetime, watts: float) -> dict[str, Any]:
    """Return an amount with its time, as in ``status.lastShed``."""
    return {"time": times.to_text(time), "watts": round(watts, 1)}


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch from one object to another: what is gone becomes null."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            inner = merge_patch(old, value)
            if inner:
                patch[key] = inner
        elif value != old:
            patch[key] = value
    return patch


def _record_fields(record: Record) -> dict[str, Any]:
    return {
        "userMax": record.user_max,
        "written": record.written,
        "previous": record.previous,
        "allowed": record.allowed,
        "safeMax": record.safe_max,
        "chargedWattsPerReplica": _rounded(record.watts_per_replica),
        "meanWattsPerReplica": _rounded(record.mean_watts_per_replica),
        "writtenBackAt": [times.to_text(at) for at in record.written_back_at] or None,
        "contendedSince": times.to_text(record.contended_since) if record.contended_since else None,
    }


def _record(item: Mapping[str, Any]) -> Record:
    found = [times.from_text(text) for text in item.get("writtenBackAt") or ()]
    return Record(
        key=(str(item["namespace"]), str(item["name"])),
        user_max=item.get("userMax"),
        written=item.get("written"),
        previous=item.get("previous"),
        allowed=item.get("allowed"),
        safe_max=item.get("safeMax"),
        watts_per_replica=item.get("chargedWattsPerReplica"),
        mean_watts_per_replica=item.get("meanWattsPerReplica"),
        written_back_at=tuple(at for at in found if at is not None),
        contended_since=times.from_text(item.get("contendedSince")),
    )


def _charge(item: Mapping[str, Any]) -> Charge:
    record = _record(item)
    workload = (item.get("workload") or {}).get("name") or record.key[1]
    # While a write is under way either value may be in force.
    limits = (record.allowed, record.written, record.previous)
    return Charge(
        key=record.key,
        workload_key=(record.key[0], str(workload)),
        allowed=max((limit for limit in limits if limit is not None), default=0),
        present=item.get("present"),
        watts_per_replica=record.watts_per_replica,
    )


def _in_force(plan: Mapping[str, Any]) -> PlanInForce | None:
    expires_at = times.from_text(plan.get("expiresAt"))
    if expires_at is None:
        return None
    return PlanInForce(
        plan_id=str(plan.get("id", "")),
        expires_at=expires_at,
        cap_watts=plan.get("capWatts"),
        reserved_watts=plan.get("reservedWatts"),
    )


def _settling(item: Mapping[str, Any]) -> Settling | None:
    time = times.from_text(item.get("time"))
    if time is None:
        return None
    return Settling(time=time, watts=float(item.get("watts") or 0.0))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
