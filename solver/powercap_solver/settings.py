"""How a problem is solved: objective, tolerances, time, back end."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from powercap_solver.errors import ProblemError

_MOST_STAGE_TOLERANCE = 1e-8


class Objective(enum.StrEnum):
    """What is maximised after the floors."""

    THROUGHPUT_PER_WATT = "throughput_per_watt"
    """Served, then throughput per weighted watt within each deployment's served share."""
    THROUGHPUT = "throughput"
    """Served alone; the served share is not used."""
    NET_VALUE = "net_value"
    """The money that served tokens earn less what energy and carbon cost."""


class Method(enum.StrEnum):
    """What solves the choice models of the stages; each runs one thread."""

    FAST = "fast"
    """Prices, repair and an exact core: the method that users run."""
    HIGHS = "highs"
    """The compact model in OR-Tools MathOpt, by HiGHS."""
    SCIP = "scip"
    """The compact model in OR-Tools MathOpt, by SCIP."""
    CP_SAT = "cp_sat"
    """The compact model in whole numbers, by OR-Tools' CP-SAT."""
    CBC = "cbc"
    """The compact model in PuLP, by CBC."""
    GREEDY = "greedy"
    """Most value per watt first; no proof beyond the relaxation of single caps."""


class LastStage(enum.StrEnum):
    """Where a solve may end early."""

    SERVED = "served"
    """After stage 2: what the objective is worth, without a plan fit to act on."""
    GIVE_BACK = "give_back"
    """After all stages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveSettings:
    """Settings of one solve; the defaults prove optimality on small instances."""

    objective: Objective = Objective.THROUGHPUT_PER_WATT
    """Default: throughput per weighted watt."""
    method: Method = Method.FAST
    """Default: fast."""
    last_stage: LastStage = LastStage.GIVE_BACK
    """Default: give_back, all of them."""
    relative_gap: float = 1e-6
    """A stage may stop, and counts as optimal, at this relative gap; default 1e-6. The plan
    states the gap it proved, which is often smaller."""
    stage_tolerance: float = 1e-9
    """Loss of the floors' value that later stages may cause, relative where it exceeds 1;
    default 1e-9, at most 1e-8 so that the independent check agrees."""
    stability_tolerance: float = 0.005
    """Relative loss of served and of throughput per watt accepted to avoid changes;
    default 0.005."""
    held_served_fraction: float = 0.5
    """A deployment is not held at the plan in force when that serves less than this fraction of
    what the best plan serves it, however little it weighs in the total; default 0.5."""
    change_gap: float = 0.005
    """Gap at which the least change may stop, in replicas as a share of deployments times periods:
    up to 200 of those the number is proven; default 0.005."""
    deadline_seconds: float | None = None
    """Time for the whole solve, s; default none. Stages cut short keep what they have found."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ProblemError: naming the setting.
        """
        for name in (
            "relative_gap",
            "stage_tolerance",
            "stability_tolerance",
            "held_served_fraction",
            "change_gap",
        ):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ProblemError(f"{name} is {value}; accepted: 0 or more, less than 1")
        if self.stage_tolerance > _MOST_STAGE_TOLERANCE:
            raise ProblemError(
                f"stage_tolerance is {self.stage_tolerance}; accepted: at most "
                f"{_MOST_STAGE_TOLERANCE}"
            )
        deadline = self.deadline_seconds
        if deadline is not None and not (math.isfinite(deadline) and deadline > 0):
            raise ProblemError(f"deadline_seconds is {deadline}; accepted: more than 0 s, or none")


DEFAULT_SETTINGS = SolveSettings()
"""Proven optimality, throughput per watt, no deadline."""
