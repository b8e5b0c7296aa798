"""The least caps that would have kept every floor.

For every domain and period where floors yielded: the least cap with the other rows as given, and
one factor on all caps together, the least that keeps every floor. Links are left aside: what is
asked is the size of the caps, not how fast they may be reached.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.compact.model import ChoiceModel, Row, cheapest
from powercap_solver.context import Context
from powercap_solver.measures import CAP_TOLERANCE, Measures
from powercap_solver.plan import StoppedBy, YieldedFloor

_HALVINGS = 30
_FACTOR_TOLERANCE = 1e-6


def least_caps(context: Context, yielded: tuple[YieldedFloor, ...]) -> FloatArray:
    """float64[domain, period]: least cap at the meter that keeps every floor; NaN for none.

    Raises:
        SolverError: when the back end fails.
    """
    measures = context.measures
    problem = measures.problem
    least = np.full(problem.cap_watts.shape, np.nan)
    meets_all = _meets_all(measures)
    if meets_all is None or not yielded:
        return least
    for period in sorted({floor.period for floor in yielded}):
        groups = measures.period == period
        allowed = np.where(groups[:, None], meets_all, measures.allowed)
        rows = [row for row in measures.rows if row.place[1:] == (period,) and row.kind != "budget"]
        for domain in range(len(problem.domains)):
            own, others = _cap_of(rows, domain)
            if own is None:
                continue
            value = np.zeros(measures.allowed.shape)
            value[own.groups] = -own.coefficient
            model = ChoiceModel(value=value, allowed=allowed, rows=others)
            answer = context.maximise(model)
            if answer.choice is None or answer.stopped_by is not StoppedBy.PROOF:
                continue
            least[domain, period] = _meter_watts(measures, domain, period, own.used(answer.choice))
    return least


def least_common_factor(context: Context, yielded: tuple[YieldedFloor, ...]) -> float:
    """Least factor on every cap that keeps every floor; NaN when not known.

    Raises:
        SolverError: when the back end fails.
    """
    measures = context.measures
    meets_all = _meets_all(measures)
    if meets_all is None or not yielded:
        return math.nan
    caps = [row for row in measures.rows if row.kind == "cap"]
    others = tuple(row for row in measures.rows if row.kind == "pool")
    easy = cheapest(measures.charge, -measures.value, meets_all)
    if not all(row.holds(easy) for row in others):
        return math.nan
    low, high = 1.0, max(1.0, _factor_of(measures, caps, easy))
    value = np.where(meets_all, -measures.charge, -np.inf)
    for _ in range(_HALVINGS):
        if high - low <= _FACTOR_TOLERANCE * high:
            break
        middle = 0.5 * (low + high)
        rows = tuple(replace(row, limit=_scaled_limit(measures, row, middle)) for row in caps)
        model = ChoiceModel(
            value=np.where(meets_all, value, 0.0), allowed=meets_all, rows=(*rows, *others)
        )
        # Any choice that fits answers: how good it is does not matter.
        answer = context.maximise(model, relative_gap=0.5)
        if answer.choice is not None:
            high = min(middle, max(low, _factor_of(measures, caps, answer.choice)))
        elif answer.stopped_by is StoppedBy.PROOF:
            low = middle
        else:
            return math.nan
    return high * (1 + CAP_TOLERANCE / 10)


def _meets_all(measures: Measures) -> BoolArray | None:
    meets: BoolArray = measures.allowed & (measures.shortfall <= 0)
    return meets if meets.any(axis=1).all() else None


def _cap_of(rows: list[Row], domain: int) -> tuple[Row | None, tuple[Row, ...]]:
    own = None
    others = []
    for row in rows:
        if row.kind == "cap" and row.place[0] == domain:
            own = row
        elif row.kind in ("cap", "pool"):
            others.append(row)
    return own, tuple(others)


def _scaled_limit(measures: Measures, row: Row, factor: float) -> float:
    """Watts above base that remain under ``factor`` times the row's cap."""
    domain, period = row.place
    problem = measures.problem
    cap = float(problem.cap_watts[domain, period])
    more = (factor - 1.0) * cap / float(problem.overhead_factor[domain])
    return float(problem.available_watts[domain, period]) + more


def _factor_of(measures: Measures, caps: list[Row], choice: IntArray) -> float:
    """The least common factor under which ``choice`` keeps every cap."""
    problem = measures.problem
    factor = 0.0
    for row in caps:
        domain, period = row.place
        cap = float(problem.cap_watts[domain, period])
        watts = _meter_watts(measures, domain, period, row.used(choice))
        factor = max(factor, watts / cap if cap > 0 else math.inf)
    return factor


def _meter_watts(measures: Measures, domain: int, period: int, above_base: float) -> float:
    problem = measures.problem
    watts = math.fsum(
        [
            above_base,
            problem.base_watts[domain, period],
            problem.unmanaged_watts[domain, period],
            problem.fixed_watts[domain, period],
        ]
    )
    meter = watts * problem.overhead_factor[domain] + problem.fixed_overhead_watts[domain]
    # Rounded up by less than the tolerance of the cap, so that solving at it keeps the floors.
    return float(meter * (1 + CAP_TOLERANCE / 10))
