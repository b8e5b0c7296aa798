"""What every stage computes with: the problem's tables as values, energy, shortfalls and rows.

A *group* is a deployment in a period: ``g = deployment * periods + period``. With
``s = period_seconds``:

    value[g,k]      s * weight * served                                     (S is its sum)
    energy[g,k]     s * energy_weight * power; energy_base adds the zones' base  (W is the sum)
    shortfall[g,k]  share of the horizon times the missing fraction of each floor
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powercap_solver.compact.model import Row
from powercap_solver.problem import BoolArray, FloatArray, IntArray, PlanningProblem

CAP_TOLERANCE = 1e-9
"""A cap holds when it is exceeded by no more than this share of it."""
FLOOR_TOLERANCE = 1e-9
"""A served floor holds when it is missed by no more than this share of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measures:
    """The problem as the stages see it."""

    problem: PlanningProblem
    allowed: BoolArray
    """bool[group, option]: real options."""
    replicas: IntArray
    """int64[group, option]."""
    served: FloatArray
    """float64[group, option], tokens/s."""
    value: FloatArray
    """float64[group, option]."""
    energy: FloatArray
    """float64[group, option]."""
    energy_base: float
    shortfall: FloatArray
    """float64[group, option], 0 where every floor holds."""
    upper: FloatArray
    """float64[domain, group, option], W."""
    priority: IntArray
    """int64[group]."""
    period: IntArray
    """int64[group]."""
    available: FloatArray
    """float64[domain, period], W: the cap's, or the least possible draw where that exceeds it."""
    is_exceeded: BoolArray
    """bool[domain, period]: even the lowest options exceed the cap."""

    @property
    def shape(self) -> tuple[int, int]:
        """Deployments and periods."""
        return len(self.problem.deployments), len(self.problem.period_seconds)

    def pick(self, table: FloatArray, choice: IntArray) -> FloatArray:
        """float64[group]: the entries of ``table`` (float64[group, option]) under ``choice``."""
        picked: FloatArray = table[np.arange(len(choice)), choice]
        return picked

    def total_value(self, choice: IntArray) -> float:
        """S under ``choice`` (int64[group])."""
        return math.fsum(self.pick(self.value, choice))

    def total_energy(self, choice: IntArray) -> float:
        """W under ``choice`` (int64[group])."""
        return math.fsum([self.energy_base, *self.pick(self.energy, choice)])

    def cap_rows(self) -> tuple[Row, ...]:
        """One row per domain and period."""
        rows = []
        for domain, period in np.ndindex(*self.available.shape):
            # Only who can draw there: rows that touch few groups fall apart into small models.
            can_draw = (self.upper[domain] > 0).any(axis=1)
            groups = np.nonzero((self.period == period) & can_draw)[0]
            rows.append(
                Row(
                    groups=groups,
                    coefficient=self.upper[domain, groups],
                    limit=float(self.available[domain, period]),
                    slack=float(CAP_TOLERANCE * self.problem.cap_watts[domain, period]),
                )
            )
        return tuple(rows)


def measure(problem: PlanningProblem) -> Measures:
    """Tabulate ``problem`` by group."""
    deployments, periods = len(problem.deployments), len(problem.period_seconds)
    groups, options = deployments * periods, problem.replicas.shape[1]
    seconds = problem.period_seconds[None, :, None]
    energy_weight = problem.energy_weight[problem.zone_index][:, :, None]
    replicas = np.repeat(problem.replicas, periods, axis=0)
    allowed = np.repeat(problem.is_option, periods, axis=0)
    upper = problem.upper_watts.reshape(len(problem.domains), groups, options)
    available, is_exceeded = _effective_available(problem)
    base = problem.period_seconds * problem.energy_weight * problem.zone_base_watts
    value = seconds * problem.weight[:, None, None] * problem.served_tps
    energy = seconds * energy_weight * problem.power_watts
    return Measures(
        problem=problem,
        allowed=allowed,
        replicas=replicas,
        served=problem.served_tps.reshape(groups, options),
        value=value.reshape(groups, options),
        energy=energy.reshape(groups, options),
        energy_base=math.fsum(base.ravel()),
        shortfall=_shortfall(problem).reshape(groups, options),
        upper=upper,
        priority=np.repeat(problem.priority, periods),
        period=np.tile(np.arange(periods), deployments),
        available=available,
        is_exceeded=is_exceeded,
    )


def _effective_available(problem: PlanningProblem) -> tuple[FloatArray, BoolArray]:
    """A cap below the lowest draw is replaced by that draw: nothing above it can be planned."""
    available = problem.available_watts
    real = problem.is_option[None, :, None, :]
    least_each = np.min(np.where(real, problem.upper_watts, np.inf), axis=3)
    least = np.zeros(available.shape)
    for domain, period in np.ndindex(*available.shape):
        least[domain, period] = math.fsum(least_each[domain, :, period])
    is_exceeded: BoolArray = least > available + CAP_TOLERANCE * problem.cap_watts
    return np.where(is_exceeded, least, available), is_exceeded


def _shortfall(problem: PlanningProblem) -> FloatArray:
    share = (problem.period_seconds / problem.period_seconds.sum())[None, :, None]
    wanted = problem.min_replicas[:, None].astype(float)
    missing_replicas = np.maximum(0.0, wanted - problem.replicas) / np.maximum(wanted, 1.0)
    floor = (problem.min_served_fraction[:, None] * problem.load_tps)[:, :, None]
    missing_served = np.maximum(0.0, floor - problem.served_tps)
    missing_served = np.where(
        missing_served > FLOOR_TOLERANCE * floor, missing_served / np.maximum(floor, 1e-300), 0.0
    )
    shortfall: FloatArray = share * (missing_replicas[:, None, :] + missing_served)
    return shortfall
