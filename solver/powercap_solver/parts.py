"""The parts of a problem that not every problem has, each None where it plays no role.

``Pools`` GPUs that exist; ``Dynamics`` what links the periods and the state before the first;
``Grid`` prices, carbon and what may be spent over the horizon; ``Expected`` the tables of
assurance Expected; ``Labels`` what options mean beyond their replicas (modes, variants).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.checks import check_arrays, check_unique, require
from powercap_solver.errors import ProblemError

MOST_VARIANTS = 4
"""More members of one group would make its joint options too many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many of everything a problem has."""

    deployments: int
    periods: int
    options: int
    domains: int
    zones: int
    draws: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pools:
    """GPU inventory: the chosen options may not take more GPUs of a pool than it has."""

    names: tuple[str, ...]
    gpu_count: IntArray
    """int64[pool, period], GPUs that exist, >= 0."""
    gpus: IntArray
    """int64[pool, deployment, option], GPUs that the option takes, >= 0."""

    def check(self, sizes: Sizes) -> None:
        """Validate against the problem.

        Raises:
            ProblemError: naming the field.
        """
        check_unique(self.names, "pools.names")
        pools = len(self.names)
        shapes = {
            "gpu_count": (pools, sizes.periods),
            "gpus": (pools, sizes.deployments, sizes.options),
        }
        check_arrays(self, shapes, path="pools.")
        for name in shapes:
            require(self, name, getattr(self, name) >= 0, "0 or more", path="pools.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dynamics:
    """What links consecutive periods, and the state before the first.

    With n[d,t] the replicas of the chosen option: ``-max_lower <= n[d,t] - n[d,t-1] <=
    max_raise``; a step loses ``switching_cost * |n[d,t] - n[d,t-1]|`` of S; a deployment that
    ``starts_late`` serves in t the lesser of what the options of t and of t - 1 would serve in
    t, as a new replica draws power in its first period and serves nothing; the charged watts of
    a domain rise by at most ``max_rise_watts`` and fall by at most ``max_fall_watts`` a step.
    """

    max_raise: IntArray
    """int64[deployment], replicas a step, -1 for no limit."""
    max_lower: IntArray
    """int64[deployment], replicas a step, -1 for no limit."""
    switching_cost: FloatArray
    """float64[deployment], >= 0, weighted tokens lost per replica changed."""
    starts_late: BoolArray
    """bool[deployment]."""
    initial_replicas: IntArray
    """int64[deployment], replicas allowed before the first period; -1 when not known, then the
    first period is free."""
    present_upper_watts: FloatArray
    """float64[draw, period], W above base that are charged whatever less is chosen, because
    replicas present have not gone yet; 0 where they have."""
    max_rise_watts: FloatArray
    """float64[domain], W a step at GPUs and hosts, infinite for no limit."""
    max_fall_watts: FloatArray
    """float64[domain], W a step at GPUs and hosts, infinite for no limit."""
    initial_upper_watts: FloatArray
    """float64[domain], charged W above base before the first period; NaN when not known."""

    def check(self, sizes: Sizes) -> None:
        """Validate against the problem.

        Raises:
            ProblemError: naming the field.
        """
        each, domain = (sizes.deployments,), (sizes.domains,)
        shapes = {
            "max_raise": each,
            "max_lower": each,
            "switching_cost": each,
            "starts_late": each,
            "initial_replicas": each,
            "present_upper_watts": (sizes.draws, sizes.periods),
            "max_rise_watts": domain,
            "max_fall_watts": domain,
            "initial_upper_watts": domain,
        }
        check_arrays(
            self,
            shapes,
            path="dynamics.",
            may_be_infinite=frozenset({"max_rise_watts", "max_fall_watts"}),
            may_be_unknown=frozenset({"initial_upper_watts"}),
        )
        for name in ("switching_cost", "present_upper_watts", "max_rise_watts", "max_fall_watts"):
            require(self, name, getattr(self, name) >= 0, "0 or more", path="dynamics.")
        for name in ("max_raise", "max_lower", "initial_replicas"):
            require(self, name, getattr(self, name) >= -1, "-1 or more", path="dynamics.")

    @property
    def is_linking(self) -> bool:
        """Whether any deployment's periods depend on each other (watts of domains apart)."""
        return bool(
            (self.max_raise >= 0).any()
            or (self.max_lower >= 0).any()
            or (self.switching_cost > 0).any()
            or self.starts_late.any()
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Prices and carbon of every zone, the worth of tokens in money, and budgets over the horizon.

    Budgets are of what is drawn at the meter: ``overhead_factor`` times mean watts, base included.
    """

    price_per_mwh: FloatArray
    """float64[zone, period], money per MWh, may be negative."""
    carbon_g_per_kwh: FloatArray
    """float64[zone, period], gCO2eq per kWh, >= 0."""
    overhead_factor: FloatArray
    """float64[zone], meter W per W of GPUs and hosts, >= 1."""
    carbon_price_per_tonne: float = 0.0
    """Money per tonne CO2eq, >= 0."""
    token_price_per_million: FloatArray | None = None
    """float64[deployment], money per million served tokens, >= 0; needed by ``netValue``."""
    energy_budget_joules: float = math.inf
    money_budget: float = math.inf
    carbon_budget_grams: float = math.inf

    def check(self, sizes: Sizes) -> None:
        """Validate against the problem.

        Raises:
            ProblemError: naming the field.
        """
        by_zone = (sizes.zones, sizes.periods)
        shapes = {
            "price_per_mwh": by_zone,
            "carbon_g_per_kwh": by_zone,
            "overhead_factor": (sizes.zones,),
            "token_price_per_million": (sizes.deployments,),
        }
        check_arrays(self, shapes, path="grid.")
        require(self, "carbon_g_per_kwh", self.carbon_g_per_kwh >= 0, "0 or more", path="grid.")
        require(self, "overhead_factor", self.overhead_factor >= 1, "1 or more", path="grid.")
        prices = self.token_price_per_million
        if prices is not None:
            require(self, "token_price_per_million", prices >= 0, "0 or more", path="grid.")
        for name in ("carbon_price_per_tonne", "energy_budget_joules", "carbon_budget_grams"):
            if not getattr(self, name) >= 0:
                raise ProblemError(f"grid.{name} is {getattr(self, name)}; accepted: 0 or more")
        if not math.isfinite(self.carbon_price_per_tonne):
            raise ProblemError("grid.carbon_price_per_tonne is infinite; accepted: a finite number")
        if math.isnan(self.money_budget):
            raise ProblemError("grid.money_budget is NaN; accepted: a number, or infinite for none")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Expected:
    """Assurance Expected: caps hold for the aggregate bound of the plan, from joint residuals.

    With w = upper - mean of the chosen options: in every domain and period
    ``sum mean + Q(sum over d of residual[s,d] * w[d]) <= available``, Q the quantile of the
    samples s at ``coverage`` (the smallest sample value that at least that share does not exceed).
    """

    mean_watts: FloatArray
    """float64[draw, period, option], mean W above base charged against the cap, <= upper."""
    residual: FloatArray
    """float64[sample, deployment], joint residuals in units of w; at least one sample."""
    coverage: float = 0.999
    """0 to 1."""

    def check(self, sizes: Sizes, upper_watts: FloatArray) -> None:
        """Validate against the problem.

        Raises:
            ProblemError: naming the field.
        """
        samples = self.residual.shape[0] if self.residual.ndim == 2 else 0
        shapes = {
            "mean_watts": (sizes.draws, sizes.periods, sizes.options),
            "residual": (samples, sizes.deployments),
        }
        check_arrays(self, shapes, path="expected.")
        if samples < 1:
            raise ProblemError("expected.residual has no sample; accepted: one or more")
        if not 0 < self.coverage < 1:
            raise ProblemError(f"expected.coverage is {self.coverage}; accepted: between 0 and 1")
        ok = (self.mean_watts >= 0) & (self.mean_watts <= upper_watts * (1 + 1e-9))
        require(self, "mean_watts", ok, "0 or more, at most upper_watts", path="expected.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """What options mean beyond their replicas: GPU power modes, and variants of a group."""

    modes: tuple[str, ...]
    """Names of the ways to run a replica; at least one."""
    mode_index: IntArray
    """int64[deployment, option], a place in ``modes``."""
    variants: tuple[tuple[str, ...], ...]
    """For each deployment the names of its variants, empty for one that is no group."""
    variant_replicas: IntArray
    """int64[deployment, option, 4], replicas of each variant; 0 where there is none."""

    def check(self, sizes: Sizes, replicas: IntArray, is_option: BoolArray) -> None:
        """Validate against the problem.

        Raises:
            ProblemError: naming the field.
        """
        check_unique(self.modes, "labels.modes")
        shapes = {
            "mode_index": (sizes.deployments, sizes.options),
            "variant_replicas": (sizes.deployments, sizes.options, MOST_VARIANTS),
        }
        check_arrays(self, shapes, path="labels.")
        mode = self.mode_index
        ok = (mode >= 0) & (mode < len(self.modes))
        require(self, "mode_index", ok, "a place in modes", path="labels.")
        vectors = self.variant_replicas
        require(self, "variant_replicas", vectors >= 0, "0 or more", path="labels.")
        if len(self.variants) != sizes.deployments:
            raise ProblemError(
                f"labels.variants holds {len(self.variants)} entries, expected {sizes.deployments}"
            )
        count = np.array([len(names) for names in self.variants], dtype=np.int64)
        for deployment in np.flatnonzero(count > MOST_VARIANTS).tolist():
            raise ProblemError(
                f"labels.variants[{deployment}] names {count[deployment]} variants; accepted: at "
                f"most {MOST_VARIANTS}; plan the others as deployments of their own"
            )
        for deployment, names in enumerate(self.variants):
            check_unique(names, f"labels.variants[{deployment}]")
        is_member = np.arange(MOST_VARIANTS) < count[:, None]
        ok = is_member[:, None, :] | (vectors == 0)
        require(self, "variant_replicas", ok, "0 where there is no variant", path="labels.")
        is_group = (count > 0)[:, None] & is_option
        ok = ~is_group | (vectors.sum(axis=2) == replicas)
        require(self, "variant_replicas", ok, "vectors that sum to replicas", path="labels.")
