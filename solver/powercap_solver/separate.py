"""What of a choice model needs no back end: what no row binds, and parts that no row links."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from powercap_solver.arrays import IntArray
from powercap_solver.chains import best_paths
from powercap_solver.compact.model import (
    ChoiceAnswer,
    ChoiceModel,
    ChoiceSolver,
    SolveLimits,
    best_of_each,
)
from powercap_solver.plan import StoppedBy


def solve_model(model: ChoiceModel, limits: SolveLimits, solver: ChoiceSolver) -> ChoiceAnswer:
    """Solve ``model``, asking the back end only where rows bind.

    Raises:
        SolverError: when the back end fails.
    """
    if any(not len(row.groups) and row.limit + row.slack < 0 for row in model.rows):
        return _infeasible()
    fitting = without_oversized(model)
    best, most = best_without_rows(fitting)
    if best is None:
        return _infeasible()
    if fitting.holds(best):
        answer = _separable(fitting, best, most)
        # An option too large to fit may still be wanted in part: the rows may have a price.
        is_whole = bool((fitting.allowed == model.allowed).all())
        return answer if is_whole else replace(answer, prices=None)
    hint = model.hint
    if hint is not None and model.worth(hint) >= most and model.holds(hint):
        return _separable(model, hint, most)
    blocks = _blocks(fitting)
    if len(blocks) == 1:
        return solver(fitting, limits)
    return _solve_blocks(fitting, blocks, limits, solver)


def _infeasible() -> ChoiceAnswer:
    return ChoiceAnswer(
        choice=None, bound=-math.inf, method="separable", stopped_by=StoppedBy.PROOF
    )


def best_without_rows(model: ChoiceModel) -> tuple[IntArray | None, float]:
    """The best choice when rows do not matter and a bound on its worth; None when there is none."""
    if not model.allowed.any(axis=1).all():
        return None, -math.inf
    if model.links is None:
        best = best_of_each(model.value, model.allowed)
        return best, model.worth(best)
    paths = best_paths(model.value, model.allowed, model.links)
    return paths.choice, paths.bound


def _separable(model: ChoiceModel, choice: IntArray, most: float) -> ChoiceAnswer:
    return ChoiceAnswer(
        choice=choice,
        bound=max(most, model.worth(choice)),
        method="separable",
        stopped_by=StoppedBy.PROOF,
        prices=np.zeros(len(model.rows)),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Block:
    """Groups that rows or links hold together."""

    groups: IntArray
    rows: IntArray


def _blocks(model: ChoiceModel) -> list[_Block]:
    """Parts that nothing links: periods without coupling, racks without a common feed.

    Groups that no row touches are one part, as nothing needs to be decided between them.
    """
    groups = len(model.value)
    touched = np.zeros(groups, dtype=bool)
    first, links = [], []
    for row in model.rows:
        touched[row.groups] = True
        first.append(int(row.groups[0]) if len(row.groups) else -1)
        links.append((row.groups[:-1], row.groups[1:]))
    if model.links is not None:
        within = np.arange(groups).reshape(-1, model.links.periods)
        links.append((within[:, :-1].ravel(), within[:, 1:].ravel()))
        touched = np.repeat(touched.reshape(within.shape).any(axis=1), model.links.periods)
    one = np.concatenate([np.zeros(0, dtype=np.int64), *(link[0] for link in links)])
    other = np.concatenate([np.zeros(0, dtype=np.int64), *(link[1] for link in links)])
    graph = csr_array((np.ones(len(one)), (one, other)), shape=(groups, groups))
    label = connected_components(graph, directed=False)[1].astype(np.int64)
    label[~touched] = -1
    names = np.unique(label)
    order = np.argsort(label, kind="stable")
    edges = np.searchsorted(label[order], [*names, names[-1] + 1])
    row_label = np.array([label[group] if group >= 0 else -2 for group in first], dtype=np.int64)
    return [
        _Block(
            groups=np.sort(order[edges[place] : edges[place + 1]]),
            rows=np.flatnonzero(row_label == name),
        )
        for place, name in enumerate(names.tolist())
    ]


def _solve_blocks(
    model: ChoiceModel, blocks: list[_Block], limits: SolveLimits, solver: ChoiceSolver
) -> ChoiceAnswer:
    choice = np.zeros(len(model.value), dtype=np.int64)
    prices = np.full(len(model.rows), np.nan)
    bounds, methods, stopped_by, is_found = [], set[str](), StoppedBy.PROOF, True
    for block in blocks:
        # Blocks share the time evenly: what one leaves unused is not handed on.
        seconds = None if limits.seconds is None else limits.seconds / len(blocks)
        answer = solve_model(_restricted(model, block), replace(limits, seconds=seconds), solver)
        bounds.append(answer.bound)
        methods.add(answer.method)
        if answer.stopped_by is not StoppedBy.PROOF:
            stopped_by = answer.stopped_by
        if answer.choice is None:
            is_found = False
            if answer.stopped_by is StoppedBy.PROOF:
                return answer
        else:
            choice[block.groups] = answer.choice
        if answer.prices is not None:
            prices[block.rows] = answer.prices
    return ChoiceAnswer(
        choice=choice if is_found else None,
        bound=math.fsum(bounds),
        method="+".join(sorted(methods - {"separable"})) or "separable",
        stopped_by=stopped_by,
        prices=None if np.isnan(prices).any() else prices,
    )


def _restricted(model: ChoiceModel, block: _Block) -> ChoiceModel:
    """The model of one block alone; no row crosses its edge."""
    place = np.full(len(model.value), -1, dtype=np.int64)
    place[block.groups] = np.arange(len(block.groups))
    rows = (model.rows[index] for index in block.rows.tolist())
    links = model.links
    if links is not None:
        # The groups of a block are whole chains, in order.
        links = links.of_chains(block.groups[:: links.periods] // links.periods)
    return ChoiceModel(
        value=model.value[block.groups],
        allowed=model.allowed[block.groups],
        rows=tuple(replace(row, groups=place[row.groups]) for row in rows),
        hint=None if model.hint is None else model.hint[block.groups],
        links=links,
        prices=None if model.prices is None else model.prices[block.rows],
    )


def without_oversized(model: ChoiceModel) -> ChoiceModel:
    """Drop options that break a row even with every other group at its least."""
    allowed = model.allowed.copy()
    for row in model.rows:
        coefficient = np.where(allowed[row.groups], row.coefficient, np.inf)
        least = coefficient.min(axis=1, initial=np.inf)
        if not np.isfinite(least).all():
            break
        room = row.limit + row.slack - math.fsum(least)
        # The margin keeps what only the rounding of this sum would drop.
        margin = 1e-12 * (abs(row.limit) + float(np.abs(least).sum()))
        allowed[row.groups] &= coefficient - least[:, None] <= room + margin
    return replace(model, allowed=allowed)
