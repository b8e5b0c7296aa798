"""The choice model as one sparse mixed-integer program, the same for every back end.

Columns: one binary per allowed option, then one continuous column >= 0 for what each step of a
chain loses by changing or by starting late. Rows: one option per group; the model's rows, scaled
to a limit of about 1; the ramps; and what ties the continuous columns:

    changed[d,t] >= +-(size of t less size of t - 1)          costs change_cost[d] each
    late[d,t]    >= late value of t's option less that of t - 1's option, both taken in t

The first period's ramp and losses are folded into what is allowed and worth there. Values enter
as gains over each group's least: a common offset would hide small gaps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array, csr_array

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.compact.model import ChoiceModel, Row
from powercap_solver.dominance import undominated
from powercap_solver.links import Links

_FEW_GROUPS = 20_000
"""Above this many groups the search for dominated options costs more than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assembled:
    """Maximise ``objective @ x + offset`` over ``lower <= matrix @ x <= upper``, x >= 0."""

    groups: IntArray
    """int64[binary]."""
    options: IntArray
    """int64[binary]."""
    objective: FloatArray
    """float64[column], binaries first."""
    offset: float
    matrix: csr_array
    """float64[row, column]."""
    lower: FloatArray
    """float64[row], -infinite for none."""
    upper: FloatArray
    """float64[row], infinite for none."""

    @property
    def binaries(self) -> int:
        """How many of the columns, the first ones, are binary."""
        return len(self.groups)

    def choice_of(self, values: FloatArray, shape: tuple[int, int]) -> IntArray:
        """int64[group]: the option of each group that ``values`` (float64[column]) favour."""
        weight = np.full(shape, -np.inf)
        weight[self.groups, self.options] = values[: self.binaries]
        choice: IntArray = np.argmax(weight, axis=1).astype(np.int64)
        return choice

    def binaries_of(self, choice: IntArray) -> FloatArray:
        """float64[binary]: 1 where ``choice`` (int64[group]) takes the option."""
        taken: FloatArray = (choice[self.groups] == self.options).astype(np.float64)
        return taken


def folded(model: ChoiceModel) -> ChoiceModel:
    """Return ``model`` with the first period's ramp and losses in its options and values."""
    links = model.links
    if links is None:
        return model
    allowed, value = model.allowed.copy(), model.value.copy()
    first = slice(None, None, links.periods)
    allowed[first] &= links.first_allowed()
    value[first] = value[first] - links.first_losses()
    free = replace(
        links,
        initial_size=np.full(len(links.size), np.nan),
        initial_late=None if links.initial_late is None else np.full(len(links.size), np.inf),
    )
    return replace(model, allowed=allowed, value=value, links=free)


def without_dominated(model: ChoiceModel) -> ChoiceModel:
    """Return ``model`` less the options that another one matches everywhere; links forbid it."""
    if model.links is not None or len(model.value) > _FEW_GROUPS:
        return model
    costs = [-model.value]
    for row in model.rows:
        cost = np.zeros(model.value.shape)
        cost[row.groups] = row.coefficient
        costs.append(cost)
    return replace(model, allowed=undominated(model.allowed, costs))


def assemble(model: ChoiceModel, *, forgive: float) -> Assembled:
    """Build the program of a folded model.

    Args:
        model: what to solve; ``folded`` first.
        forgive: the back end's own tolerance on a scaled row, kept back of the row's slack.
    """
    groups, options = np.nonzero(model.allowed)
    variable = np.full(model.allowed.shape, -1, dtype=np.int64)
    variable[groups, options] = np.arange(len(groups))
    low = np.min(np.where(model.allowed, model.value, np.inf), axis=1)
    gain = (model.value - low[:, None])[groups, options]
    builder = _Builder(columns=len(groups))
    builder.add_block(groups, np.arange(len(groups)), np.ones(len(groups)), len(low), 1.0, 1.0)
    for row in model.rows:
        _add_row(builder, row, variable, forgive)
    lost = _add_links(builder, model.links, variable) if model.links is not None else []
    return Assembled(
        groups=groups,
        options=options,
        objective=np.concatenate([gain, *(-each for each in lost)]),
        offset=math.fsum(low),
        matrix=builder.matrix(),
        lower=np.concatenate(builder.lower),
        upper=np.concatenate(builder.upper),
    )


class _Builder:
    """Collects blocks of rows as coordinates."""

    def __init__(self, *, columns: int) -> None:
        self.columns = columns
        self.rows = 0
        self.lower: list[FloatArray] = []
        self.upper: list[FloatArray] = []
        self._coordinates: list[tuple[IntArray, IntArray, FloatArray]] = []

    def add_block(
        self,
        rows: IntArray,
        columns: IntArray,
        values: FloatArray,
        count: int,
        lower: float | FloatArray,
        upper: float | FloatArray,
    ) -> None:
        """Add ``count`` rows with entries at (``rows``, ``columns``)."""
        self._coordinates.append((rows + self.rows, columns, values))
        self.lower.append(np.broadcast_to(np.asarray(lower, dtype=float), (count,)))
        self.upper.append(np.broadcast_to(np.asarray(upper, dtype=float), (count,)))
        self.rows += count

    def add_columns(self, count: int) -> IntArray:
        """Add continuous columns and return their places."""
        self.columns += count
        return np.arange(self.columns - count, self.columns)

    def matrix(self) -> csr_array:
        rows, columns, values = (
            np.concatenate([part[index] for part in self._coordinates]) for index in range(3)
        )
        shape = (self.rows, self.columns)
        matrix = csr_array(coo_array((values, (rows, columns)), shape=shape))
        matrix.sort_indices()
        return matrix


def _add_row(builder: _Builder, row: Row, variable: IntArray, forgive: float) -> None:
    columns = variable[row.groups]
    used = (columns >= 0) & (row.coefficient != 0)
    coefficient = row.coefficient[used]
    scale = max(abs(row.limit), float(np.abs(coefficient).max(initial=0.0))) or 1.0
    limit = (row.limit + max(0.0, row.slack - forgive * scale)) / scale
    place = np.zeros(len(coefficient), dtype=np.int64)
    builder.add_block(place, columns[used], coefficient / scale, 1, -np.inf, limit)


def _add_links(builder: _Builder, links: Links, variable: IntArray) -> list[FloatArray]:
    """Add the links of all steps; returns what the new columns cost, block by block."""
    chains, options = links.size.shape
    size = np.where(links.size < np.iinfo(np.int32).max, links.size, 0.0)
    by_chain = variable.reshape(chains, links.periods, options)
    lost = []
    for period in range(1, links.periods):
        before, now = by_chain[:, period - 1], by_chain[:, period]
        is_ramped = np.isfinite(links.max_raise) | np.isfinite(links.max_lower)
        steps = np.flatnonzero(is_ramped)
        _add_steps(
            builder,
            _difference(size, size, before, now, steps),
            len(steps),
            -links.max_lower[steps],
            links.max_raise[steps],
        )
        steps = np.flatnonzero(links.change_cost > 0)
        if len(steps):
            entries = _difference(size, size, before, now, steps)
            columns = builder.add_columns(len(steps))
            own = (np.arange(len(steps)), columns, -np.ones(len(steps)))
            _add_steps(builder, _joined(entries, own), len(steps), -np.inf, 0.0)
            own = (np.arange(len(steps)), columns, np.ones(len(steps)))
            _add_steps(builder, _joined(entries, own), len(steps), 0.0, np.inf)
            lost.append(links.change_cost[steps])
        if links.late is not None:
            late = links.late.reshape(chains, links.periods, options)[:, period]
            steps = np.flatnonzero((late != 0).any(axis=1))
            scale = np.abs(late).max(axis=1) + 1e-300
            scaled = late / scale[:, None]
            entries = _difference(scaled, scaled, before, now, steps)
            columns = builder.add_columns(len(steps))
            own = (np.arange(len(steps)), columns, -np.ones(len(steps)))
            _add_steps(builder, _joined(entries, own), len(steps), -np.inf, 0.0)
            lost.append(scale[steps])
    return lost


_Entries = tuple[IntArray, IntArray, FloatArray]


def _difference(
    of_before: FloatArray, of_now: FloatArray, before: IntArray, now: IntArray, steps: IntArray
) -> _Entries:
    """Entries of ``sum of_now x[t] - sum of_before x[t-1]`` for each of ``steps``."""
    parts = []
    for table, columns, sign in ((of_now, now, 1.0), (of_before, before, -1.0)):
        row, option = np.nonzero((columns[steps] >= 0) & (table[steps] != 0))
        values = sign * table[steps[row], option]
        parts.append((row, columns[steps[row], option], values))
    return _joined(*parts)


def _joined(*parts: _Entries) -> _Entries:
    rows, columns, values = (np.concatenate([part[index] for part in parts]) for index in range(3))
    return rows, columns, values


def _add_steps(
    builder: _Builder,
    entries: _Entries,
    count: int,
    lower: float | FloatArray,
    upper: float | FloatArray,
) -> None:
    if count:
        builder.add_block(*entries, count, lower, upper)
