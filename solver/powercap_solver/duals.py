"""Shadow prices: what one more watt of a cap would be worth to stage 2, at the meter.

The duals of the relaxation of stage 2 over x in [0,1], per period: with one cap and no floor
that yielded, exactly and as an interval from the hulls; else from the linear program.
"""

from __future__ import annotations

import logging

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array, vstack

from powercap_solver.floors import Kept
from powercap_solver.lagrangian import relax_one_cap
from powercap_solver.measures import Measures
from powercap_solver.problem import FloatArray

_LOGGER = logging.getLogger(__name__)

_LP_SECONDS = 10.0


def shadow_prices(measures: Measures, kept: Kept) -> tuple[FloatArray, FloatArray]:
    """Lower and upper ends, float64[domain, period]: weighted tokens/s per W at the meter.

    NaN when the linear program fails.
    """
    problem = measures.problem
    if not problem.domains:
        empty = np.zeros(problem.cap_watts.shape)
        return empty, empty.copy()
    if len(problem.domains) == 1 and not kept.floor_rows:
        low, high = _one_cap(measures, kept)
    else:
        low = _linear_program(measures, kept)
        high = low.copy()
    per_meter_watt = problem.period_seconds[None, :] * problem.overhead_factor[:, None]
    return low / per_meter_watt, high / per_meter_watt


def _one_cap(measures: Measures, kept: Kept) -> tuple[FloatArray, FloatArray]:
    low, high = np.zeros(measures.available.shape), np.zeros(measures.available.shape)
    for period in range(measures.shape[1]):
        groups = measures.period == period
        relaxation = relax_one_cap(
            measures.value[groups],
            measures.upper[0, groups],
            kept.allowed[groups],
            float(measures.available[0, period]),
        )
        low[0, period], high[0, period] = relaxation.price_low, relaxation.price_high
    return low, high


def _linear_program(measures: Measures, kept: Kept) -> FloatArray:
    groups, options = np.nonzero(kept.allowed)
    count = len(groups)
    variable = np.full(kept.allowed.shape, -1, dtype=np.int64)
    variable[groups, options] = np.arange(count)
    caps = measures.available.size
    rows, limits = [], []
    for row in kept.rows:
        columns = variable[row.groups]
        used = columns >= 0
        line = (row.coefficient[used], (np.zeros(int(used.sum()), dtype=int), columns[used]))
        rows.append(csr_array(line, shape=(1, count)))
        limits.append(row.limit + row.slack / 2)
    scale = float(np.abs(measures.value).max(initial=0.0)) or 1.0
    result = linprog(
        -measures.value[groups, options] / scale,
        A_ub=vstack(rows),
        b_ub=np.array(limits),
        A_eq=csr_array((np.ones(count), (groups, np.arange(count)))),
        b_eq=np.ones(kept.allowed.shape[0]),
        bounds=(0, None),
        method="highs",
        options={"time_limit": _LP_SECONDS},
    )
    if result.status != 0:
        _LOGGER.warning("no shadow prices: the linear program ended with %s", result.message)
        return np.full(measures.available.shape, np.nan)
    marginals = np.asarray(result.ineqlin.marginals)[:caps]
    prices: FloatArray = np.maximum(0.0, -marginals * scale).reshape(measures.available.shape)
    return prices
