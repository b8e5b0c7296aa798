"""The model of one deployment: watts and tokens of one replica over its own load."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from powercap_planner.observations import Finding, FloatArray


class ModelKind(enum.StrEnum):
    """Where a model comes from."""

    FITTED = "fitted"
    """Learned from the deployment's own history."""
    TABLE = "table"
    """A measured curve from a file, exact at its rows."""
    NAMEPLATE = "nameplate"
    """Nothing usable was measured: only the most it can draw is known."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeploymentModel:
    """Curves of one replica, linear between knots and constant beyond the last.

    Watts are of the whole replica, parked watts of its GPUs and its host share included.
    A nameplate model has no knots: it can be charged, not planned.
    """

    kind: ModelKind
    gpu_type: str
    """As observed; empty when unknown."""
    gpus_per_replica: int
    """0 when unknown."""
    parked_watts: float
    """W of the GPUs of one replica when nothing runs on them."""
    knot_tps: FloatArray
    """float64[knot], load of one replica, ascending from 0."""
    mean_watts: FloatArray
    """float64[knot]."""
    upper_watts: FloatArray
    """float64[knot], never falling."""
    peak_upper_watts: float
    """Upper W of one replica whatever its load: what a cap is charged."""
    nameplate_watts: float
    """The most W one replica can draw by its GPUs' limits, host included."""
    saturated_tps: float
    capacity_tps: float
    support_low_tps: float
    """Lowest load per replica that was measured; below it the curve is assumed."""
    support_high_tps: float
    samples: int
    error_fraction: float | None
    """Mean absolute error over held-back windows as a share of mean power; None: not known."""
    coverage_fraction: float | None
    """Share of windows below the upper bound that the sample supports; None: by nameplate."""
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for array in (self.knot_tps, self.mean_watts, self.upper_watts):
            array.setflags(write=False)

    @property
    def is_plannable(self) -> bool:
        """True when the watts and tokens of a replica are known, not only its limit."""
        return self.kind is not ModelKind.NAMEPLATE

    def watts(self, load_tps: FloatArray) -> FloatArray:
        """Return the mean watts of one replica at loads per replica, tokens/s."""
        result: FloatArray = np.interp(load_tps, self.knot_tps, self.mean_watts)
        return result

    @property
    def best_tokens_per_joule(self) -> float:
        """Best tokens per joule anywhere on the curve, between knots included."""
        # Load over a linear function of load is monotone between knots: the best is at a knot.
        return float(np.max(self.knot_tps / self.mean_watts))

    @property
    def peak_above_parked_watts(self) -> float:
        """Upper W of one replica above its parked GPUs: what one more replica is charged."""
        return max(self.peak_upper_watts - self.parked_watts, 0.0)

    @property
    def nameplate_above_parked_watts(self) -> float:
        """The same by nameplate alone."""
        return max(self.nameplate_watts - self.parked_watts, 0.0)
