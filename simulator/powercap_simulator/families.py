"""Metric families and their two text forms: Prometheus text 0.0.4 and OpenMetrics 1.0."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

LabelSet = tuple[tuple[str, str], ...]


@dataclass(slots=True, kw_only=True)
class Family:
    """One metric family as an exporter exposes it."""

    name: str
    """As in the ``# TYPE`` line of the text form: a counter's with its ``_total``."""
    kind: str
    """``gauge``, ``counter`` or ``histogram``."""
    description: str
    samples: list[tuple[str, LabelSet, float]] = field(default_factory=list)
    """Sample name, labels, value."""

    def add(self, value: float, /, **labels: str) -> None:
        """Append a sample under the family's own name."""
        self.samples.append((self.name, tuple(labels.items()), value))

    def add_histogram(
        self,
        *,
        bounds: Iterable[float],
        cumulative: Iterable[float],
        total: float,
        labels: LabelSet,
    ) -> None:
        """Append one histogram; the last bound is infinite and its bucket is the count."""
        count = 0.0
        for bound, count in zip(bounds, cumulative, strict=True):
            shown = "+Inf" if math.isinf(bound) else repr(float(bound))
            self.samples.append((f"{self.name}_bucket", (*labels, ("le", shown)), count))
        self.samples.append((f"{self.name}_sum", labels, total))
        self.samples.append((f"{self.name}_count", labels, count))


def render_text(families: Iterable[Family]) -> str:
    """Return the Prometheus text form."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {family.description}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines += [f"{name}{braces(labels)} {value!r}" for name, labels, value in family.samples]
    return "\n".join(lines) + "\n"


def openmetrics_header(name: str, kind: str) -> str:
    """Return the ``# TYPE`` line of OpenMetrics for a family named as in the text form.

    OpenMetrics names counters without ``_total`` and knows none that lacks it in its samples
    (as DCGM's energy does): those are of unknown type there.
    """
    if kind != "counter":
        return f"# TYPE {name} {kind}"
    if name.endswith("_total"):
        return f"# TYPE {name.removesuffix('_total')} counter"
    return f"# TYPE {name} unknown"


def braces(labels: LabelSet) -> str:
    """Return the label part of a sample, escaped; empty without labels."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value
