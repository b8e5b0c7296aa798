"""What a choice uses of every limit, recomputed from the problem in plain numpy.

    cap     sum of mean + kappa * (upper - mean), at least what is present   per domain and period
    pool    sum of GPUs                                                      per pool and period
    rise    charged watts less those of the period before                    per domain and period
    fall    the same the other way
    budget  sum over the horizon of s * rate * meter watts of the options    per budget

In the first period ``rise`` and ``fall`` move the watts before it to the right side. A budget is
what the bases of the zones leave of it. Without assurance Expected kappa is 1.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.problem import PlanningProblem
from powercap_solver.recomputed import exact_sum, picked

CAP_TOLERANCE = 1e-9
"""Share of a cap, step or budget by which it may be exceeded."""
CAP, POOL, RISE, FALL, BUDGET = "cap", "pool", "rise", "fall", "budget"
BUDGETS = ("energy_budget_joules", "money_budget", "carbon_budget_grams")
UNITS = {CAP: "W above base", POOL: "GPUs", RISE: "W", FALL: "W", BUDGET: "of the budget"}
_ROUNDING = 1e-12
_JOULES_PER_MWH = 3.6e9
_JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LimitRows:
    """All limits of one kind and what a choice uses of them."""

    kind: str
    names: tuple[str, ...]
    used: FloatArray
    """float64[name, period]; budgets have one period."""
    given: FloatArray
    """float64[name, period]: the limit as the problem gives it; infinite for none."""
    slack: FloatArray
    """float64[name, period]: by how much it may be exceeded."""

    @property
    def excess(self) -> FloatArray:
        """float64[name, period]: used beyond what is given and its slack."""
        beyond: FloatArray = self.used - self.given - self.slack
        return beyond


@dataclass(frozen=True, kw_only=True, eq=False)
class Limits:
    """The limits of a problem, for any choice."""

    problem: PlanningProblem
    kappa: FloatArray
    """float64[domain, period]; empty without assurance Expected."""

    @cached_property
    def _order(self) -> tuple[IntArray, list[int]]:
        """Draws sorted by domain, and where each domain begins and the last one ends."""
        domain = self.problem.draw_domain
        order = np.argsort(domain, kind="stable")
        places = np.arange(len(self.problem.domains) + 1)
        return order, np.searchsorted(domain[order], places).tolist()

    def _members(self, domain: int) -> IntArray:
        order, begins = self._order
        return order[begins[domain] : begins[domain + 1]]

    def _by_domain(self, watts: FloatArray) -> FloatArray:
        """float64[domain, period]: exact sums of float64[draw, period]."""
        order, begins = self._order
        columns = watts[order].T.tolist()
        sums = [
            [math.fsum(column[begin:end]) for column in columns]
            for begin, end in itertools.pairwise(begins)
        ]
        return np.array(sums, dtype=np.float64).reshape(self.problem.cap_watts.shape)

    def charged(self, choice: IntArray) -> FloatArray:
        """float64[draw, period]: W above base charged under int64[deployment, period]."""
        problem = self.problem
        taken = choice[problem.draw_deployment]
        watts = picked(problem.upper_watts, taken)
        if problem.expected is not None:
            mean = picked(problem.expected.mean_watts, taken)
            watts = mean + self.kappa[problem.draw_domain] * (watts - mean)
        if problem.dynamics is not None:
            watts = np.maximum(watts, problem.dynamics.present_upper_watts)
        return watts

    def drawn(self, choice: IntArray) -> FloatArray:
        """float64[domain, period]: W above base charged."""
        return self._by_domain(self.charged(choice))

    def aggregate(self, choice: IntArray) -> FloatArray | None:
        """float64[domain, period]: the aggregate bound; None without assurance Expected.

        ``sum mean + Q(sum over d of residual[sample,d] * w[d])``, w = upper - mean.
        """
        problem, expected = self.problem, self.problem.expected
        if expected is None:
            return None
        taken = choice[problem.draw_deployment]
        mean = picked(expected.mean_watts, taken)
        w = picked(problem.upper_watts, taken) - mean
        bound = self._by_domain(mean)
        samples = len(expected.residual)
        # The smallest sample value that at least the coverage's share does not exceed.
        place = math.ceil(expected.coverage * samples * (1 - _ROUNDING)) - 1
        for domain in range(len(problem.domains)):
            draws = self._members(domain)
            sums = expected.residual[:, problem.draw_deployment[draws]] @ w[draws]
            bound[domain] += np.sort(sums, axis=0)[min(place, samples - 1)]
        return bound

    def rows(self, choice: IntArray) -> tuple[LimitRows, ...]:
        """Every limit and its use under ``choice`` (int64[deployment, period])."""
        drawn = self.drawn(choice)
        problem = self.problem
        caps = LimitRows(
            kind=CAP,
            names=problem.domains,
            used=drawn,
            given=problem.available_watts,
            slack=CAP_TOLERANCE * problem.cap_watts,
        )
        return (caps, *self._pools(choice), *self._steps(drawn), *self._budgets(choice))

    def _pools(self, choice: IntArray) -> list[LimitRows]:
        pools = self.problem.pools
        if pools is None:
            return []
        used = np.array(
            [np.take_along_axis(gpus, choice, axis=1).sum(axis=0) for gpus in pools.gpus],
            dtype=np.float64,
        ).reshape(pools.gpu_count.shape)
        # GPUs are whole: a quarter of one is neither rounding nor a GPU.
        slack = np.full(used.shape, 0.25)
        given = pools.gpu_count.astype(np.float64)
        return [LimitRows(kind=POOL, names=pools.names, used=used, given=given, slack=slack)]

    def _steps(self, drawn: FloatArray) -> list[LimitRows]:
        problem, dynamics = self.problem, self.problem.dynamics
        if dynamics is None:
            return []
        rise = np.diff(drawn, axis=1, prepend=0.0)
        initial = dynamics.initial_upper_watts
        largest = problem.cap_watts.max(axis=1, initial=1.0)
        slack = np.broadcast_to(CAP_TOLERANCE * largest[:, None], drawn.shape)
        found = []
        for kind, sign, most in (
            (RISE, 1.0, dynamics.max_rise_watts),
            (FALL, -1.0, dynamics.max_fall_watts),
        ):
            given = np.repeat(most[:, None], drawn.shape[1], axis=1)
            given[:, :1] += np.where(np.isnan(initial), np.inf, sign * initial)[:, None]
            used = sign * rise
            found.append(
                LimitRows(kind=kind, names=problem.domains, used=used, given=given, slack=slack)
            )
        return found

    def rates(self, budget: str) -> FloatArray:
        """float64[zone, period]: amount per joule of GPUs and hosts."""
        grid = self.problem.grid
        assert grid is not None
        meter = np.broadcast_to(grid.overhead_factor[:, None], grid.price_per_mwh.shape)
        if budget == "money_budget":
            rate = meter * (grid.price_per_mwh / _JOULES_PER_MWH)
        elif budget == "carbon_budget_grams":
            rate = meter * (grid.carbon_g_per_kwh / _JOULES_PER_KWH)
        else:
            rate = meter
        return np.asarray(rate * self.problem.period_seconds, dtype=np.float64)

    def _budgets(self, choice: IntArray) -> list[LimitRows]:
        problem, grid = self.problem, self.problem.grid
        if grid is None:
            return []
        used, given, slack = np.zeros((3, 1)), np.full((3, 1), np.inf), np.zeros((3, 1))
        for place, name in enumerate(BUDGETS):
            limit = float(getattr(grid, name))
            if math.isinf(limit):
                continue
            rate = self.rates(name)
            spent = rate[problem.zone_index] * picked(problem.power_watts, choice)
            base = exact_sum(rate * problem.zone_base_watts)
            used[place], given[place] = exact_sum(spent), limit - base
            rounding = float(np.abs(spent).sum()) + abs(base)
            slack[place] = CAP_TOLERANCE * abs(limit) + _ROUNDING * rounding
        return [LimitRows(kind=BUDGET, names=BUDGETS, used=used, given=given, slack=slack)]

    def effective(self, rows: LimitRows) -> FloatArray:
        """float64[name, period]: the limits, each at least the least use there is."""
        limit = rows.given.copy()
        if rows.kind in (RISE, FALL):
            return limit
        for place, period in np.argwhere(rows.excess > 0).tolist():
            least = self._least(rows.kind, place, period)
            if least > rows.given[place, period] + rows.slack[place, period]:
                limit[place, period] = least
        return limit

    @cached_property
    def _least_found(self) -> dict[tuple[str, int, int], float]:
        return {}

    def _least(self, kind: str, place: int, period: int) -> float:
        """The least that any choice uses of a cap, pool or budget."""
        key = (kind, place, period)
        if key not in self._least_found:
            table, real = self.table(kind, place, period)
            self._least_found[key] = exact_sum(np.where(real, table, np.inf).min(axis=1))
        return self._least_found[key]

    def table(self, kind: str, place: int, period: int) -> tuple[FloatArray, BoolArray]:
        """Use of the limit by option, and which are real: [n, option] each.

        Of a cap, pool or budget; n counts draws, deployments, or deployments times periods.
        """
        problem = self.problem
        real = problem.is_option
        if kind == POOL:
            assert problem.pools is not None
            return problem.pools.gpus[place].astype(np.float64), real
        if kind == BUDGET:
            rate = self.rates(BUDGETS[place])[problem.zone_index]
            spent = rate[:, :, None] * problem.power_watts
            periods = spent.shape[1]
            return spent.reshape(-1, spent.shape[2]), np.repeat(real, periods, axis=0)
        draws = self._members(place)
        watts = problem.upper_watts[draws, period]
        if problem.expected is not None:
            mean = problem.expected.mean_watts[draws, period]
            watts = mean + self.kappa[place, period] * (watts - mean)
        if problem.dynamics is not None:
            watts = np.maximum(watts, problem.dynamics.present_upper_watts[draws, period, None])
        return watts, real[problem.draw_deployment[draws]]

    def next_need(self, kind: str, place: int, period: int, choice: IntArray) -> float:
        """The least by which another option of anyone would use more; infinite for none."""
        if kind in (RISE, FALL):
            sign = 1.0 if kind == RISE else -1.0
            needs = [self._need(CAP, place, period, choice, sign)]
            if period > 0:
                needs.append(self._need(CAP, place, period - 1, choice, -sign))
            return min(needs)
        return self._need(kind, place, period, choice, 1.0)

    def _need(self, kind: str, place: int, period: int, choice: IntArray, sign: float) -> float:
        table, real = self.table(kind, place, period)
        if kind == BUDGET:
            now = choice.ravel()
        elif kind == POOL:
            now = choice[:, period]
        else:
            now = choice[self.problem.draw_deployment[self._members(place)], period]
        more = sign * (table - np.take_along_axis(table, now[:, None], axis=1))
        return float(np.min(more, where=real & (more > 0), initial=np.inf))

    def summed_upper(self) -> FloatArray:
        """float64[deployment, period, option]: upper W above base over all domains."""
        problem = self.problem
        total = np.zeros(problem.served_tps.shape)
        for domain in range(len(problem.domains)):
            draws = self._members(domain)
            # A deployment draws once in a domain: no index repeats within one addition.
            total[problem.draw_deployment[draws]] += problem.upper_watts[draws]
        return total
