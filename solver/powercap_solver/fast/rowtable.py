"""Many rows as slots of groups: what pricing, repair and exchange compute with.

A group is touched by few rows (its rack, its row, the cluster, a pool), so the coefficients are
kept by *slot*: ``coefficient[s,g,k]`` belongs to row ``row[s,g]``. Groups touched by fewer rows
than there are slots point to a last, empty row whose limit is never reached. Rows are scaled to a
limit of about 1 and values to a total of about 1, so that tolerances mean the same everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.compact.model import ChoiceModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowTable:
    """A choice model with its rows by slot, scaled."""

    value: FloatArray
    """float64[group, option], scaled; -inf where not allowed."""
    allowed: BoolArray
    """bool[group, option]."""
    row: IntArray
    """int64[slot, group]; ``rows`` (the empty row) where the slot is not used."""
    coefficient: FloatArray
    """float64[slot, group, option], scaled."""
    limit: FloatArray
    """float64[rows + 1], scaled, half the slack included; infinite for the empty row."""
    value_scale: float
    """Value per scaled value."""
    row_scale: FloatArray
    """float64[rows]: unit of each row per scaled unit."""

    @property
    def rows(self) -> int:
        """Rows, the empty one apart."""
        return len(self.limit) - 1

    def used(self, choice: IntArray) -> FloatArray:
        """float64[rows + 1]: left-hand sides under ``choice`` (int64[group])."""
        picked = self.coefficient[:, np.arange(len(choice)), choice]
        used = np.bincount(self.row.ravel(), weights=picked.ravel(), minlength=self.rows + 1)
        return used.astype(np.float64)

    def penalty(self, prices: FloatArray) -> FloatArray:
        """float64[group, option]: what ``prices`` (float64[rows]) charge for each option."""
        by_slot = np.append(prices, 0.0)[self.row]
        total: FloatArray = by_slot[0][:, None] * self.coefficient[0]
        for slot in range(1, len(self.row)):
            total += by_slot[slot][:, None] * self.coefficient[slot]
        return total

    def shifts(self, choice: IntArray, groups: IntArray) -> FloatArray:
        """float64[slot, n, option]: use above that of ``choice``, for some ``groups``."""
        coefficient = self.coefficient[:, groups]
        now = coefficient[:, np.arange(len(groups)), choice[groups]]
        shift: FloatArray = coefficient - now[:, :, None]
        return shift

    def unscaled_prices(self, prices: FloatArray) -> FloatArray:
        """float64[rows]: value per unit of each row."""
        unscaled: FloatArray = prices * self.value_scale / self.row_scale
        return unscaled

    def scaled_prices(self, prices: FloatArray) -> FloatArray:
        """float64[rows]: the inverse of ``unscaled_prices``."""
        scaled: FloatArray = prices / self.value_scale * self.row_scale
        return scaled


def table_of(model: ChoiceModel) -> RowTable:
    """Arrange the rows of ``model`` by slot."""
    groups, options = model.value.shape
    depth = np.zeros(groups, dtype=np.int64)
    for row in model.rows:
        depth[row.groups] += 1
    slots, rows = max(1, int(depth.max(initial=0))), len(model.rows)
    place = np.full((slots, groups), rows, dtype=np.int64)
    coefficient = np.zeros((slots, groups, options))
    limit, scale = np.full(rows + 1, np.inf), np.ones(rows)
    depth[:] = 0
    for index, row in enumerate(model.rows):
        biggest = float(np.abs(row.coefficient).max(initial=0.0))
        scale[index] = max(abs(row.limit), biggest) or 1.0
        limit[index] = (row.limit + row.slack / 2) / scale[index]
        slot = depth[row.groups]
        place[slot, row.groups] = index
        coefficient[slot, row.groups] = row.coefficient / scale[index]
        depth[row.groups] += 1
    masked = np.where(model.allowed, model.value, -np.inf)
    low = np.min(np.where(model.allowed, model.value, np.inf), axis=1)
    spread = math.fsum(masked.max(axis=1) - low)
    value_scale = spread if spread > 0 else 1.0
    return RowTable(
        value=masked / value_scale,
        allowed=model.allowed,
        row=place,
        coefficient=coefficient,
        limit=limit,
        value_scale=value_scale,
        row_scale=scale,
    )
