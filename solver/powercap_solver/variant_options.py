"""Variant groups: up to four variants that share one load become one deployment.

Data (v variant, k option with n[k,v] replicas of each, s scenario of period t with share p[t,s],
c domain, j pool; of variant v: capacity q, saturated throughput m, curve w, parked watts w0 and
upper peak watts u of one replica, target utilisation h, fewest running replicas a):

    load       l[k,t,s,v] = L[t,s] n[k,v] q[v] / (sum over v of n[k,v] q[v])
    running    r = n when all replicas run (fixed), else clip(ceil(l / (h q)), a, n)
    served     sum over s of p[t,s] min(L[t,s], sum over v of n[k,v] q[v])
    power      sum over s of p[t,s], sum over v of r (w(min(l / r, m)) - w0)
    upper      sum over v of fraction[c,v] min(n[k,v], most[c,v]) (u[v] - w0[v])
    gpus       sum over v of n[k,v] gpus[j,v]

An option that another one matches or beats in all of served and power in every period, upper in
every domain and GPUs in every pool goes, as no cap, pool or floor can make it the better of the
two (where energy costs nothing less than 0, so that watts are never wanted). Named vectors stay:
the user's own maxima, which giving back needs, and the vector in force, which the least change
needs; so does the lowest vector, without which caps could not hold that did before.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.errors import ProblemError
from powercap_solver.pareto import first_matched, thinned
from powercap_solver.parts import MOST_VARIANTS
from powercap_solver.variants import Variant, VariantGroup

_LOGGER = logging.getLogger(__name__)

MOST_OPTIONS = 400
"""Of one group; above it options are thinned, and the result says so."""
MOST_VECTORS = 50_000
"""Joint vectors that are looked at."""
_ROUNDING = 1e-9
"""A load that fills its replicas exactly needs no further one."""
_CELLS = 2_000_000
"""Options times scenarios of all periods tabulated at once; bounds the memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupOptions:
    """A group's options as one deployment of a ``PlanningProblem``, ascending in replicas."""

    name: str
    variants: tuple[str, ...]
    domains: tuple[str, ...]
    """Where the group draws."""
    pools: tuple[str, ...]
    """Whose GPUs it takes."""
    variant_replicas: IntArray
    """int64[option, 4], 0 where there is no variant."""
    replicas: IntArray
    """int64[option]: replicas of all variants; equal ones are told apart by ``Labels``."""
    served_tps: FloatArray
    """float64[period, option], tokens/s."""
    power_watts: FloatArray
    """float64[period, option], mean W above base."""
    upper_watts: FloatArray
    """float64[domain, period, option], upper W above base."""
    gpus: IntArray
    """int64[pool, option]."""
    vectors: int
    """Joint vectors there were."""
    undominated: int
    """Of these the ones that no other matches, and those that had to stay."""

    @property
    def is_thinned(self) -> bool:
        """Whether options were left out that no other matches: then an optimum may be lost."""
        return len(self.replicas) < self.undominated


def group_options(group: VariantGroup, *, most_options: int = MOST_OPTIONS) -> GroupOptions:
    """Tabulate the joint vectors of ``group`` and keep those that can be part of a best plan.

    Above ``most_options`` some of these are left out too, evenly over what they serve: the result
    then says ``is_thinned`` and a warning is logged.

    Raises:
        ProblemError: when there are too many joint vectors to look at.
    """
    vectors, stays = _joint_vectors(group)
    domains = sorted({draw.domain for one in group.variants for draw in one.draws})
    pools = sorted({pool for one in group.variants for pool, _ in one.gpus})
    served, power = _served_and_power(group, vectors)
    upper = _upper_watts(group, vectors, domains)
    gpus = np.array(
        [vectors @ [dict(one.gpus).get(pool, 0) for one in group.variants] for pool in pools],
        dtype=np.int64,
    ).reshape(len(pools), len(vectors))
    total = vectors.sum(axis=1)
    missing = np.maximum(0, group.min_replicas - total)
    # Both ways: only vectors of as many replicas are compared.
    ramped = [total, -total] if group.is_ramped else []
    costs = np.stack([*-served, *power, *upper, *gpus, missing, *ramped], axis=1)
    keep = stays | ~first_matched(costs.astype(np.float64))
    places = np.flatnonzero(keep)
    if len(places) > most_options:
        places = thinned(
            places, stays[places], served.mean(axis=0), upper.sum(axis=0), count=most_options
        )
        _LOGGER.warning(
            "variant group %s: %s of %s options are left out; allow fewer replica counts",
            group.name,
            int(keep.sum()) - len(places),
            int(keep.sum()),
        )
    padded = np.zeros((len(places), MOST_VARIANTS), dtype=np.int64)
    padded[:, : len(group.variants)] = vectors[places]
    periods = len(group.load_tps)
    return GroupOptions(
        name=group.name,
        variants=tuple(one.name for one in group.variants),
        domains=tuple(domains),
        pools=tuple(pools),
        variant_replicas=padded,
        replicas=padded.sum(axis=1),
        served_tps=served[:, places],
        power_watts=power[:, places],
        upper_watts=np.repeat(upper[:, None, places], periods, axis=1),
        gpus=gpus[:, places],
        vectors=len(vectors),
        undominated=int(keep.sum()),
    )


def split_load(load_tps: FloatArray, able_tps: FloatArray) -> FloatArray:
    """Split a load over the variants in proportion to what their replicas can carry.

    Args:
        load_tps: float64[...], of the group.
        able_tps: float64[..., variant], replicas times capacity.

    Returns:
        float64[..., variant]; 0 for all where none has replicas.
    """
    total = able_tps.sum(axis=-1, keepdims=True)
    part = np.divide(able_tps, total, out=np.zeros(able_tps.shape), where=total > 0)
    split: FloatArray = load_tps[..., None] * part
    return split


def _joint_vectors(group: VariantGroup) -> tuple[IntArray, BoolArray]:
    """Every vector, int64[vector, variant], by replicas; and bool[vector], those that stay."""
    counts = [one.replica_counts for one in group.variants]
    product = int(np.prod([len(each) for each in counts]))
    if product > MOST_VECTORS:
        sizes = " x ".join(str(len(each)) for each in counts)
        raise ProblemError(
            f"variant group {group.name!r} has {sizes} = {product} joint replica vectors; "
            f"accepted: at most {MOST_VECTORS}; allow fewer replica counts for its variants"
        )
    grid = np.stack(np.meshgrid(*counts, indexing="ij"), axis=-1).reshape(-1, len(counts))
    stay = [grid[0]] if group.kept is None else [grid[0], *group.kept]
    vectors = np.unique(np.concatenate([grid, stay]), axis=0).astype(np.int64)
    # Stable: of equal totals, the vectors in their own order.
    vectors = vectors[np.argsort(vectors.sum(axis=1), kind="stable")]
    stays = (vectors[:, None, :] == np.stack(stay)[None]).all(axis=2).any(axis=1)
    return vectors, stays


def _served_and_power(group: VariantGroup, vectors: IntArray) -> tuple[FloatArray, FloatArray]:
    """float64[period, vector] each."""
    capacity = np.array([one.capacity_tps for one in group.variants])
    periods = len(group.load_tps)
    served, power = np.zeros((periods, len(vectors))), np.zeros((periods, len(vectors)))
    step = max(1, _CELLS // group.load_tps.size)
    for start in range(0, len(vectors), step):
        part = slice(start, start + step)
        able = vectors[part] * capacity
        carried = np.minimum(group.load_tps[:, None, :], able.sum(axis=1)[None, :, None])
        served[:, part] = np.einsum("tks,ts->tk", carried, group.share)
        loads = split_load(group.load_tps[:, None, :], able[None, :, None, :])
        for place, one in enumerate(group.variants):
            drawn = _drawn(group, one, vectors[part, place], loads[..., place])
            power[:, part] += np.einsum("tks,ts->tk", drawn, group.share)
    return served, power


def _drawn(group: VariantGroup, one: Variant, count: IntArray, load: FloatArray) -> FloatArray:
    """float64[period, vector, scenario]: mean W above base of a variant's replicas."""
    n = np.broadcast_to(count[None, :, None].astype(np.float64), load.shape)
    running = n
    if group.is_ceiling:
        needed = np.ceil(load / (group.target_utilisation * one.capacity_tps) - _ROUNDING)
        running = np.minimum(np.maximum(needed, one.min_running), n)
    each = np.divide(load, running, out=np.zeros(load.shape), where=running > 0)
    watts = one.watts(np.minimum(each, one.saturated_tps))
    # A loaded replica draws no less than its GPUs parked, whatever a fit says.
    drawn: FloatArray = running * np.maximum(watts - one.parked_watts, 0.0)
    return drawn


def _upper_watts(group: VariantGroup, vectors: IntArray, domains: list[str]) -> FloatArray:
    """float64[domain, vector]."""
    upper = np.zeros((len(domains), len(vectors)))
    for place, one in enumerate(group.variants):
        for draw in one.draws:
            count = vectors[:, place]
            if draw.most_replicas is not None:
                count = np.minimum(count, draw.most_replicas)
            watts = draw.fraction * (one.peak_upper_watts - one.parked_watts)
            upper[domains.index(draw.domain)] += watts * count
    return upper
