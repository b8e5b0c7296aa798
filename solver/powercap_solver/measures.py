"""What every stage computes with: the problem's tables as values, energy, shortfalls and rows.

A *group* is a deployment in a period: ``g = deployment * periods + period``. With
``s = period_seconds``:

    worth[g,k]      what stage 2 maximises: s * weight * served, a utility of it, or net value
    value[g,k]      s * weight * served                                     (S is its sum)
    energy[g,k]     s * energy_weight * power; energy_base adds the zones' base  (W is the sum)
    shortfall[g,k]  share of the horizon times the missing fraction of each floor

S and the sum of ``worth`` are less what the links lose (``links``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.compact.model import Row
from powercap_solver.hard_rows import CAP_TOLERANCE, effective_available, hard_rows
from powercap_solver.links import Links
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import Objective
from powercap_solver.worth import links_of, stage_worth, token_value

__all__ = ["CAP_TOLERANCE", "FLOOR_TOLERANCE", "Measures", "measure"]

_Kind = TypeVar("_Kind", bound=np.generic)

FLOOR_TOLERANCE = 1e-9
"""A served floor holds when it is missed by no more than this share of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measures:
    """The problem as the stages see it; tables are made when first asked for."""

    problem: PlanningProblem
    objective: Objective
    kappa: FloatArray
    """float64[domain, period]: share of upper - mean charged; 1 is assurance Guaranteed."""

    @property
    def shape(self) -> tuple[int, int]:
        """Deployments and periods."""
        return len(self.problem.deployments), len(self.problem.period_seconds)

    @cached_property
    def allowed(self) -> BoolArray:
        """bool[group, option]: real options."""
        return self._by_group(self.problem.is_option)

    @cached_property
    def replicas(self) -> IntArray:
        """int64[group, option]."""
        return self._by_group(self.problem.replicas)

    @cached_property
    def served(self) -> FloatArray:
        """float64[group, option], tokens/s."""
        return self._flat(self.problem.served_tps)

    @cached_property
    def value(self) -> FloatArray:
        """float64[group, option]: the summands of S."""
        return self._flat(token_value(self.problem))

    @cached_property
    def worth(self) -> FloatArray:
        """float64[group, option]: the summands of what stage 2 maximises."""
        if self.is_linear:
            return self.value
        return self._flat(stage_worth(self.problem, self.objective))

    @property
    def is_linear(self) -> bool:
        """Whether stage 2 maximises S itself."""
        is_net = self.objective is Objective.NET_VALUE
        return not is_net and self.problem.utility.value == "linear"

    @cached_property
    def energy(self) -> FloatArray:
        """float64[group, option]: the summands of W that depend on the choice."""
        problem = self.problem
        weight = problem.energy_weight[problem.zone_index] * problem.period_seconds
        return self._flat(weight[:, :, None] * problem.power_watts)

    @cached_property
    def energy_base(self) -> float:
        """What W is with nothing chosen."""
        problem = self.problem
        base = problem.period_seconds * problem.energy_weight * problem.zone_base_watts
        return math.fsum(base.ravel())

    @cached_property
    def shortfall(self) -> FloatArray:
        """float64[group, option], 0 where every floor holds."""
        return self._flat(_shortfall(self.problem))

    @cached_property
    def has_floors(self) -> bool:
        """Whether any floor was asked for."""
        problem = self.problem
        return bool((problem.min_replicas > 0).any() or (problem.min_served_fraction > 0).any())

    @cached_property
    def priority(self) -> IntArray:
        """int64[group]."""
        return np.repeat(self.problem.priority, self.shape[1])

    @cached_property
    def period(self) -> IntArray:
        """int64[group]."""
        return np.tile(np.arange(self.shape[1]), self.shape[0])

    @cached_property
    def _available(self) -> tuple[FloatArray, BoolArray]:
        return effective_available(self.problem, self.kappa)

    @property
    def available(self) -> FloatArray:
        """float64[domain, period], W: the cap's, or the least draw where that exceeds it."""
        return self._available[0]

    @property
    def is_exceeded(self) -> BoolArray:
        """bool[domain, period]: even the lowest options exceed the cap."""
        return self._available[1]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Every hard row: caps, GPU pools, watts per step, budgets."""
        return hard_rows(self.problem, self.available, self.is_exceeded, self.kappa)

    @cached_property
    def is_impossible(self) -> bool:
        """Whether some cap, pool or budget is below the least that any choice uses."""
        return any(row.is_raised for row in self.rows)

    @cached_property
    def charge(self) -> FloatArray:
        """float64[group, option]: upper W of a group, summed over its domains."""
        problem = self.problem
        deployments, periods = self.shape
        total = np.zeros((deployments, periods, problem.replicas.shape[1]))
        for domain in range(len(problem.domains)):
            of_domain = problem.draw_domain == domain
            # A deployment draws once in a domain: no index repeats within one addition.
            total[problem.draw_deployment[of_domain]] += problem.upper_watts[of_domain]
        return self._flat(total)

    @cached_property
    def links(self) -> Links | None:
        """What links the periods, with what is lost by changing."""
        return links_of(self.problem)

    @cached_property
    def ramps(self) -> Links | None:
        """The ramps alone."""
        return None if self.links is None else self.links.ramps_only()

    def pick(self, table: NDArray[_Kind], choice: IntArray) -> NDArray[_Kind]:
        """[group]: the entries of ``table`` ([group, option]) under ``choice`` (int64[group])."""
        picked: NDArray[_Kind] = table[np.arange(len(choice)), choice]
        return picked

    def lost(self, choice: IntArray) -> float:
        """What the links lose of S under ``choice`` (int64[group])."""
        return 0.0 if self.links is None else math.fsum(self.links.losses(choice))

    def total_value(self, choice: IntArray) -> float:
        """S under ``choice`` (int64[group])."""
        return math.fsum(self.pick(self.value, choice)) - self.lost(choice)

    def total_worth(self, choice: IntArray) -> float:
        """What stage 2 maximises, under ``choice`` (int64[group])."""
        return math.fsum(self.pick(self.worth, choice)) - self.lost(choice)

    def total_energy(self, choice: IntArray) -> float:
        """W under ``choice`` (int64[group])."""
        return math.fsum([self.energy_base, *self.pick(self.energy, choice)])

    def hold(self, choice: IntArray) -> bool:
        """Whether ``choice`` (int64[group]) keeps every hard row and ramp."""
        return all(row.holds(choice) for row in self.rows) and (
            self.links is None or self.links.holds(choice)
        )

    def _flat(self, table: FloatArray) -> FloatArray:
        return table.reshape(-1, table.shape[-1])

    def _by_group(self, table: NDArray[_Kind]) -> NDArray[_Kind]:
        periods = self.shape[1]
        return table if periods == 1 else np.repeat(table, periods, axis=0)


def measure(
    problem: PlanningProblem,
    objective: Objective = Objective.THROUGHPUT_PER_WATT,
    *,
    kappa: FloatArray | None = None,
) -> Measures:
    """Tabulate ``problem`` by group; ``kappa`` None charges upper watts in full."""
    if kappa is None:
        kappa = np.ones(problem.cap_watts.shape)
    return Measures(problem=problem, objective=objective, kappa=kappa)


def _shortfall(problem: PlanningProblem) -> FloatArray:
    share = (problem.period_seconds / problem.period_seconds.sum())[None, :, None]
    wanted = problem.min_replicas[:, None].astype(float)
    missing_replicas = np.maximum(0.0, wanted - problem.replicas) / np.maximum(wanted, 1.0)
    if not (problem.min_served_fraction > 0).any():
        shape = problem.served_tps.shape
        alone: FloatArray = share * np.broadcast_to(missing_replicas[:, None, :], shape)
        return alone
    floor = (problem.min_served_fraction[:, None] * problem.load_tps)[:, :, None]
    missing_served = np.maximum(0.0, floor - problem.served_tps)
    missing_served = np.where(
        missing_served > FLOOR_TOLERANCE * floor, missing_served / np.maximum(floor, 1e-300), 0.0
    )
    shortfall: FloatArray = share * (missing_replicas[:, None, :] + missing_served)
    return shortfall
