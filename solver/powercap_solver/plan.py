"""The plan: what was chosen, what it is worth, and how far it can be from the best."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, fields

import numpy as np

from powercap_solver.arrays import FloatArray, IntArray


class PlanStatus(enum.StrEnum):
    """What the plan is; a failure of the domain is a value, not an exception."""

    OPTIMAL = "optimal"
    """Every stage proven within its gap tolerance."""
    FEASIBLE = "feasible"
    """All caps hold; some stage stopped before its proof."""
    CAP_INFEASIBLE = "cap_infeasible"
    """Even the lowest options exceed a cap; the plan is the lowest draw there is."""


class StoppedBy(enum.StrEnum):
    """Why a stage ended."""

    PROOF = "proof"
    DEADLINE = "deadline"
    ITERATIONS = "iterations"
    HEURISTIC = "heuristic"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """The outcome of one stage of the lexicographic objective.

    ``bound`` is proven: no plan that keeps the earlier stages does better. ``gap`` is
    ``|bound - objective| / max(|objective|, 1e-9)``. Stages: ``floors`` (missing fraction of each
    floor, weighted by the period's share of the horizon, minimised class by class from the
    highest priority), ``served`` (weighted tokens/s times period_seconds, maximised),
    ``throughput_per_watt`` (maximised), ``least_change`` (replicas changed, minimised),
    ``give_back`` (weighted replicas given back, maximised).
    """

    name: str
    objective: float
    bound: float
    gap: float
    method: str
    seconds: float
    stopped_by: StoppedBy
    kept_within: float = 0.0
    """Relative loss of served and of throughput per watt this stage was allowed to cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YieldedFloor:
    """A floor that gave way to a cap."""

    deployment: str
    period: int
    kind: str
    """``min_replicas`` or ``min_served_fraction``."""
    required: float
    planned: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingRow:
    """A limit that holds the plan down: raising it could raise the value of stage 2."""

    kind: str
    """``cap``, ``pool``, ``rise``, ``fall`` or ``budget``."""
    name: str
    """The domain, the pool or the budget."""
    period: int
    """The period; 0 for a budget, which spans them all."""
    used: float
    """W above base, GPUs, W a step, or what the options spend of the budget."""
    limit: float
    """The same unit: what the row's own terms may use. In the first period of a step the watts
    before it are moved to this side; a budget is what the bases of the zones leave of it; a cap,
    pool or budget below the least that any choice uses is that least."""
    price: float
    """Value of stage 2 per unit of the row, >= 0."""


def _no_prices() -> FloatArray:
    return np.zeros(0)


def _no_kappa() -> FloatArray:
    return np.zeros((0, 0))


def _no_choices() -> IntArray:
    return np.zeros((0, 0, 0), dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """One option per deployment and period, with its certificate."""

    status: PlanStatus
    rung: str
    """The rung of the ladder that answered: ``fast``, ``compact``, ``greedy``, ``in_force`` or
    ``lowest``."""
    choice: IntArray
    """int64[deployment, period]: index into the problem's options."""
    stages: tuple[StageResult, ...]
    upper_watts: FloatArray
    """float64[domain, period]: charged W at GPUs and hosts, base, unmanaged and fixed included."""
    headroom_watts: FloatArray
    """float64[domain, period]: available W above base left over, at GPUs and hosts."""
    shadow_price_low: FloatArray
    """float64[domain, period]: weighted tokens/s per extra W at the meter, lower end."""
    shadow_price_high: FloatArray
    """float64[domain, period]: the same, upper end of the interval when degenerate."""
    yielded_floors: tuple[YieldedFloor, ...]
    least_cap_watts: FloatArray
    """float64[domain, period]: least cap at the meter that keeps every floor, the others given;
    NaN where no floor yielded."""
    stage_choice: IntArray = field(default_factory=_no_choices)
    """int64[stage, deployment, period]: the choice behind each stage's objective; the last one
    is ``choice``."""
    least_common_factor: float = math.nan
    """Least factor on all caps together that keeps every floor; NaN where no floor yielded or
    it is not known."""
    binding: tuple[BindingRow, ...] = ()
    """The rows that leave nothing a chosen option could still use."""
    row_prices: FloatArray = field(default_factory=_no_prices)
    """float64[row]: stage-2 prices of the hard rows, value per unit, for a later warm start;
    empty when not known."""
    objective: str = "throughput_per_watt"
    """What was maximised after the floors: a member of ``settings.Objective``."""
    kappa: FloatArray = field(default_factory=_no_kappa)
    """float64[domain, period]: share of upper - mean charged, with assurance Expected; empty
    otherwise."""

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
