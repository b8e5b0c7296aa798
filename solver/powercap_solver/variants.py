"""Variant groups: what is known of up to four variants that share one load.

``variant_options`` makes the options of one deployment of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.checks import check_arrays, check_unique
from powercap_solver.errors import ProblemError
from powercap_solver.parts import MOST_VARIANTS

_SHARE_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantDraw:
    """What one domain is charged for a variant."""

    domain: str
    fraction: float = 1.0
    """Share of a replica's upper watts above base that the domain carries, 0 to 1."""
    most_replicas: int | None = None
    """The most replicas that could be placed there; None: all of them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variant:
    """One way to serve the group's load, such as a model on one type of GPU."""

    name: str
    replica_counts: IntArray
    """int64[count]: the replicas it may have, ascending."""
    capacity_tps: float
    """Load one replica carries within the latency objective, tokens/s."""
    saturated_tps: float
    """The most one replica delivers, tokens/s, >= capacity."""
    watts: Callable[[FloatArray], FloatArray]
    """Mean W of one replica over its own load in tokens/s, any shape; see ``curve_from_table``."""
    parked_watts: float
    """W of one replica's GPUs with no replica on them."""
    peak_upper_watts: float
    """Upper W of one replica anywhere on its curve."""
    draws: tuple[VariantDraw, ...] = ()
    """One for each domain it draws in."""
    gpus: tuple[tuple[str, int], ...] = ()
    """GPUs of one replica by the name of their pool."""
    min_running: int = 0
    """Replicas an autoscaler keeps running without load."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VariantGroup:
    """Variants that share one load."""

    name: str
    variants: tuple[Variant, ...]
    """One to four."""
    load_tps: FloatArray
    """float64[period, scenario], tokens/s asked of the group."""
    share: FloatArray
    """float64[period, scenario]: probability of each scenario, 1 in the sum of a period."""
    is_ceiling: bool = True
    """Autoscalers run fewer replicas when load is low; else all n run."""
    target_utilisation: float = 0.7
    """Load per running replica that the autoscalers aim at, as a share of its capacity."""
    min_replicas: int = 0
    """The group's floor on replicas: options that meet it more closely are not dropped."""
    is_ramped: bool = False
    """Steps between periods are limited: then a vector is only compared with those of as many
    replicas, as one that is worse may lie on the only way to a better one."""
    kept: IntArray | None = None
    """int64[vector, variant]: vectors that stay options whatever beats them."""

    def __post_init__(self) -> None:
        """Check every field and make the arrays read-only.

        Raises:
            ProblemError: naming the group and the field.
        """
        count = len(self.variants)
        if not 1 <= count <= MOST_VARIANTS:
            raise ProblemError(
                f"variant group {self.name!r} has {count} variants; accepted: 1 to "
                f"{MOST_VARIANTS}; plan the others as deployments of their own"
            )
        path = f"variant group {self.name!r}: "
        check_unique(tuple(one.name for one in self.variants), f"{path}variants")
        shape = self.load_tps.shape
        rows = 0 if self.kept is None else len(self.kept)
        shapes = {"load_tps": shape, "share": shape, "kept": (rows, count)}
        check_arrays(self, shapes, path=path)
        if len(shape) != 2 or not shape[1]:
            raise ProblemError(f"{path}load_tps has shape {shape}; accepted: [period, scenario]")
        if (self.load_tps < 0).any():
            raise ProblemError(f"{path}load_tps holds {self.load_tps.min()}; accepted: 0 or more")
        total = self.share.sum(axis=1)
        if (self.share < 0).any() or (abs(total - 1) > _SHARE_TOLERANCE).any():
            raise ProblemError(
                f"{path}share has sums {total}; accepted: 0 or more, 1 in the sum of every period"
            )
        if self.kept is not None and (self.kept < 0).any():
            raise ProblemError(f"{path}kept holds {self.kept.min()}; accepted: 0 or more")
        if not 0 < self.target_utilisation <= 1:
            raise ProblemError(
                f"{path}target_utilisation is {self.target_utilisation}; accepted: above 0, to 1"
            )
        for one in self.variants:
            _check_variant(one, f"{path}variant {one.name!r}: ")


def curve_from_table(load_tps: FloatArray, watts: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Return the curve through points (float64[point] each), level beyond the first and last.

    Raises:
        ProblemError: when loads do not ascend.
    """
    if not len(load_tps) or load_tps.shape != watts.shape or (np.diff(load_tps) <= 0).any():
        raise ProblemError(f"load_tps is {load_tps}; accepted: ascending, one for each of watts")

    def curve(load: FloatArray) -> FloatArray:
        result: FloatArray = np.interp(load, load_tps, watts)
        return result

    return curve


def _check_variant(one: Variant, path: str) -> None:
    counts, draws, gpus = one.replica_counts, one.draws, one.gpus
    check_unique(tuple(draw.domain for draw in draws), f"{path}draws")
    check_unique(tuple(pool for pool, _ in gpus), f"{path}gpus")
    is_ascending = counts.ndim == 1 and bool((np.diff(counts) > 0).all())
    for name, is_right, accepted in (
        (
            "replica_counts",
            is_ascending and len(counts) > 0 and counts[0] >= 0,
            "ascending, 0 or more, at least one",
        ),
        ("capacity_tps", 0 < one.capacity_tps < np.inf, "more than 0"),
        ("saturated_tps", one.capacity_tps <= one.saturated_tps < np.inf, "capacity_tps or more"),
        ("parked_watts", 0 <= one.parked_watts < np.inf, "0 or more"),
        (
            "peak_upper_watts",
            one.parked_watts <= one.peak_upper_watts < np.inf,
            "parked_watts or more",
        ),
        ("min_running", one.min_running >= 0, "0 or more"),
        ("draws", all(0 <= draw.fraction <= 1 for draw in draws), "fractions between 0 and 1"),
        ("gpus", all(count >= 0 for _, count in gpus), "0 or more"),
    ):
        if not is_right:
            raise ProblemError(f"{path}{name} is {getattr(one, name)}; accepted: {accepted}")
