"""What would be: the same inputs with another cap, price, carbon, load or replica count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from powercap_planner.errors import RequestError
from powercap_planner.grid.weight import GridConditions, GridSignal
from powercap_planner.inputs import PlanningInputs, TargetInputs
from powercap_planner.observations import ReplicaRule
from powercap_planner.outcome import TargetStatus

_MOST_LISTED = 12
"""Names in one message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """What is changed; None and empty leave things as they are."""

    cap_watts: float | None = None
    price: float | GridSignal | None = None
    """Per MWh now; a signal brings its own usual value."""
    carbon: float | GridSignal | None = None
    """gCO2eq/kWh now."""
    load_factor: float | None = None
    replicas: dict[str, int] = field(default_factory=dict)
    """Pins by ``namespace/name``, or name where it is the only one."""

    @property
    def is_empty(self) -> bool:
        """True when nothing is changed."""
        return self == WhatIf()


def apply(inputs: PlanningInputs, what_if: WhatIf) -> PlanningInputs:
    """Return the inputs with the changes made.

    A price or carbon intensity replaces the value of now; what is usual stays, so that the new
    value counts as the deviation it is. Without a known usual value there is no deviation.

    Raises:
        RequestError: when a change cannot be made, naming the option.
    """
    cap = inputs.cap
    if what_if.cap_watts is not None:
        cap = replace(cap, watts=what_if.cap_watts)
    grid = _with_signals(inputs.grid, what_if)
    pins = {
        resolve(name, tuple(one.key for one in inputs.targets)): count
        for name, count in what_if.replicas.items()
    }
    factor = what_if.load_factor
    if factor is not None and not 0 <= factor < math.inf:
        raise RequestError("load-factor", f"is {factor}; accepted: 0 or more")
    targets = tuple(_changed(one, factor, pins.get(one.key)) for one in inputs.targets)
    return replace(inputs, cap=cap, grid=grid, targets=targets)


def resolve(name: str, keys: tuple[str, ...], *, option: str = "replicas") -> str:
    """Return the key that a name means.

    Raises:
        RequestError: when it means none, or more than one, under the name of the option.
    """
    matches = tuple(key for key in keys if name in (key, key.partition("/")[2]))
    if len(matches) == 1:
        return matches[0]
    problem = "is in several namespaces" if matches else "is not known"
    raise RequestError(option, f"{name} {problem}; accepted: {listed(matches or keys)}")


def listed(names: Sequence[str]) -> str:
    """Return names for a message, the first of them where they are many."""
    more = len(names) - _MOST_LISTED
    rest = f" and {more:,} more" if more > 0 else ""
    return ", ".join(names[:_MOST_LISTED]) + rest


def _changed(one: TargetInputs, factor: float | None, pin: int | None) -> TargetInputs:
    forecast = one.forecast
    if factor is not None and forecast is not None:
        forecast = forecast.scaled(factor)
    if pin is None:
        return replace(one, forecast=forecast)
    if one.status is not TargetStatus.PLANNED:
        raise RequestError("replicas", f"{one.key} cannot be pinned: {one.note}")
    least = 0 if one.replica_rule is ReplicaRule.FIXED else 1
    if pin < least:
        raise RequestError("replicas", f"{one.key}={pin}; accepted: {least} or more")
    return replace(one, forecast=forecast, pinned_replicas=pin)


def _with_signals(grid: GridConditions, what_if: WhatIf) -> GridConditions:
    price, carbon = grid.price, grid.carbon
    if what_if.price is not None:
        price = _with_value(price, what_if.price, unit="per MWh")
    if what_if.carbon is not None:
        carbon = _with_value(carbon, what_if.carbon, unit="gCO2eq/kWh")
    return replace(grid, price=price, carbon=carbon)


def _with_value(signal: GridSignal | None, value: float | GridSignal, *, unit: str) -> GridSignal:
    if isinstance(value, GridSignal):
        return value
    if signal is None:
        return GridSignal(
            value=value, reference=value, unit=unit, source="what-if", age_seconds=0.0
        )
    return replace(signal, value=value, source="what-if", age_seconds=0.0)
