"""The choice model in whole numbers, for OR-Tools' CP-SAT.

Every row, and the objective, is multiplied by a power of two p and rounded. Such a product is
exact in floating point, so rounding is the only error. A row or objective whose products are all
whole below 2^50 is *exact*: whole data always is, unscaled. Otherwise p is the largest that keeps
the worst sum below 2^40, which leaves room for CP-SAT's own sums in 64 bits.

Two programs, with b = limit + slack, what ``Row.holds`` asks for:

    relaxed   sum floor(p a) x <= floor(p b')    b' the next float above b
    tight     sum ceil(p a) x  <= floor(p b)

Floor and ceil go the right way for either sign of a. With a x <= b in float64 (``Row.used`` is
exactly summed) a choice keeps the relaxed row, and one that keeps the tight row has a x <= b. The
objective takes ceil(p value), floor(p change_cost) and, where an option is late, at least
``floor(p late[t,k]) - ceil(p late[t,j])``: never less than p times the true worth.

Proven: CP-SAT's bound of the relaxed program, over p, is a bound on every choice that keeps the
rows within their slack, and the relaxed program has no choice only when the model has none. The
choice returned keeps every row: that of the relaxed program if it does in float64, else that of
the tight one, with the bound of the relaxed one. Where a row or the objective is not exact the
bound lies above the best worth by up to one unit of p per group and link, a share of about
1e-12 * groups, and no proof is stated for what happens within that.

Sizes are whole replicas: ramps and changes are exact.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from ortools.sat.python import cp_model

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.compact.assembled import folded
from powercap_solver.compact.model import (
    ChoiceAnswer,
    ChoiceModel,
    ChoiceSolver,
    Row,
    SolveLimits,
)
from powercap_solver.errors import SolverError
from powercap_solver.links import Links
from powercap_solver.plan import StoppedBy

_LOGGER = logging.getLogger(__name__)

_METHOD = "cp_sat"
_EXACT_SUM = 2.0**50
_ROUNDED_SUM = 2.0**40
_PRESOLVED_SUM = 2**31
"""CP-SAT 9.15 adds up the terms of a row in 32 bits when it presolves, and may then drop a row that
binds (google/or-tools issue 5293, found again by ``test_backends``): above it, no presolve."""
_MOST_BITS = 1000
"""Above it a power of two is no float64."""
_FLOAT_ERRORS = 16 * 2.0**-53
"""Relative error of gains and first losses computed in float64, generously."""
_LEAST_SECONDS = 1e-3


def cp_sat_solver(*, clock: Callable[[], float] = time.perf_counter) -> ChoiceSolver:
    """Return CP-SAT, with one worker, as a function of model and limits.

    Args:
        clock: monotonic seconds, to share a deadline between the programs.
    """

    def solve(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
        start = clock()

        def left() -> float | None:
            if limits.seconds is None:
                return None
            return max(_LEAST_SECONDS, limits.seconds - (clock() - start))

        relaxed = _solve_once(model, limits, left, _relaxed)
        if relaxed.choice is None or model.holds(relaxed.choice):
            return relaxed
        _LOGGER.debug("cp_sat: a choice breaks a row by less than its rounding; tightening rows")
        tight = _solve_once(model, limits, left, _tight)
        if tight.choice is None and tight.stopped_by is StoppedBy.PROOF:
            raise SolverError("cp_sat cannot tell whether a choice exists: rows are too tight")
        return replace(tight, bound=relaxed.bound)

    return solve


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Whole:
    """A row in whole numbers."""

    coefficient: IntArray
    limit: int


_Rounding = Callable[[FloatArray, float, float], _Whole]


def _relaxed(scaled: FloatArray, limit: float, most: float) -> _Whole:
    above = float(np.nextafter(limit, np.inf))
    # Floors may sum to less than the sum by one for each group.
    return _Whole(
        coefficient=np.floor(scaled).astype(np.int64), limit=_floor(above, most + len(scaled))
    )


def _tight(scaled: FloatArray, limit: float, most: float) -> _Whole:
    return _Whole(
        coefficient=np.ceil(scaled).astype(np.int64), limit=_floor(limit, most + len(scaled))
    )


def _floor(limit: float, most: float) -> int:
    """Floor of ``limit``, which means the same outside the sums that can occur."""
    return math.floor(min(max(limit, -most - 1), most + 1))


def _solve_once(
    model: ChoiceModel,
    limits: SolveLimits,
    left: Callable[[], float | None],
    rounding: _Rounding,
) -> ChoiceAnswer:
    program = _Program(model, rounding)
    if not program.model.allowed.any(axis=1).all():
        return _infeasible()
    if model.hint is not None:
        program.hint(model.hint)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.relative_gap_limit = limits.relative_gap
    solver.parameters.absolute_gap_limit = limits.absolute_gap * program.scale
    solver.parameters.cp_model_presolve = program.largest_sum < _PRESOLVED_SUM
    seconds = left()
    if seconds is not None:
        solver.parameters.max_time_in_seconds = seconds
    status = solver.solve(program.cp)
    if status == cp_model.INFEASIBLE:
        return _infeasible()
    if status == cp_model.UNKNOWN:
        # What CP-SAT states as bound is then 0, whatever the objective.
        return ChoiceAnswer(
            choice=None,
            bound=program.bound_of(program.most),
            method=_METHOD,
            stopped_by=StoppedBy.DEADLINE,
        )
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        reason = program.cp.validate()
        raise SolverError(f"cp_sat ended with {solver.status_name(status)}: {reason}")
    choice = program.choice_of(solver)
    # A whole number that CP-SAT hands out with the rounding errors of its scaling.
    bound = program.bound_of(min(round(solver.best_objective_bound), program.most))
    return ChoiceAnswer(
        choice=choice,
        # Its own choice may be worth more by the rounding of float64 sums.
        bound=max(bound, model.worth(choice)),
        method=_METHOD,
        stopped_by=StoppedBy.PROOF if status == cp_model.OPTIMAL else StoppedBy.DEADLINE,
    )


def _infeasible() -> ChoiceAnswer:
    return ChoiceAnswer(choice=None, bound=-math.inf, method=_METHOD, stopped_by=StoppedBy.PROOF)


class _Program:
    """A folded model in CP-SAT; CP-SAT has no array interface, hence the lists."""

    def __init__(self, unfolded: ChoiceModel, rounding: _Rounding) -> None:
        """Write ``unfolded`` down with rows rounded by ``rounding``."""
        self.model = model = folded(unfolded)
        self.cp = cp_model.CpModel()
        self.largest_sum = 0
        self._groups, self._options = np.nonzero(model.allowed)
        self._variables = [self.cp.new_bool_var("") for _ in range(len(self._groups))]
        self._place = np.full(model.allowed.shape, -1, dtype=np.int64)
        self._place[self._groups, self._options] = np.arange(len(self._groups))
        for places in np.split(
            np.arange(len(self._groups)), np.searchsorted(self._groups, range(1, len(model.value)))
        ):
            self.cp.add_exactly_one(self._of(places))
        for row in model.rows:
            self._add_row(row, rounding)
        self._add_objective(has_whole_values=_has_whole_values(unfolded))

    def hint(self, choice: IntArray) -> None:
        """Start from ``choice`` (int64[group])."""
        taken = choice[self._groups] == self._options
        for variable, is_taken in zip(self._variables, taken.tolist(), strict=True):
            self.cp.add_hint(variable, is_taken)

    def choice_of(self, solver: cp_model.CpSolver) -> IntArray:
        """int64[group]: the options that ``solver`` took."""
        taken = np.array([solver.boolean_value(each) for each in self._variables], dtype=bool)
        choice = np.zeros(len(self.model.value), dtype=np.int64)
        choice[self._groups[taken]] = self._options[taken]
        return choice

    def bound_of(self, scaled: float) -> float:
        """Bound on the worth from one on the program's objective."""
        bound = math.fsum([*self._low, scaled / self.scale])
        return bound if self._is_exact else bound + _FLOAT_ERRORS * self._magnitude

    def _of(self, places: IntArray) -> list[cp_model.IntVar]:
        return [self._variables[place] for place in places.tolist()]

    def _sum(self, places: IntArray, weights: IntArray) -> cp_model.LinearExprT:
        self.largest_sum = max(self.largest_sum, int(np.abs(weights).sum()))
        return cp_model.LinearExpr.weighted_sum(self._of(places), weights.tolist())

    def _add_row(self, row: Row, rounding: _Rounding) -> None:
        allowed = self.model.allowed[row.groups]
        coefficient = np.where(allowed, row.coefficient, 0.0)
        worst = math.fsum(np.abs(coefficient).max(axis=1, initial=0.0))
        scale = _scale(coefficient, worst).power
        whole = rounding(coefficient * scale, (row.limit + row.slack) * scale, worst * scale)
        used = allowed & (whole.coefficient != 0)
        places = self._place[row.groups][used]
        self.cp.add(self._sum(places, whole.coefficient[used]) <= whole.limit)

    def _add_objective(self, *, has_whole_values: bool) -> None:
        """Maximise the values less what the links lose, both rounded towards more worth."""
        model, links = self.model, self.model.links
        low = np.min(np.where(model.allowed, model.value, np.inf), axis=1, initial=np.inf)
        self._low = np.where(np.isfinite(low), low, 0.0)
        gain = np.where(model.allowed, model.value - self._low[:, None], 0.0)
        parts = [gain.ravel()]
        worst = math.fsum(gain.max(axis=1, initial=0.0))
        self._magnitude = math.fsum(np.abs(np.where(model.allowed, model.value, 0.0)).max(axis=1))
        if links is not None:
            size = _sizes(links, model.allowed)
            late = _late(links, model.allowed)
            lost = math.fsum(links.change_cost * np.ptp(size, axis=1)) * (links.periods - 1)
            lost += 2 * math.fsum(np.abs(late).max(axis=1))
            parts += [links.change_cost, late.ravel()]
            worst += lost
            self._magnitude += lost
        scale = _scale(np.concatenate(parts), worst)
        self.scale = scale.power
        # Whole values were subtracted exactly; others were rounded before they got here.
        self._is_exact = scale.is_exact and has_whole_values
        objective: list[cp_model.LinearExprT] = []
        whole = np.ceil(gain * self.scale).astype(np.int64)[self._groups, self._options]
        objective.append(self._sum(np.arange(len(whole)), whole))
        self.most = float(np.ceil(gain * self.scale).max(axis=1, initial=0.0).sum())
        if links is not None:
            objective += [-each for each in self._add_links(links, size, late)]
            self.largest_sum += math.ceil(2 * lost * self.scale)
        self.cp.maximize(cp_model.LinearExpr.sum(objective))

    def _add_links(
        self, links: Links, size: IntArray, late: FloatArray
    ) -> list[cp_model.LinearExprT]:
        """Add ramps; returns what is lost, in units of the objective."""
        lost: list[cp_model.LinearExprT] = []
        shape = (len(size), links.periods, size.shape[1])
        place = self._place.reshape(shape)
        cost = np.floor(links.change_cost * self.scale).astype(np.int64)
        now = np.floor(late * self.scale).astype(np.int64).reshape(shape)
        before = np.ceil(late * self.scale).astype(np.int64).reshape(shape)
        most_lost = np.maximum(now.max(axis=2), 0) + np.abs(before).max(axis=2)
        spread = np.ptp(size, axis=1)
        raised = np.floor(np.minimum(links.max_raise, spread + 1)).astype(np.int64)
        lowered = np.floor(np.minimum(links.max_lower, spread + 1)).astype(np.int64)
        for chain in range(len(size)):
            for period in range(1, links.periods):
                last, own = place[chain, period - 1], place[chain, period]
                places, weights = _difference(size[chain], size[chain], last, own)
                step = self._sum(places, weights)
                if raised[chain] < spread[chain]:
                    self.cp.add(step <= int(raised[chain]))
                if lowered[chain] < spread[chain]:
                    self.cp.add(step >= -int(lowered[chain]))
                if cost[chain] > 0:
                    changed = self.cp.new_int_var(0, int(spread[chain]), "")
                    self.cp.add(changed >= step)
                    self.cp.add(changed >= self._sum(places, -weights))
                    lost.append(int(cost[chain]) * changed)
                if late[chain * links.periods + period].any():
                    missed = self.cp.new_int_var(0, int(most_lost[chain, period]), "")
                    gained = _difference(before[chain, period], now[chain, period], last, own)
                    self.cp.add(missed >= self._sum(*gained))
                    lost.append(missed)
        return lost


def _difference(
    of_before: IntArray, of_now: IntArray, before: IntArray, now: IntArray
) -> tuple[IntArray, IntArray]:
    """Places and weights of the sum of ``of_now`` over now less that of ``of_before`` before."""
    is_now, is_before = now >= 0, before >= 0
    places = np.concatenate([now[is_now], before[is_before]])
    return places, np.concatenate([of_now[is_now], -of_before[is_before]])


def _has_whole_values(model: ChoiceModel) -> bool:
    """Whether values and first losses are whole, so that float64 subtracts them exactly."""
    links = model.links
    has_whole_losses = links is None or _is_whole(links.first_losses()[links.first_allowed()])
    return has_whole_losses and _is_whole(model.value[model.allowed])


def _sizes(links: Links, allowed: BoolArray) -> IntArray:
    """int64[chain, option]: replicas; 0 where no period allows the option."""
    chains, options = links.size.shape
    used = allowed.reshape(chains, links.periods, options).any(axis=1)
    size = np.where(used, links.size, 0.0)
    if not _is_whole(size):
        raise SolverError("cp_sat takes whole replicas only; use another method")
    return size.astype(np.int64)


def _late(links: Links, allowed: BoolArray) -> FloatArray:
    """float64[group, option]: late values that any step can take up, 0 elsewhere."""
    if links.late is None:
        return np.zeros(allowed.shape)
    chains, options = links.size.shape
    used = allowed.reshape(chains, links.periods, options).copy()
    # A late value of t is read for the options of t and of t - 1.
    used[:, 1:] |= used[:, :-1].copy()
    late: FloatArray = np.where(used.reshape(allowed.shape), links.late, 0.0)
    return late


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """A power of two."""

    power: float
    is_exact: bool
    """Whether it makes every value whole."""


def _scale(values: FloatArray, worst: float) -> _Scale:
    """Scale that makes ``values`` whole, or as large as sums up to ``worst`` allow."""
    bits = max(0, -_lowest_bit(values))
    if bits <= _MOST_BITS and worst * 2.0**bits <= _EXACT_SUM:
        return _Scale(power=2.0**bits, is_exact=True)
    bits = min(_MOST_BITS, math.floor(math.log2(_ROUNDED_SUM / worst)))
    return _Scale(power=2.0**bits, is_exact=False)


def _lowest_bit(values: FloatArray) -> int:
    """Exponent of the lowest binary digit that any of ``values`` uses."""
    used = values[values != 0]
    if not len(used):
        return 0
    fraction, exponent = np.frexp(used)
    digits = np.abs(fraction * 2.0**53).astype(np.int64)
    _, trailing = np.frexp((digits & -digits).astype(np.float64))
    return int((exponent - 53 + trailing - 1).min())


def _is_whole(values: FloatArray) -> bool:
    return bool((np.abs(values) < 2.0**53).all() and (values == np.floor(values)).all())
