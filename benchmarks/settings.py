"""What is measured: cases, and the named suites that cross families, sizes, methods and seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from powercap_solver.instances import FAMILIES, Family, Kind
from powercap_solver.settings import LastStage, Method, Objective

FAST = Method.FAST.value
GREEDY = Method.GREEDY.value
COMPACT = (Method.HIGHS.value, Method.SCIP.value, Method.CP_SAT.value, Method.CBC.value)
REFERENCE = FAST
CHANGED_FRACTION = 0.01
TUNING_SEEDS = 1_000
"""Seeds from here on are for tuning, from twice this on for confirming; below it for reports."""

Parameter = int | float | str | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One solve to measure; equal cases but for ``repeat`` are the same work."""

    family: str
    """A registered family, or ``measured`` or ``saved``."""
    size: int
    seed: int
    method: str
    gap: float
    limit_seconds: float
    """What the method may use; the rest of the ladder is beyond it."""
    last_stage: str = LastStage.GIVE_BACK.value
    start: str = "cold"
    """``cold``; ``changed_cold`` and ``changed_warm`` solve the problem with 1 % of its
    deployments changed, warm from the plan of the one before."""
    repeat: int = 0
    path: str = ""
    """The file behind ``measured`` or ``saved``."""
    parameters: tuple[tuple[str, Parameter], ...] = ()
    """See ``parameters.py``."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells equal work."""
        return tuple(asdict(replace(self, repeat=0)).values())

    @property
    def objective(self) -> Objective:
        """What is solved for: the family's own, or throughput where stage 2 is the last."""
        own = FAMILIES[self.family].objective if self.family in FAMILIES else None
        if own is Objective.NET_VALUE:
            return own
        if self.last_stage == LastStage.SERVED.value:
            return Objective.THROUGHPUT
        return own or Objective.THROUGHPUT_PER_WATT


@dataclass(frozen=True, slots=True, kw_only=True)
class Cross:
    """Families times sizes times methods times seeds, all in the same time."""

    families: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: int
    gaps: tuple[float, ...]
    limits: tuple[float, ...]
    repeats: int = 1
    least: int = 0
    most: int = 1_000_000_000
    """Sizes from ``least`` to ``most``; the smallest of a family when none is among them."""
    last_stage: str = LastStage.GIVE_BACK.value

    def cases(self) -> list[Case]:
        """Repeats are the outermost loop, so that a busy minute does not hit one case alone."""
        return [
            Case(
                family=name,
                size=size,
                seed=seed,
                method=method,
                gap=gap,
                limit_seconds=limit,
                last_stage=self.last_stage,
                repeat=repeat,
            )
            for repeat in range(self.repeats)
            for name in self.families
            for size in _sizes(FAMILIES[name], self.least, self.most)
            for seed in range(self.seeds)
            for gap in self.gaps
            for limit in self.limits
            for method in self.methods
        ]


def _sizes(family: Family, least: int, most: int) -> tuple[int, ...]:
    return tuple(size for size in family.sizes if least <= size <= most) or family.sizes[:1]


def _named(*kinds: Kind) -> tuple[str, ...]:
    return tuple(name for name, family in FAMILIES.items() if family.kind in kinds)


def _all(crosses: Iterable[Cross]) -> list[Case]:
    return [case for cross in crosses for case in cross.cases()]


def smoke() -> list[Case]:
    """Every family once, in its smallest size."""
    cross = Cross(
        families=tuple(FAMILIES), methods=(FAST,), seeds=1, gaps=(1e-3,), limits=(1.0,), most=0
    )
    return cross.cases()


def quick() -> list[Case]:
    """Under three minutes: what the fast path costs, three seeds three times, and who else can."""
    served = LastStage.SERVED.value
    plain = tuple(name for name in _named(Kind.FLEET) if not name.endswith("_in_force"))
    others = _named(Kind.SMALL, Kind.FEATURE, Kind.ODD)
    return _all(
        [
            Cross(families=plain, methods=(FAST,), seeds=3, repeats=3, gaps=(1e-3,),
                  limits=(2.0,), least=1_000, most=1_000, last_stage=served),
            Cross(families=others, methods=(FAST, GREEDY), seeds=3, repeats=3, gaps=(1e-3,),
                  limits=(0.5,), most=10),
            Cross(families=_named(Kind.SMALL, Kind.HARD), methods=(FAST, "scip"), seeds=3,
                  repeats=3, gaps=(1e-3,), limits=(0.5,), least=50, most=100, last_stage=served),
        ]
    )  # fmt: skip


def full() -> list[Case]:
    """Every method in ten seconds a solve, the fast path up to 10,000; an hour or two."""
    served = LastStage.SERVED.value
    small = _named(Kind.SMALL, Kind.FEATURE, Kind.HARD, Kind.ODD)
    fleets = _named(Kind.FLEET)
    return _all(
        [
            Cross(families=fleets, methods=(FAST, GREEDY), seeds=3, repeats=3, gaps=(1e-4,),
                  limits=(30.0,), most=10_000),
            Cross(families=small, methods=(FAST, GREEDY), seeds=3, repeats=3, gaps=(1e-4,),
                  limits=(10.0,), most=200),
            Cross(families=(*fleets, *small), methods=(FAST, *COMPACT), seeds=3, gaps=(1e-4,),
                  limits=(10.0,), most=100, last_stage=served),
        ]
    )  # fmt: skip


def scaling() -> list[Case]:
    """How time and memory of the fast path grow: fleets of all sizes, each in its own process."""
    names = ("fleet_one_cap", "fleet_tree", "fleet_tree_pools", "fleet_ramps")
    return Cross(
        families=names,
        methods=(FAST,),
        seeds=3,
        gaps=(1e-3,),
        limits=(120.0,),
        last_stage=LastStage.SERVED.value,
    ).cases()


def anytime() -> list[Case]:
    """The gap that each method reaches in ever more time."""
    return Cross(
        families=("fleet_one_cap", "fleet_tree_pools", "fleet_ramps"),
        methods=(FAST, GREEDY, *COMPACT),
        seeds=3,
        gaps=(1e-7,),
        limits=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        least=100,
        most=100,
        last_stage=LastStage.SERVED.value,
    ).cases()


def gap_times() -> list[Case]:
    """The time that each method takes to prove ever smaller gaps."""
    return Cross(
        families=("fleet_one_cap", "fleet_tree", "fleet_tree_pools"),
        methods=(FAST, *COMPACT),
        seeds=3,
        gaps=(1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
        limits=(30.0,),
        least=1_000,
        most=1_000,
        last_stage=LastStage.SERVED.value,
    ).cases()


SUITES = {
    "smoke": smoke,
    "quick": quick,
    "full": full,
    "scaling": scaling,
    "anytime": anytime,
    "gap_times": gap_times,
}
ISOLATED = ("scaling",)
"""Suites whose solves each get a process of their own, for their memory."""
