"""Stage 2 solved again with something changed: what answers "what if".

Floors are kept as the plan keeps them: what stage 1 has reached is a filter and rows here. Values
are those of stage 2. The least difference of values that counts is

    delta = change * max(|V*|, sum over groups of (most - least worth of an option))

Every value is solved to a gap of delta / 20, and every least use of a row to ``change`` / 20 of
its limit: what is found at that resolution is proven, as on small problems it is exact.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from powercap_solver.arrays import BoolArray, IntArray
from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, ChoiceSolver, Row
from powercap_solver.context import Context, Stopwatch
from powercap_solver.floors import Kept, solve_floors
from powercap_solver.measures import CAP_TOLERANCE, Measures, measure
from powercap_solver.methods import method_solver
from powercap_solver.plan import Plan, StoppedBy
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import Objective, SolveSettings

_FINER = 20.0
"""By this factor the solves are finer than what they are to tell apart."""
_MOST_STEPS = 100
"""Of the search for the least watts where changes between periods lose value."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solved:
    """The answer to one changed stage 2."""

    choice: IntArray | None
    """int64[group]; None where nothing keeps the limits, or nothing was found."""
    worth: float
    """-inf without a choice."""
    bound: float
    """Proven: nothing is worth more (with ``least_used`` not asked: infinite)."""
    is_proven: bool
    """That it is the best at the resolution; False when time or the method ended before."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resolver:
    """Stage 2 of a plan, ready to be solved again."""

    context: Context
    kept: Kept
    base: Solved
    """Stage 2 as it is."""
    change: float
    """Smallest relative difference of values that counts."""
    delta: float
    """The same in the unit of the value."""

    @property
    def measures(self) -> Measures:
        """The tables."""
        return self.context.measures

    def best(
        self,
        *,
        rows: tuple[Row, ...],
        allowed: BoolArray | None = None,
        hint: IntArray | None = None,
    ) -> Solved:
        """Maximise stage 2.

        Args:
            rows: Every row to keep.
            allowed: bool[group, option]; None: as the floors left it.
            hint: int64[group], a choice that keeps all of it.

        Raises:
            SolverError: when the back end fails.
        """
        model = ChoiceModel(
            value=self.measures.worth,
            allowed=self.kept.allowed if allowed is None else allowed,
            rows=rows,
            links=self.measures.links,
            hint=hint,
        )
        wanted = self.delta / _FINER
        answer = self.context.maximise(model, relative_gap=0.0, absolute_gap=wanted)
        if answer.choice is None:
            return _nothing(answer)
        worth = self.measures.total_worth(answer.choice)
        is_proven = answer.stopped_by is StoppedBy.PROOF or answer.bound - worth <= wanted
        bound = max(worth, answer.bound)
        return Solved(choice=answer.choice, worth=worth, bound=bound, is_proven=is_proven)

    def with_limit(self, place: int, limit: float) -> Solved:
        """Maximise stage 2 with another limit for the hard row at ``place``.

        Raises:
            SolverError: when the back end fails.
        """
        rows = list(self.kept.rows)
        rows[place] = replace(rows[place], limit=limit)
        return self.best(rows=tuple(rows))

    def least_used(self, place: int, *, at_least: float) -> Solved:
        """Use least of the hard row at ``place``, its limit apart, for a value of ``at_least``.

        Raises:
            SolverError: when the back end fails.
        """
        row = self.kept.rows[place]
        others = (*self.kept.rows[:place], *self.kept.rows[place + 1 :])
        if not self.is_worth_linear:
            return self._least_by_search(place, others, at_least)
        value = np.zeros(self.measures.worth.shape)
        value[row.groups] = -row.coefficient
        model = ChoiceModel(
            value=value,
            allowed=self.kept.allowed,
            rows=(*others, self.worth_row(at_least, self.kept.allowed)),
            links=self.measures.ramps,
        )
        wanted = self.change / _FINER * abs(row.limit)
        answer = self.context.maximise(model, relative_gap=0.0, absolute_gap=wanted)
        if answer.choice is None:
            return _nothing(answer)
        used = row.used(answer.choice)
        return Solved(
            choice=answer.choice,
            worth=self.measures.total_worth(answer.choice),
            bound=math.inf,
            is_proven=answer.stopped_by is StoppedBy.PROOF or used + answer.bound <= wanted,
        )

    @property
    def is_worth_linear(self) -> bool:
        """Whether the value is the sum of what options are worth: nothing is lost by changing."""
        links = self.measures.links
        return links is None or (links.late is None and not (links.change_cost > 0).any())

    def worth_row(self, at_least: float, allowed: BoolArray) -> Row:
        """Return the row that keeps the value at ``at_least`` where it is linear."""
        worth = np.where(allowed, self.measures.worth, -np.inf)
        top = worth.max(axis=1)
        short = np.where(allowed, top[:, None] - worth, 0.0)
        return Row(
            kind="kept",
            groups=np.arange(len(top)),
            # What is short of the most: never negative, as a knapsack wants its weights.
            coefficient=short,
            limit=math.fsum([*top, -at_least]),
            slack=self.delta / 4,
        )

    def margin(self, place: int) -> float:
        """Return by how much less of the row at ``place`` is certainly less."""
        row = self.kept.rows[place]
        return 2 * row.slack + 1e-12 * abs(row.limit)

    def _least_by_search(self, place: int, others: tuple[Row, ...], at_least: float) -> Solved:
        """Halve between a limit too low and what a choice uses, until nothing lower is enough."""
        row = self.kept.rows[place]
        target = at_least - self.delta / 4
        found = self.best(rows=others)
        if found.choice is None or found.worth < target:
            return replace(found, choice=None)
        least = np.where(self.kept.allowed[row.groups], row.coefficient, np.inf).min(axis=1)
        low = math.fsum(least)
        for step in range(_MOST_STEPS):
            assert found.choice is not None
            high = row.used(found.choice)
            limit = high - self.margin(place)
            # Every other step asks whether this is it: then nothing a little lower is enough.
            if step % 2:
                limit = max(low, min(limit, 0.5 * (low + high)))
            trial = self.with_limit(place, limit)
            if not trial.is_proven and trial.worth < target <= trial.bound:
                break
            if trial.choice is not None and trial.worth >= target:
                found = trial
            elif step % 2:
                low = limit
            else:
                return found
        return replace(found, is_proven=False)


def _nothing(answer: ChoiceAnswer) -> Solved:
    is_proven = answer.stopped_by is StoppedBy.PROOF
    bound = -math.inf if is_proven else math.inf
    return Solved(choice=None, worth=-math.inf, bound=bound, is_proven=is_proven)


def resolver_of(
    problem: PlanningProblem,
    plan: Plan,
    *,
    settings: SolveSettings,
    change: float,
    clock: Callable[[], float] | None = None,
    choice_solver: ChoiceSolver | None = None,
) -> Resolver | None:
    """Prepare stage 2 of ``plan`` to be solved again; None when the plan has no such stage.

    Args:
        problem: What was planned.
        plan: Its plan; the objective is taken from it, and with assurance Expected its kappa.
        settings: Method and deadline.
        change: Smallest relative difference of values that counts.
        clock: Monotonic seconds; default ``time.perf_counter``.
        choice_solver: Takes the place of the method that ``settings`` names.

    Raises:
        SolverError: when the back end fails.
    """
    names = [stage.name for stage in plan.stages]
    if "served" not in names:
        return None
    kappa = plan.kappa if plan.kappa.size else None
    context = Context(
        measures=measure(problem, Objective(plan.objective), kappa=kappa),
        settings=replace(settings, relative_gap=0.0),
        stopwatch=Stopwatch(
            clock=time.perf_counter if clock is None else clock,
            deadline_seconds=settings.deadline_seconds,
        ),
        solver=choice_solver or method_solver(settings.method),
    )
    first = solve_floors(context)
    if first is None:
        return None
    kept = first[1]
    worth = context.measures.worth
    most = np.where(kept.allowed, worth, -np.inf).max(axis=1)
    least = np.where(kept.allowed, worth, np.inf).min(axis=1)
    objective = plan.stages[names.index("served")].objective
    delta = change * max(abs(objective), float((most - least).sum()), 1e-300)
    unsolved = Solved(choice=None, worth=-math.inf, bound=math.inf, is_proven=False)
    resolver = Resolver(context=context, kept=kept, base=unsolved, change=change, delta=delta)
    served = plan.stage_choice[names.index("served")].ravel()
    is_kept = bool(kept.allowed[np.arange(len(served)), served].all())
    base = resolver.best(rows=kept.rows, hint=served if is_kept else None)
    worth_of_plan = context.measures.total_worth(served)
    if is_kept and worth_of_plan >= base.worth - delta / _FINER:
        # Of equally good choices the one that the plan has shown.
        base = replace(base, choice=served, worth=worth_of_plan)
    return replace(resolver, base=base)


def meter_watts(problem: PlanningProblem, domain: int, period: int, above_base: float) -> float:
    """Return the cap at the meter that leaves ``above_base`` watts to the options.

    Rounded up by less than the tolerance of the cap, so that solving at it gives that much.
    """
    watts = math.fsum(
        [
            above_base,
            problem.base_watts[domain, period],
            problem.unmanaged_watts[domain, period],
            problem.fixed_watts[domain, period],
        ]
    )
    meter = watts * problem.overhead_factor[domain] + problem.fixed_overhead_watts[domain]
    return float(meter * (1 + CAP_TOLERANCE / 10))
