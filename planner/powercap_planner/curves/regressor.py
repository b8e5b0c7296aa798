r"""The power curve of one replica as a scikit-learn estimator.

Model, x load per replica (tokens/s), w its watts:

    w(x) = min(ceiling, idle + swing x / (x + half) + fade(x) boost(x))

The base is concave and continuous and starts at the idle anchor; boosting learns what is left
of the residual. Trees are constant outside the data, so ``boost`` is taken at the nearest load
seen, and fades linearly to 0 between the lowest load seen and 0, where only the anchor is known.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.utils.validation import check_is_fitted, validate_data

from powercap_planner.observations import FloatArray

_HALF_LOADS = np.geomspace(0.01, 10.0, 31)
"""Candidates of ``half`` as a multiple of the largest load."""


class PowerCurveRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # untyped bases
    """Concave base with an idle anchor, plus gradient boosting on its residual.

    The first column of ``X`` is the load; further columns are seen by the boosting alone.

    Args:
        idle_watts: watts at load 0; None learns it with the rest.
        ceiling_watts: no prediction is above; None for no ceiling.
        n_estimators: trees of the boosting.
        max_depth: depth of a tree.
        learning_rate: shrinkage of a tree.
        min_boosting_samples: with fewer samples the base stands alone.
        random_state: seed of the boosting.

    Attributes:
        idle_watts_, swing_watts_, half_load_: the base.
        support_low_, support_high_: least and largest load seen.
        boosting_: the fitted boosting, None when there were too few samples.
    """

    def __init__(
        self,
        *,
        idle_watts: float | None = None,
        ceiling_watts: float | None = None,
        n_estimators: int = 50,
        max_depth: int = 2,
        learning_rate: float = 0.1,
        min_boosting_samples: int = 20,
        random_state: int | None = None,
    ) -> None:
        self.idle_watts = idle_watts
        self.ceiling_watts = ceiling_watts
        self.n_estimators = n_estimators
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.min_boosting_samples = min_boosting_samples
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803 - scikit-learn's name
        """Learn the curve.

        Args:
            X: float64[sample, feature], load per replica first.
            y: float64[sample], watts per replica.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)  # noqa: N806
        load = np.maximum(X[:, 0], 0.0)
        self.support_low_ = float(load.min())
        self.support_high_ = float(load.max())
        self._fit_base(load, np.asarray(y, dtype=np.float64))
        self.boosting_ = None
        if y.size >= self.min_boosting_samples:
            self.boosting_ = GradientBoostingRegressor(
                n_estimators=self.n_estimators,
                max_depth=self.max_depth,
                learning_rate=self.learning_rate,
                min_samples_leaf=max(1, y.size // 50),
                random_state=self.random_state,
            ).fit(X, y - self._base(load))
        return self

    def predict(self, X: Any) -> FloatArray:  # noqa: N803 - scikit-learn's name
        """Return the mean watts per replica, float64[sample]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)  # noqa: N806
        load = np.maximum(X[:, 0], 0.0)
        watts = self._base(load)
        if self.boosting_ is not None:
            nearest = np.array(X)
            nearest[:, 0] = np.clip(load, self.support_low_, self.support_high_)
            low = self.support_low_
            fade = np.minimum(load / low, 1.0) if low > 0 else 1.0
            watts = watts + fade * self.boosting_.predict(nearest)
        if self.ceiling_watts is not None:
            watts = np.minimum(watts, self.ceiling_watts)
        return watts

    def _fit_base(self, load: FloatArray, watts: FloatArray) -> None:
        """Least squares over (idle, swing) for each candidate ``half``; the best is kept."""
        scale = self.support_high_ if self.support_high_ > 0 else 1.0
        best = np.inf
        for half in scale * _HALF_LOADS:
            shape = load / (load + half)
            idle, swing = self._idle_and_swing(shape, watts)
            error = float(np.square(idle + swing * shape - watts).sum())
            if error < best:
                best = error
                self.idle_watts_, self.swing_watts_, self.half_load_ = idle, swing, float(half)

    def _idle_and_swing(self, shape: FloatArray, watts: FloatArray) -> tuple[float, float]:
        if self.idle_watts is not None:
            power = float(shape @ shape)
            swing = float(shape @ (watts - self.idle_watts)) / power if power > 0 else 0.0
            return float(self.idle_watts), max(swing, 0.0)
        spread = shape - shape.mean()
        power = float(spread @ spread)
        # A negative swing would make the base convex: flat is the nearest concave shape.
        swing = max(float(spread @ watts) / power, 0.0) if power > 1e-12 else 0.0
        return float(watts.mean() - swing * shape.mean()), swing

    def _base(self, load: FloatArray) -> FloatArray:
        result: FloatArray = self.idle_watts_ + self.swing_watts_ * load / (load + self.half_load_)
        return result

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # A curve of one load: scikit-learn's checks score it on ten unrelated features.
        tags.regressor_tags.poor_score = True
        return tags
