"""The forecast load of one deployment over one period: a few scenarios with their shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from powercap_planner.observations import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadForecast:
    """A discrete distribution of load; a point forecast has one scenario."""

    load_tps: FloatArray
    """float64[scenario], tokens/s, >= 0."""
    share: FloatArray
    """float64[scenario], sums to 1."""
    method: str

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        self.load_tps.setflags(write=False)
        self.share.setflags(write=False)

    @classmethod
    def point(cls, load_tps: float, *, method: str) -> Self:
        """Return a forecast that knows one value."""
        return cls(load_tps=np.array([load_tps]), share=np.ones(1), method=method)

    def scaled(self, factor: float) -> LoadForecast:
        """Return the forecast of ``factor`` times the load."""
        return LoadForecast(load_tps=self.load_tps * factor, share=self.share, method=self.method)

    @property
    def mean_tps(self) -> float:
        """Expected load, tokens/s."""
        return float(self.load_tps @ self.share)
