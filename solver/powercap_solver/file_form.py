"""What a problem or plan file holds: every field with its axes, its kind and what null means.

Both forms, JSON and npz, are written and read by these tables, so that they cannot differ.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from powercap_solver.errors import FileFormatError
from powercap_solver.parts import MOST_VARIANTS, Dynamics, Expected, Grid, Labels, Pools
from powercap_solver.plan import BindingRow, PlanStatus, StageResult, StoppedBy, YieldedFloor
from powercap_solver.problem import Utility

PROBLEM_KIND = "powercap.problem"
PLAN_KIND = "powercap.plan"
VERSION = 2

Sizes = dict[str, int]
"""Length of each axis by its letter."""
AXES = {
    "d": "deployment",
    "z": "zone",
    "c": "domain",
    "t": "period",
    "k": "option",
    "m": "draw",
    "p": "pool",
    "s": "sample",
    "n": "mode",
    "v": "variant",
    "g": "stage",
    "r": "row",
}
VARIANTS = MOST_VARIANTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One field: an array, a number, a text or a list of texts."""

    axes: str = ""
    """One letter of ``AXES`` for each axis; empty for a single value."""
    kind: type = float
    """``float``, ``int``, ``bool``, ``str``, or an enumeration of texts."""
    null: float | None = None
    """What null stands for: infinite or -1 for "no limit", NaN or -1 for "not known"."""
    is_optional: bool = False
    """Whether the whole field may be absent (None)."""


_TEXTS_OF = {letter: Column(axes=letter, kind=str) for letter in "dzcpn"}
_NO_LIMIT = Column(null=math.inf)

PROBLEM: Mapping[str, Column] = {
    "deployments": _TEXTS_OF["d"],
    "domains": _TEXTS_OF["c"],
    "zones": _TEXTS_OF["z"],
    "period_seconds": Column(axes="t"),
    "option_count": Column(axes="d", kind=int),
    "replicas": Column(axes="dk", kind=int),
    "served_tps": Column(axes="dtk"),
    "power_watts": Column(axes="dtk"),
    "draw_domain": Column(axes="m", kind=int),
    "draw_deployment": Column(axes="m", kind=int),
    "upper_watts": Column(axes="mtk"),
    "load_tps": Column(axes="dt"),
    "weight": Column(axes="d"),
    "priority": Column(axes="d", kind=int),
    "min_replicas": Column(axes="d", kind=int),
    "min_served_fraction": Column(axes="d"),
    "served_share": Column(axes="dt"),
    "is_ceiling": Column(axes="d", kind=bool),
    "replicas_in_force": Column(axes="d", kind=int, null=-1),
    "zone_index": Column(axes="d", kind=int),
    "energy_weight": Column(axes="zt"),
    "zone_base_watts": Column(axes="zt"),
    "cap_watts": Column(axes="ct"),
    "overhead_factor": Column(axes="c"),
    "fixed_overhead_watts": Column(axes="c"),
    "base_watts": Column(axes="ct"),
    "unmanaged_watts": Column(axes="ct"),
    "fixed_watts": Column(axes="ct"),
    "utility": Column(kind=Utility),
}
PARTS: Mapping[str, tuple[type, Mapping[str, Column]]] = {
    "pools": (
        Pools,
        {
            "names": _TEXTS_OF["p"],
            "gpu_count": Column(axes="pt", kind=int),
            "gpus": Column(axes="pdk", kind=int),
        },
    ),
    "dynamics": (
        Dynamics,
        {
            "max_raise": Column(axes="d", kind=int, null=-1),
            "max_lower": Column(axes="d", kind=int, null=-1),
            "switching_cost": Column(axes="d"),
            "starts_late": Column(axes="d", kind=bool),
            "initial_replicas": Column(axes="d", kind=int, null=-1),
            "present_upper_watts": Column(axes="mt"),
            "max_rise_watts": Column(axes="c", null=math.inf),
            "max_fall_watts": Column(axes="c", null=math.inf),
            "initial_upper_watts": Column(axes="c", null=math.nan),
        },
    ),
    "grid": (
        Grid,
        {
            "price_per_mwh": Column(axes="zt"),
            "carbon_g_per_kwh": Column(axes="zt"),
            "overhead_factor": Column(axes="z"),
            "carbon_price_per_tonne": Column(),
            "token_price_per_million": Column(axes="d", is_optional=True),
            "energy_budget_joules": _NO_LIMIT,
            "money_budget": _NO_LIMIT,
            "carbon_budget_grams": _NO_LIMIT,
        },
    ),
    "expected": (
        Expected,
        {
            "mean_watts": Column(axes="mtk"),
            "residual": Column(axes="sd"),
            "coverage": Column(),
        },
    ),
    "labels": (
        Labels,
        {
            "modes": _TEXTS_OF["n"],
            "mode_index": Column(axes="dk", kind=int),
            "variant_replicas": Column(axes="dkv", kind=int),
        },
    ),
}
"""The parts of a problem; ``labels.variants``, a list of lists of names, is told apart."""
VARIANT_NAMES = "variants"

PLAN: Mapping[str, Column] = {
    "status": Column(kind=PlanStatus),
    "rung": Column(kind=str),
    "objective": Column(kind=str),
    "choice": Column(axes="dt", kind=int),
    "upper_watts": Column(axes="ct"),
    "headroom_watts": Column(axes="ct"),
    "shadow_price_low": Column(axes="ct", null=math.nan),
    "shadow_price_high": Column(axes="ct", null=math.nan),
    "least_cap_watts": Column(axes="ct", null=math.nan),
    "least_common_factor": Column(null=math.nan),
    "stage_choice": Column(axes="gdt", kind=int),
    "row_prices": Column(axes="r", null=math.nan),
    "kappa": Column(axes="ct", is_optional=True),
}
RECORDS: Mapping[str, tuple[type, Mapping[str, Column]]] = {
    "stages": (
        StageResult,
        {
            "name": Column(kind=str),
            "objective": Column(),
            "bound": Column(),
            "gap": Column(),
            "method": Column(kind=str),
            "seconds": Column(),
            "stopped_by": Column(kind=StoppedBy),
            "kept_within": Column(),
        },
    ),
    "yielded_floors": (
        YieldedFloor,
        {
            "deployment": Column(kind=str),
            "period": Column(kind=int),
            "kind": Column(kind=str),
            "required": Column(),
            "planned": Column(),
        },
    ),
    "binding": (
        BindingRow,
        {
            "kind": Column(kind=str),
            "name": Column(kind=str),
            "period": Column(kind=int),
            "used": Column(),
            "limit": Column(),
            "price": Column(),
        },
    ),
}
"""Lists of records in a plan."""


def check_keys(path: str, content: Mapping[str, Any], known: set[str]) -> None:
    """Refuse a missing or an unknown key.

    Raises:
        FileFormatError: naming the first.
    """
    missing = sorted(known - content.keys())
    if missing:
        raise FileFormatError(f"{path}{missing[0]} is missing")
    unknown = sorted(content.keys() - known)
    if unknown:
        raise FileFormatError(
            f"{path}{unknown[0]} is not known; accepted: {', '.join(sorted(known))}"
        )


def as_member(path: str, text: str, kind: type[enum.StrEnum]) -> enum.StrEnum:
    """Return the member of an enumeration.

    Raises:
        FileFormatError: naming the field and what is accepted.
    """
    try:
        return kind(text)
    except ValueError as error:
        accepted = ", ".join(member.value for member in kind)
        raise FileFormatError(f'{path} is "{text}"; accepted: {accepted}') from error


def kappa_to_file(kappa: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Return what a file holds: None for the empty kappa of a plan that is not Expected."""
    return None if kappa.shape == (0, 0) else kappa


def kappa_from_file(kappa: Any) -> Any:
    """Return the plan's kappa of what a file holds."""
    return np.zeros((0, 0)) if kappa is None else kappa
