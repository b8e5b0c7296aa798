"""What a plan's choices give, recomputed from the problem in plain numpy and ``math.fsum``.

The arithmetic of ``certificate``; like it, this imports nothing but the problem's and the plan's
types. Sums are written out from their definitions, not taken from the methods. With n the
replicas of the choice and s the seconds of a period:

    S      sum of s * weight * served, less what the links lose
    lost   switching_cost * |n[t] - n[t-1]|, and for who starts late
           s * weight * max(0, served[t, option of t] - served[t, option of t-1])
    W      sum of s * energy_weight * watts, base of the zones included
    worth  what stage 2 maximises: S, or the same with s * weight * log(0.01 + served / load), or
           with s * (served * token price - meter watts * (price + carbon price * carbon))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.problem import PlanningProblem, Utility

THROUGHPUT_PER_WATT, THROUGHPUT, NET_VALUE = "throughput_per_watt", "throughput", "net_value"
OBJECTIVES = (THROUGHPUT_PER_WATT, THROUGHPUT, NET_VALUE)
FLOORS, SERVED, RATIO, CHANGE, BACK = (
    "floors",
    "served",
    "throughput_per_watt",
    "least_change",
    "give_back",
)
_FLOOR_TOLERANCE = 1e-9
_FAIR_OFFSET = 0.01
_JOULES_PER_MWH = 3.6e9
_JOULES_PER_KWH = 3.6e6


def exact_sum(table: FloatArray) -> float:
    """Sum of all entries, rounded once."""
    return math.fsum(table.ravel().tolist())


def picked(table: FloatArray, choice: IntArray) -> FloatArray:
    """Entries of float64[row, period, option] under int64[row, period]."""
    entries: FloatArray = np.take_along_axis(table, choice[:, :, None], axis=2)[:, :, 0]
    return entries


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """What one choice gives; computed when first asked for."""

    problem: PlanningProblem
    objective: str
    """One of ``OBJECTIVES``: says what ``worth`` is."""
    choice: IntArray
    """int64[deployment, period]."""

    @cached_property
    def replicas(self) -> IntArray:
        """int64[deployment, period]."""
        allowed: IntArray = np.take_along_axis(self.problem.replicas, self.choice, axis=1)
        return allowed

    @cached_property
    def served(self) -> FloatArray:
        """float64[deployment, period], tokens/s."""
        return picked(self.problem.served_tps, self.choice)

    @cached_property
    def steps(self) -> FloatArray:
        """float64[deployment, period]: replicas more than the period before; NaN: not known."""
        replicas = self.replicas.astype(np.float64)
        before = np.full_like(replicas, np.nan)
        before[:, 1:] = replicas[:, :-1]
        dynamics = self.problem.dynamics
        if dynamics is not None:
            initial = dynamics.initial_replicas
            before[:, 0] = np.where(initial >= 0, initial, np.nan)
        change: FloatArray = replicas - before
        return change

    @cached_property
    def breaks_ramps(self) -> BoolArray:
        """bool[deployment, period]: where replicas change faster than they may."""
        dynamics = self.problem.dynamics
        if dynamics is None:
            return np.zeros(self.choice.shape, dtype=bool)
        up, down = dynamics.max_raise[:, None], dynamics.max_lower[:, None]
        too_fast: BoolArray = (up >= 0) & (self.steps > up)
        too_fast |= (down >= 0) & (-self.steps > down)
        return too_fast

    @cached_property
    def lost(self) -> float:
        """What the links lose of S."""
        dynamics = self.problem.dynamics
        if dynamics is None:
            return 0.0
        cost = dynamics.switching_cost[:, None] * np.abs(np.nan_to_num(self.steps))
        return math.fsum([exact_sum(cost[cost > 0]), exact_sum(self._late())])

    def _late(self) -> FloatArray:
        """float64[n]: what is lost where replicas are new, of who starts late."""
        problem = self.problem
        dynamics = problem.dynamics
        assert dynamics is not None
        who = np.flatnonzero(dynamics.starts_late)
        if not who.size:
            return np.zeros(0)
        table, choice = problem.served_tps[who], self.choice[who]
        before = np.empty(choice.shape)
        before[:, 1:] = picked(table[:, 1:], choice[:, :-1])
        # The replicas before the first period serve what the largest option up to them does.
        initial = dynamics.initial_replicas[who]
        covered = problem.is_option[who] & (problem.replicas[who] <= initial[:, None])
        place = np.maximum(covered.sum(axis=1) - 1, 0)
        first = np.where(covered.any(axis=1), table[np.arange(len(who)), 0, place], 0.0)
        before[:, 0] = np.where(initial >= 0, first, np.inf)
        missed = np.maximum(0.0, picked(table, choice) - before)
        late: FloatArray = (problem.weight[who][:, None] * problem.period_seconds * missed).ravel()
        return late

    @cached_property
    def tokens(self) -> FloatArray:
        """float64[deployment, period]: s * weight * served."""
        factor = self.problem.weight[:, None] * self.problem.period_seconds
        weighted: FloatArray = factor * self.served
        return weighted

    @cached_property
    def value(self) -> float:
        """S."""
        return exact_sum(self.tokens) - self.lost

    @cached_property
    def energy(self) -> float:
        """W."""
        problem = self.problem
        weight = problem.energy_weight * problem.period_seconds
        power = weight[problem.zone_index] * picked(problem.power_watts, self.choice)
        return math.fsum([exact_sum(power), exact_sum(weight * problem.zone_base_watts)])

    @property
    def ratio(self) -> float:
        """S / W; 0 when S is not above 0, infinite when that draws nothing."""
        if self.value <= 0:
            return 0.0
        return self.value / self.energy if self.energy != 0 else math.inf

    @property
    def is_fair(self) -> bool:
        """Whether the worth is a proportional-fair utility."""
        return self.objective != NET_VALUE and self.problem.utility is Utility.PROPORTIONAL_FAIR

    @cached_property
    def _worths(self) -> FloatArray:
        problem = self.problem
        if self.objective == NET_VALUE:
            return _money(problem, self.choice, self.served)
        if not self.is_fair:
            return self.tokens
        asks = problem.load_tps > 0
        share = np.where(asks, self.served / np.where(asks, problem.load_tps, 1.0), 1.0)
        factor = problem.weight[:, None] * problem.period_seconds
        utility: FloatArray = factor * np.log(_FAIR_OFFSET + share)
        return utility

    @cached_property
    def worth(self) -> float:
        """What stage 2 maximises."""
        return exact_sum(self._worths) - self.lost

    @cached_property
    def worth_size(self) -> float:
        """Sum of the sizes of what ``worth`` adds up: what its rounding is a share of."""
        return float(np.abs(self._worths).sum()) + self.lost

    @property
    def worth_scale(self) -> float:
        """What a relative loss of worth is a share of."""
        if not self.is_fair:
            return abs(self.worth)
        return exact_sum(self.problem.weight) * exact_sum(self.problem.period_seconds)

    @cached_property
    def missing_replicas(self) -> FloatArray:
        """float64[deployment, period]: missing fraction of the floor on replicas."""
        wanted = self.problem.min_replicas[:, None].astype(np.float64)
        missing: FloatArray = np.maximum(0.0, wanted - self.replicas) / np.maximum(wanted, 1.0)
        return missing

    @cached_property
    def missing_served(self) -> FloatArray:
        """float64[deployment, period]: missing fraction of the floor on what is served."""
        floor = self.problem.min_served_fraction[:, None] * self.problem.load_tps
        missing = floor - self.served
        is_missed = missing > _FLOOR_TOLERANCE * floor
        fraction: FloatArray = np.where(is_missed, missing / np.where(is_missed, floor, 1.0), 0.0)
        return fraction

    @cached_property
    def shortfall(self) -> FloatArray:
        """float64[deployment, period]: missing fractions as shares of the horizon."""
        seconds = self.problem.period_seconds
        share: FloatArray = seconds / exact_sum(seconds)
        return share * (self.missing_replicas + self.missing_served)

    @cached_property
    def class_shortfalls(self) -> dict[int, float]:
        """Shortfall by priority."""
        return {
            level: exact_sum(self.shortfall[self.problem.priority == level])
            for level in np.unique(self.problem.priority).tolist()
        }


def objective_of(name: str, chosen: Chosen, before: Chosen) -> float:
    """The objective of the stage ``name``, from its choice and that of the stage before."""
    problem = chosen.problem
    if name == FLOORS:
        return exact_sum(chosen.shortfall)
    if name == SERVED:
        return chosen.worth
    if name == RATIO:
        return chosen.ratio
    if name == CHANGE:
        in_force = problem.replicas_in_force[:, None]
        reference = np.where(in_force >= 0, in_force, before.replicas)
        return float(np.abs(chosen.replicas - reference).sum())
    return exact_sum(problem.weight[:, None] * (chosen.replicas - before.replicas))


def _money(problem: PlanningProblem, choice: IntArray, served: FloatArray) -> FloatArray:
    """float64[deployment, period]: earned by tokens less energy and carbon paid."""
    grid = problem.grid
    assert grid is not None
    assert grid.token_price_per_million is not None
    earned = grid.token_price_per_million[:, None] * served / 1e6
    tonnes = grid.carbon_g_per_kwh / _JOULES_PER_KWH / 1e6
    cost = grid.price_per_mwh / _JOULES_PER_MWH + grid.carbon_price_per_tonne * tonnes
    meter = (grid.overhead_factor[:, None] * cost)[problem.zone_index]
    money: FloatArray = problem.period_seconds * (
        earned - meter * picked(problem.power_watts, choice)
    )
    return money
