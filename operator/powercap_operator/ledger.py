"""The ledger: what every target is charged, and what is left under the cap.

A target is charged ``max(allowed, present) · charged_watts_per_replica``, once: its autoscaler may
fill every allowed replica, and a replica that was lowered away draws power until its pod is gone.
All watts are above base, at GPUs and hosts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

Key = tuple[str, str]
"""Namespace and name of a ScaledObject."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One target in the ledger."""

    allowed: int
    """Replicas in force: the larger of what is written and what the autoscaler still enforces."""
    present: int
    """Replicas that exist, terminating ones included."""
    watts_per_replica: float
    """Upper W above base of one replica; more than 0."""

    def __post_init__(self) -> None:
        """Refuse what would charge nothing.

        Raises:
            ValueError: naming the field.
        """
        if not (math.isfinite(self.watts_per_replica) and self.watts_per_replica > 0):
            raise ValueError(
                f"watts_per_replica is {self.watts_per_replica}; accepted: more than 0 W, finite"
            )
        if self.allowed < 0 or self.present < 0:
            raise ValueError(
                f"allowed is {self.allowed}, present {self.present}; accepted: 0 or more"
            )

    @property
    def charged_replicas(self) -> int:
        """Replicas charged."""
        return max(self.allowed, self.present)

    @property
    def charged_watts(self) -> float:
        """Upper W charged above base."""
        return self.charged_replicas * self.watts_per_replica


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """All charges under one cap."""

    entries: Mapping[Key, Entry]
    available_watts: float
    """W above base that the entries may be charged in all; may be negative."""

    @property
    def charged_watts(self) -> float:
        """Sum of the charges, W."""
        return math.fsum(entry.charged_watts for entry in self.entries.values())

    @property
    def free_watts(self) -> float:
        """What is left, W; negative when more is charged than is available."""
        return self.available_watts - self.charged_watts

    def with_allowed(self, key: Key, allowed: int) -> Ledger:
        """Return the ledger after ``allowed`` was written for one target."""
        entry = replace(self.entries[key], allowed=allowed)
        return replace(self, entries={**self.entries, key: entry})
