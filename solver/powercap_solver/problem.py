"""The planning problem: what may be chosen, what it serves, what it draws, what limits it.

Data (indices: d deployment, z zone, c domain, t period, k option, m draw):

    served[d,t,k]   tokens/s served when option k is allowed
    power[d,t,k]    mean watts drawn above base
    upper[m,t,k]    upper watts above base that deployment d(m) is charged against domain c(m)
    cap[c,t]        watts at the meter of domain c; overhead factor and fixed overhead turn
                    GPU and host watts into meter watts
    base, unmanaged, fixed [c,t]    watts no option can remove

Variables: x[d,t,k] in {0,1}, one option per deployment and period.

Rows: sum over m with c(m) = c, and k, of upper[m,t,k] x[d(m),t,k] + base + unmanaged + fixed
      <= (cap[c,t] - fixed_overhead[c]) / overhead_factor[c].

A *draw* is a deployment in a domain. One that lies wholly in a rack, its row and the cluster has
three draws with equal watts; one spread over two racks has a draw in each. The parts ``pools``,
``dynamics``, ``grid`` and ``expected`` add rows and links of their own (``parts``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from powercap_solver.arrays import BoolArray, FloatArray, IntArray
from powercap_solver.checks import check_arrays, check_unique, require
from powercap_solver.errors import ProblemError
from powercap_solver.parts import Dynamics, Expected, Grid, Labels, Pools, Sizes

__all__ = ["BoolArray", "FloatArray", "IntArray", "PlanningProblem", "Utility"]


class Utility(enum.StrEnum):
    """How stage 2 values what a deployment is served."""

    LINEAR = "linear"
    """weight * served."""
    PROPORTIONAL_FAIR = "proportional_fair"
    """weight * log(0.01 + served / load); weight * log(1.01) where nothing is asked."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanningProblem:
    """One planning problem; arrays are read-only and validated when it is made.

    Options are padded to the widest deployment: entries at ``k >= option_count[d]`` are 0 and
    never chosen. Options of a deployment ascend in ``replicas``, strictly unless ``labels`` tells
    equal ones apart.
    """

    deployments: tuple[str, ...]
    """Unique names, ``namespace/name``."""
    domains: tuple[str, ...]
    """Unique names of what stands behind one cap; may be empty (no cap)."""
    zones: tuple[str, ...]
    """Grid zones; at least one."""
    period_seconds: FloatArray
    """float64[period], s, > 0."""
    option_count: IntArray
    """int64[deployment], >= 1."""
    replicas: IntArray
    """int64[deployment, option]: replicas allowed by the option."""
    served_tps: FloatArray
    """float64[deployment, period, option], tokens/s, >= 0."""
    power_watts: FloatArray
    """float64[deployment, period, option]: mean W above base."""
    draw_domain: IntArray
    """int64[draw]: the domain's place in ``domains``."""
    draw_deployment: IntArray
    """int64[draw]: the deployment's place in ``deployments``; no two draws are alike in both."""
    upper_watts: FloatArray
    """float64[draw, period, option]: upper W above base, >= 0."""
    load_tps: FloatArray
    """float64[deployment, period], tokens/s asked, >= 0."""
    weight: FloatArray
    """float64[deployment], value of a served token/s, > 0."""
    priority: IntArray
    """int64[deployment]: higher is more important; floors yield lowest first."""
    min_replicas: IntArray
    """int64[deployment]: floor on replicas, 0 for none."""
    min_served_fraction: FloatArray
    """float64[deployment], 0 to 1: floor on served/load, 0 for none."""
    served_share: FloatArray
    """float64[deployment, period], 0 to 1: share of the stage-2 served that stage 3 keeps."""
    is_ceiling: BoolArray
    """bool[deployment]: an autoscaler runs fewer replicas when load is low; else all n run."""
    replicas_in_force: IntArray
    """int64[deployment]: replicas allowed now, -1 when there is no plan in force."""
    zone_index: IntArray
    """int64[deployment]: the deployment's place in ``zones``."""
    energy_weight: FloatArray
    """float64[zone, period], dimensionless, > 0 (design: price and carbon)."""
    zone_base_watts: FloatArray
    """float64[zone, period]: W drawn whatever is chosen, for throughput per watt."""
    cap_watts: FloatArray
    """float64[domain, period]: W at the meter."""
    overhead_factor: FloatArray
    """float64[domain], meter W per W of GPUs and hosts, >= 1."""
    fixed_overhead_watts: FloatArray
    """float64[domain]: meter W that do not grow with load, >= 0."""
    base_watts: FloatArray
    """float64[domain, period]: parked GPUs and idle hosts, W."""
    unmanaged_watts: FloatArray
    """float64[domain, period]: W that no planned deployment explains."""
    fixed_watts: FloatArray
    """float64[domain, period]: charge of replicas no option can remove, W above base."""

    utility: Utility = Utility.LINEAR
    """How stage 2 values what is served."""
    pools: Pools | None = None
    """GPU inventory; None: GPUs do not limit."""
    dynamics: Dynamics | None = None
    """What links the periods; None: nothing does."""
    grid: Grid | None = None
    """Prices, carbon and budgets; None: no budgets, and ``netValue`` cannot be asked."""
    expected: Expected | None = None
    """Tables of assurance Expected; None: Guaranteed."""
    labels: Labels | None = None
    """Modes and variants; None: one mode, no groups."""

    def __post_init__(self) -> None:
        """Check every field and make the arrays read-only.

        Raises:
            ProblemError: naming the field, the value and what would be accepted.
        """
        check_arrays(self, _shapes(self))
        for name in ("deployments", "domains", "zones"):
            check_unique(getattr(self, name), name)
        if not self.zones:
            raise ProblemError("zones is empty; at least one zone is needed")
        _check_ranges(self)
        _check_options(self)
        _check_draws(self)
        _check_parts(self)

    @property
    def sizes(self) -> Sizes:
        """How many of everything there are."""
        return Sizes(
            deployments=len(self.deployments),
            periods=self.period_seconds.shape[0] if self.period_seconds.ndim == 1 else -1,
            options=self.replicas.shape[1] if self.replicas.ndim == 2 else -1,
            domains=len(self.domains),
            zones=len(self.zones),
            draws=self.draw_domain.shape[0] if self.draw_domain.ndim == 1 else -1,
        )

    @property
    def is_option(self) -> BoolArray:
        """bool[deployment, option]: True where the entry is a real option, not padding."""
        mask: BoolArray = np.arange(self.replicas.shape[1]) < self.option_count[:, None]
        return mask

    @property
    def available_watts(self) -> FloatArray:
        """float64[domain, period]: W above base that the chosen options may be charged."""
        at_devices = (self.cap_watts - self.fixed_overhead_watts[:, None]) / self.overhead_factor[
            :, None
        ]
        available: FloatArray = (
            at_devices - self.base_watts - self.unmanaged_watts - self.fixed_watts
        )
        return available


def _shapes(problem: PlanningProblem) -> dict[str, tuple[int, ...]]:
    sizes = problem.sizes
    deployment, period, option = sizes.deployments, sizes.periods, sizes.options
    domain, zone, draw = sizes.domains, sizes.zones, sizes.draws
    return {
        "period_seconds": (period,),
        "option_count": (deployment,),
        "replicas": (deployment, option),
        "served_tps": (deployment, period, option),
        "power_watts": (deployment, period, option),
        "draw_domain": (draw,),
        "draw_deployment": (draw,),
        "upper_watts": (draw, period, option),
        "load_tps": (deployment, period),
        "weight": (deployment,),
        "priority": (deployment,),
        "min_replicas": (deployment,),
        "min_served_fraction": (deployment,),
        "served_share": (deployment, period),
        "is_ceiling": (deployment,),
        "replicas_in_force": (deployment,),
        "zone_index": (deployment,),
        "energy_weight": (zone, period),
        "zone_base_watts": (zone, period),
        "cap_watts": (domain, period),
        "overhead_factor": (domain,),
        "fixed_overhead_watts": (domain,),
        "base_watts": (domain, period),
        "unmanaged_watts": (domain, period),
        "fixed_watts": (domain, period),
    }


def _check_ranges(problem: PlanningProblem) -> None:
    for name in ("served_tps", "upper_watts", "load_tps", "fixed_overhead_watts", "base_watts"):
        require(problem, name, getattr(problem, name) >= 0, "0 or more")
    for name in ("unmanaged_watts", "fixed_watts", "zone_base_watts", "cap_watts", "min_replicas"):
        require(problem, name, getattr(problem, name) >= 0, "0 or more")
    for name in ("period_seconds", "weight", "energy_weight"):
        require(problem, name, getattr(problem, name) > 0, "more than 0")
    for name in ("min_served_fraction", "served_share"):
        value = getattr(problem, name)
        require(problem, name, (value >= 0) & (value <= 1), "between 0 and 1")
    require(problem, "overhead_factor", problem.overhead_factor >= 1, "1 or more")
    require(problem, "replicas_in_force", problem.replicas_in_force >= -1, "-1 or more")
    zone = problem.zone_index
    require(problem, "zone_index", (zone >= 0) & (zone < len(problem.zones)), "a place in zones")


def _check_options(problem: PlanningProblem) -> None:
    count = problem.option_count
    width = problem.replicas.shape[1]
    require(problem, "option_count", (count >= 1) & (count <= width), f"1 to {width}")
    real = problem.is_option
    require(problem, "replicas", (problem.replicas >= 0) | ~real, "0 or more")
    step = np.diff(problem.replicas, axis=1)
    if problem.labels is None:
        ascending = (step > 0) | ~real[:, 1:]
        require(problem, "replicas", ascending, "strictly ascending within a deployment")
    else:
        require(problem, "replicas", (step >= 0) | ~real[:, 1:], "ascending within a deployment")


def _check_draws(problem: PlanningProblem) -> None:
    domain, deployment = problem.draw_domain, problem.draw_deployment
    ok = (domain >= 0) & (domain < len(problem.domains))
    require(problem, "draw_domain", ok, "a place in domains")
    ok = (deployment >= 0) & (deployment < len(problem.deployments))
    require(problem, "draw_deployment", ok, "a place in deployments")
    key = domain * len(problem.deployments) + deployment
    first = np.unique(key, return_index=True)[1]
    if len(first) < len(key):
        second = int(np.setdiff1d(np.arange(len(key)), first)[0])
        raise ProblemError(
            f"draw_deployment[{second}]: {problem.deployments[deployment[second]]!r} draws twice "
            f"in domain {problem.domains[domain[second]]!r}; accepted: one draw each"
        )


def _check_parts(problem: PlanningProblem) -> None:
    sizes = problem.sizes
    if problem.pools is not None:
        problem.pools.check(sizes)
    if problem.dynamics is not None:
        problem.dynamics.check(sizes)
    if problem.grid is not None:
        problem.grid.check(sizes)
    if problem.expected is not None:
        problem.expected.check(sizes, problem.upper_watts)
    if problem.labels is not None:
        problem.labels.check(sizes, problem.replicas, problem.is_option)
