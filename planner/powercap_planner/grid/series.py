"""Price and carbon intensity over time, and the providers they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from powercap_planner.observations import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GridSeries:
    """One signal of one zone; NaN where nothing was published."""

    zone: str
    unit: str
    """For example ``USD/MWh`` or ``gCO2eq/kWh (average)``."""
    source: str
    time_seconds: FloatArray
    """float64[time], ascending: start of the interval, Unix time."""
    values: FloatArray
    """float64[time]; prices may be negative."""
    step_seconds: float
    """A value holds for this long from its time."""

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        self.time_seconds.setflags(write=False)
        self.values.setflags(write=False)


class PriceProvider(Protocol):
    """Gives electricity prices."""

    @property
    def name(self) -> str:
        """Name for logs and findings."""

    def prices(self, *, zone: str, start_seconds: float, end_seconds: float) -> GridSeries:
        """Return prices per MWh of a span.

        Raises:
            SourceError: when the provider cannot be reached or does not know the zone.
        """


class CarbonProvider(Protocol):
    """Gives carbon intensities."""

    @property
    def name(self) -> str:
        """Name for logs and findings."""

    def intensities(self, *, zone: str, start_seconds: float, end_seconds: float) -> GridSeries:
        """Return gCO2eq/kWh of a span.

        Raises:
            SourceError: when the provider cannot be reached or does not know the zone.
        """


class ConstantProvider:
    """Gives one value for every time and zone: its own reference, so weights stay neutral."""

    def __init__(self, value: float, *, unit: str) -> None:
        self.value = value
        self.unit = unit

    @property
    def name(self) -> str:
        """``constant``."""
        return "constant"

    def prices(self, *, zone: str, start_seconds: float, end_seconds: float) -> GridSeries:
        """Return the constant as a price."""
        return self._series(zone, start_seconds, end_seconds)

    def intensities(self, *, zone: str, start_seconds: float, end_seconds: float) -> GridSeries:
        """Return the constant as a carbon intensity."""
        return self._series(zone, start_seconds, end_seconds)

    def _series(self, zone: str, start_seconds: float, end_seconds: float) -> GridSeries:
        return GridSeries(
            zone=zone,
            unit=self.unit,
            source=self.name,
            time_seconds=np.array([start_seconds]),
            values=np.array([self.value]),
            step_seconds=end_seconds - start_seconds,
        )
