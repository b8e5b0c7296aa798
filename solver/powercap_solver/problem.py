"""The planning problem: what may be chosen, what it serves, what it draws, what limits it.

Data (indices: d deployment, z zone, c domain, t period, k option):

    served[d,t,k]   tokens/s served when option k is allowed
    power[d,t,k]    mean watts drawn above base
    upper[c,d,t,k]  upper watts charged above base against domain c
    cap[c,t]        watts at the meter of domain c; overhead factor and fixed overhead turn
                    GPU and host watts into meter watts
    base, unmanaged, fixed [c,t]    watts no option can remove

Variables: x[d,t,k] in {0,1}, one option per deployment and period.

Rows: sum over d,k of upper[c,d,t,k] x[d,t,k] + base + unmanaged + fixed
      <= (cap[c,t] - fixed_overhead[c]) / overhead_factor[c].
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from powercap_solver.errors import ProblemError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanningProblem:
    """One planning problem; arrays are read-only and validated when it is made.

    Options are padded to the widest deployment: entries at ``k >= option_count[d]`` are 0 and
    never chosen. Options of a deployment ascend strictly in ``replicas``.
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
    upper_watts: FloatArray
    """float64[domain, deployment, period, option]: upper W above base, >= 0."""
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

    def __post_init__(self) -> None:
        """Check every field and make the arrays read-only.

        Raises:
            ProblemError: naming the field, the value and what would be accepted.
        """
        shapes = _shapes(self)
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, np.ndarray):
                continue
            if value.shape != shapes[field.name]:
                raise ProblemError(
                    f"{field.name} has shape {value.shape}, expected {shapes[field.name]}"
                )
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ProblemError(f"{field.name} holds a value that is not finite")
            value.setflags(write=False)
        _check_names(self)
        _check_ranges(self)

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
    deployment, domain, zone = (
        len(problem.deployments),
        len(problem.domains),
        len(problem.zones),
    )
    period = problem.period_seconds.shape[0] if problem.period_seconds.ndim == 1 else -1
    option = problem.replicas.shape[1] if problem.replicas.ndim == 2 else -1
    return {
        "period_seconds": (period,),
        "option_count": (deployment,),
        "replicas": (deployment, option),
        "served_tps": (deployment, period, option),
        "power_watts": (deployment, period, option),
        "upper_watts": (domain, deployment, period, option),
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


def _check_names(problem: PlanningProblem) -> None:
    for name in ("deployments", "domains", "zones"):
        values = getattr(problem, name)
        if len(set(values)) != len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise ProblemError(f"{name} holds {twice!r} twice; names must be unique")
    if not problem.zones:
        raise ProblemError("zones is empty; at least one zone is needed")


def _check_ranges(problem: PlanningProblem) -> None:
    for name in ("served_tps", "upper_watts", "load_tps", "fixed_overhead_watts", "base_watts"):
        _require(problem, name, getattr(problem, name) >= 0, "0 or more")
    for name in ("unmanaged_watts", "fixed_watts", "zone_base_watts", "cap_watts", "min_replicas"):
        _require(problem, name, getattr(problem, name) >= 0, "0 or more")
    for name in ("period_seconds", "weight", "energy_weight"):
        _require(problem, name, getattr(problem, name) > 0, "more than 0")
    for name in ("min_served_fraction", "served_share"):
        value = getattr(problem, name)
        _require(problem, name, (value >= 0) & (value <= 1), "between 0 and 1")
    _require(problem, "overhead_factor", problem.overhead_factor >= 1, "1 or more")
    _require(problem, "replicas_in_force", problem.replicas_in_force >= -1, "-1 or more")
    zone = problem.zone_index
    _require(problem, "zone_index", (zone >= 0) & (zone < len(problem.zones)), "a place in zones")
    count = problem.option_count
    width = problem.replicas.shape[1]
    _require(problem, "option_count", (count >= 1) & (count <= width), f"1 to {width}")
    real = problem.is_option
    _require(problem, "replicas", (problem.replicas >= 0) | ~real, "0 or more")
    ascending = (np.diff(problem.replicas, axis=1) > 0) | ~real[:, 1:]
    _require(problem, "replicas", ascending, "strictly ascending within a deployment")


def _require(problem: PlanningProblem, name: str, ok: BoolArray, accepted: str) -> None:
    bad = np.argwhere(~ok)
    if not bad.size:
        return
    value = np.asarray(getattr(problem, name))
    index = tuple(int(i) for i in bad[0])
    shown = value[index] if value.shape == ok.shape else value[index[0]]
    raise ProblemError(f"{name}{list(index)} is {shown}; accepted: {accepted}")
