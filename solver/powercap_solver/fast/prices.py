"""Prices of many rows: the Lagrangian dual, smoothed and followed by Newton's method.

With prices p >= 0 of the rows, limits b, and c[g,k] = sum over rows of p a[g,k]:

    L(p)   = p b + sum over g of max over k of (v[g,k] - c[g,k])            the bound
    L_h(p) = p b + sum over g of h log sum over k of exp((v[g,k] - c[g,k]) / h)

L_h is smooth, above L by at most h log(options) per group, and its derivatives are moments of
each group's options under the weights exp(.. / h): gradient b - sum E[a], Hessian
sum Cov[a, a'] / h. A group is touched by few rows, so both are sums over slots. Newton's method
with the bound p >= 0 (projected, Bertsekas 1982) follows the minimum while h falls from stage to
stage; the weights at the end are a nearly optimal solution of the linear relaxation, the exact L
at the best prices is the bound. Smoothing: Nesterov, *Smooth minimization of non-smooth
functions*, 2005; the dual itself is that of Dantzig and Wolfe's master problem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.fast.rowtable import RowTable

_FIRST_HEAT = 0.3
"""Smoothing of the first stage, as a share of a group's mean value."""
_COOLING = 0.2
_STEPS_PER_STAGE = 6
_LEVENBERG = 1e-9
_DAMPINGS = 5
_MOST_PRICE = 1e9
"""Scaled: a price at which one unit of a row is worth a billion times the whole value."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prices:
    """Prices with the bound they prove."""

    price: FloatArray
    """float64[rows], scaled."""
    bound: float
    """Scaled; no choice is worth more."""
    choice: IntArray
    """int64[group]: best at the prices."""


def dual_bound(table: RowTable, price: FloatArray) -> tuple[float, IntArray]:
    """The bound that ``price`` (float64[rows]) proves, scaled, and the choice best at it."""
    worth = table.value - table.penalty(price)
    choice = np.argmax(worth, axis=1)
    best = worth[np.arange(len(choice)), choice]
    used = price[price > 0] * table.limit[:-1][price > 0]
    bound = math.fsum([*used, *best])
    # What rounding may have lost, generously.
    bound += 1e-15 * (float(np.abs(used).sum()) + float(np.abs(best).sum())) * len(table.row)
    return bound, choice


def find_prices(table: RowTable, *, gap: float, start: FloatArray | None = None) -> Prices:
    """Minimise the dual until smoothing costs less than ``gap`` (scaled).

    Args:
        table: the model.
        gap: how far the bound may stay above that of the best prices, scaled.
        start: float64[rows], scaled prices to start from, near the best.
    """
    groups, options = table.value.shape
    least_heat = max(gap, 1e-13) / (2.0 * groups * math.log(options + 1.0))
    heat = max(least_heat, _FIRST_HEAT / groups)
    price = np.zeros(table.rows) if start is None else np.maximum(start, 0.0)
    if start is not None:
        heat = max(least_heat, 1e-2 * heat)
    best = Prices(price=price, bound=math.inf, choice=np.zeros(groups, dtype=np.int64))
    while True:
        price = _follow(table, price, heat)
        bound, choice = dual_bound(table, price)
        if bound < best.bound:
            best = Prices(price=price, bound=bound, choice=choice)
        if heat <= least_heat:
            return best
        heat = max(least_heat, heat * _COOLING)


def curvature_of(table: RowTable, price: FloatArray) -> FloatArray:
    """float64[rows]: second derivatives of the dual, smoothed by a hundredth of a group's value."""
    curvature: FloatArray = np.diag(_moments(table, price, 1e-2 / len(table.value))[2])
    return curvature


def _follow(table: RowTable, price: FloatArray, heat: float) -> FloatArray:
    """A few Newton steps at one smoothing."""
    smooth, gradient, hessian = _moments(table, price, heat)
    for _ in range(_STEPS_PER_STAGE):
        step = _newton_point(price, gradient, hessian) - price
        moved = _line_search(table, price, step, smooth, gradient, heat)
        if moved is None:
            break
        decrease = smooth - moved[1]
        price = moved[0]
        smooth, gradient, hessian = _moments(table, price, heat)
        if decrease <= 0.02 * heat * len(table.value):
            break
    return price


def _newton_point(price: FloatArray, gradient: FloatArray, hessian: FloatArray) -> FloatArray:
    """The prices >= 0 at which the quadratic model at ``price`` is least."""
    diagonal = np.maximum(np.diag(hessian), 0.0)
    damping = _LEVENBERG
    for _ in range(_DAMPINGS):
        least = damping * max(float(diagonal.max(initial=0.0)), 1e-300)
        try:
            factor = np.linalg.cholesky(hessian + np.diag(damping * diagonal + least))
        except np.linalg.LinAlgError:
            # Rounding of the moments: where little is smoothed, variances are differences.
            damping *= 100.0
            continue
        target = np.linalg.solve(factor, hessian @ price - gradient)
        if not np.isfinite(target).all():
            return price
        try:
            point: FloatArray = nnls(factor.T, target)[0]
        except RuntimeError:
            # Too many iterations: this point is no better than the one there is.
            return price
        return point
    return price


def _line_search(
    table: RowTable,
    price: FloatArray,
    step: FloatArray,
    smooth: float,
    gradient: FloatArray,
    heat: float,
) -> tuple[FloatArray, float] | None:
    length = 1.0
    for _ in range(12):
        following = np.clip(price + length * step, 0.0, _MOST_PRICE)
        slope = float(gradient @ (following - price))
        if slope >= 0:
            return None
        value = _smooth(table, following, heat)
        if value <= smooth + 0.1 * slope:
            return following, value
        length *= 0.4
    return None


def _weights(table: RowTable, price: FloatArray, heat: float) -> tuple[FloatArray, float]:
    """Weights of the options, float64[group, option], and the smoothed dual without limits."""
    # A step far too long may overflow: its value is then no number and the step is refused.
    with np.errstate(over="ignore", invalid="ignore"):
        worth = (table.value - table.penalty(price)) / heat
        most = worth.max(axis=1, keepdims=True)
        weights = np.exp(worth - most)
        total = weights.sum(axis=1, keepdims=True)
        weights /= total
        smooth = heat * float((most + np.log(total)).sum())
    return weights, smooth


def _smooth(table: RowTable, price: FloatArray, heat: float) -> float:
    return _weights(table, price, heat)[1] + float(price @ table.limit[:-1])


def _moments(
    table: RowTable, price: FloatArray, heat: float
) -> tuple[float, FloatArray, FloatArray]:
    """Smoothed dual, gradient (float64[rows]) and Hessian (float64[rows, rows])."""
    weights, total = _weights(table, price, heat)
    slots, rows = len(table.row), table.rows + 1
    weighted = table.coefficient * weights
    mean = weighted.sum(axis=2)
    used = np.bincount(table.row.ravel(), weights=mean.ravel(), minlength=rows)
    hessian = np.zeros(rows * rows)
    for one in range(slots):
        for other in range(one, slots):
            product = np.einsum("gk,gk->g", weighted[one], table.coefficient[other])
            covariance = product - mean[one] * mean[other]
            place = table.row[one] * rows + table.row[other]
            part = np.bincount(place, weights=covariance, minlength=rows * rows)
            hessian += part
            if other != one:
                hessian += part.reshape(rows, rows).T.ravel()
    square = hessian.reshape(rows, rows)[:-1, :-1] / heat
    gradient = table.limit[:-1] - used[:-1]
    return total + float(price @ table.limit[:-1]), gradient, square
