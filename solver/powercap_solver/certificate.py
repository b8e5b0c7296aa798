"""An independent check of a plan against its problem, in plain numpy and ``math.fsum``.

Shares nothing with the methods. What it proves: the choices exist, the caps hold, every number
the plan states about its choices is what the choices give, every stage keeps the stages before
it, and every bound lies on the right side. What it cannot prove: that a bound is no tighter than
the truth; for that, solve again with another back end.
"""

from __future__ import annotations

import math

import numpy as np

from powercap_solver.plan import Plan, PlanStatus, StageResult, StoppedBy
from powercap_solver.problem import IntArray, PlanningProblem
from powercap_solver.recomputed import (
    BACK,
    CHANGE,
    FLOORS,
    RATIO,
    SERVED,
    class_shortfalls,
    drawn_watts,
    least_drawn_watts,
    objective_of,
    picked,
    ratio_of,
    shortfalls,
    value_of,
)

CAP_TOLERANCE = 1e-9
"""Share of a cap by which it may be exceeded."""
TOLERANCE = 1e-7
"""Relative, on sums recomputed and on what a stage keeps."""
_SERVED_TOLERANCE = 0.002

_ORDER = (FLOORS, SERVED, RATIO, CHANGE, BACK)
_REQUIRED = (FLOORS, SERVED, BACK)
_MINIMISED = (FLOORS, CHANGE)
_RUNGS = ("exact", "greedy", "lowest")


def verify(problem: PlanningProblem, plan: Plan) -> tuple[str, ...]:
    """Check ``plan`` against ``problem``; every sentence returned is something wrong with it."""
    misshapen = _shapes(problem, plan)
    if misshapen:
        return misshapen
    return (
        *_caps(problem, plan),
        *_prices(plan),
        *_yielded(problem, plan),
        *_least_caps(problem, plan),
        *_stages(problem, plan),
        *_kept(problem, plan),
        *_status(problem, plan),
    )


def _shapes(problem: PlanningProblem, plan: Plan) -> tuple[str, ...]:
    choices = (len(problem.deployments), len(problem.period_seconds))
    expected = {
        "choice": choices,
        "stage_choice": (len(plan.stages), *choices),
        "upper_watts": problem.cap_watts.shape,
        "headroom_watts": problem.cap_watts.shape,
        "shadow_price_low": problem.cap_watts.shape,
        "shadow_price_high": problem.cap_watts.shape,
        "least_cap_watts": problem.cap_watts.shape,
    }
    wrong = [
        f"{name} has shape {getattr(plan, name).shape}, the problem asks for {shape}"
        for name, shape in expected.items()
        if getattr(plan, name).shape != shape
    ]
    if wrong:
        return tuple(wrong)
    for label, choice in (("choice", plan.choice), ("stage_choice", plan.stage_choice)):
        outside = np.argwhere((choice < 0) | (choice >= problem.option_count[:, None]))
        for index in outside.tolist():
            wrong.append(
                f"{label}{index} is {choice[tuple(index)]}, {problem.deployments[index[-2]]} has "
                f"{problem.option_count[index[-2]]} options"
            )
    if len(plan.stages) and (plan.stage_choice[-1] != plan.choice).any():
        wrong.append("choice is not that of the last stage")
    return tuple(wrong)


def _caps(problem: PlanningProblem, plan: Plan) -> list[str]:
    wrong = []
    drawn = drawn_watts(problem, plan.choice)
    available = problem.available_watts
    charged = drawn + problem.base_watts + problem.unmanaged_watts + problem.fixed_watts
    for domain, period in np.ndindex(*drawn.shape):
        where = f"domain {problem.domains[domain]}, period {period}"
        cap = problem.cap_watts[domain, period]
        near = CAP_TOLERANCE * max(cap, charged[domain, period])
        excess = drawn[domain, period] - available[domain, period]
        if excess > CAP_TOLERANCE * cap and plan.status is not PlanStatus.CAP_INFEASIBLE:
            wrong.append(
                f"{where}: the options draw {drawn[domain, period]!r} W above base, "
                f"{excess!r} W more than the {available[domain, period]!r} W available"
            )
        stated = plan.upper_watts[domain, period]
        if not abs(stated - charged[domain, period]) <= near:
            wrong.append(
                f"{where}: upper_watts is {stated!r} W, the options give "
                f"{charged[domain, period]!r} W"
            )
        headroom = plan.headroom_watts[domain, period]
        if not abs(headroom + excess) <= near:
            wrong.append(
                f"{where}: headroom_watts is {headroom!r} W, the options leave {-excess!r} W"
            )
    return wrong


def _prices(plan: Plan) -> list[str]:
    wrong = []
    for domain, period in np.ndindex(*plan.shadow_price_low.shape):
        low = plan.shadow_price_low[domain, period]
        high = plan.shadow_price_high[domain, period]
        is_unknown = math.isnan(low) and math.isnan(high)
        if not (is_unknown or 0 <= low <= high < math.inf):
            wrong.append(
                f"shadow price of domain {domain}, period {period} is {low!r} to {high!r}; "
                "accepted: 0 or more, ends in order, or both not known"
            )
    return wrong


def _yielded(problem: PlanningProblem, plan: Plan) -> list[str]:
    missed = shortfalls(problem, plan.choice)
    wrong = []
    stated = set()
    for floor in plan.yielded_floors:
        key = (floor.deployment, floor.period, floor.kind)
        stated.add(key)
        if key not in missed:
            wrong.append(f"yielded floor {key} is stated, the options keep it")
            continue
        deployment = problem.deployments.index(floor.deployment)
        option = plan.choice[deployment, floor.period]
        if floor.kind == "min_replicas":
            required = float(problem.min_replicas[deployment])
            planned = float(problem.replicas[deployment, option])
        else:
            required = float(problem.min_served_fraction[deployment])
            served = problem.served_tps[deployment, floor.period, option]
            planned = float(served / problem.load_tps[deployment, floor.period])
        if not (_near(floor.required, required) and _near(floor.planned, planned)):
            wrong.append(
                f"yielded floor {key} states {floor.planned!r} of {floor.required!r}, "
                f"the options give {planned!r} of {required!r}"
            )
    wrong += [f"floor {key} is missed and not stated" for key in missed if key not in stated]
    return wrong


def _least_caps(problem: PlanningProblem, plan: Plan) -> list[str]:
    wrong = []
    periods = {floor.period for floor in plan.yielded_floors}
    for domain, period in np.ndindex(*plan.least_cap_watts.shape):
        least = plan.least_cap_watts[domain, period]
        cap = problem.cap_watts[domain, period]
        if math.isnan(least):
            continue
        where = f"least_cap_watts of domain {problem.domains[domain]}, period {period}"
        if period not in periods:
            wrong.append(f"{where} is {least!r} W although no floor yielded there")
        elif not cap < least < math.inf and plan.rung == "exact":
            wrong.append(f"{where} is {least!r} W, not above the cap of {cap!r} W")
    return wrong


def _stages(problem: PlanningProblem, plan: Plan) -> list[str]:
    names = [stage.name for stage in plan.stages]
    if not names and plan.status is PlanStatus.CAP_INFEASIBLE:
        return []
    is_ordered = names == [name for name in _ORDER if name in names]
    missing = [name for name in _REQUIRED if name not in names]
    if not is_ordered or missing:
        return [f"stages are {names}; accepted: {list(_ORDER)} in order, {RATIO} and {CHANGE}"]
    wrong = []
    for index, stage in enumerate(plan.stages):
        wrong += _numbers(stage, objective_of(problem, plan, index))
    return wrong


def _numbers(stage: StageResult, objective: float) -> list[str]:
    stated = (stage.objective, stage.bound, stage.gap, stage.seconds, stage.kept_within)
    if not all(math.isfinite(number) for number in stated):
        return [f"stage {stage.name} states a number that is not finite: {stated}"]
    wrong = []
    if not _near(stage.objective, objective):
        wrong.append(
            f"stage {stage.name}: objective is {stage.objective!r}, its choices give {objective!r}"
        )
    excess = stage.objective - stage.bound
    if stage.name in _MINIMISED:
        excess = -excess
    if excess > 1e-9 * max(abs(stage.objective), 1e-9):
        wrong.append(
            f"stage {stage.name}: bound {stage.bound!r} is on the wrong side of the objective "
            f"{stage.objective!r}"
        )
    gap = abs(stage.bound - stage.objective) / max(abs(stage.objective), 1e-9)
    if not abs(stage.gap - gap) <= 1e-12 + TOLERANCE * gap:
        wrong.append(f"stage {stage.name}: gap is {stage.gap!r}, objective and bound give {gap!r}")
    if not 0 <= stage.kept_within < 1 or stage.seconds < 0:
        wrong.append(
            f"stage {stage.name}: kept_within {stage.kept_within!r} or seconds "
            f"{stage.seconds!r} is out of range"
        )
    return wrong


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(abs(one), abs(other), 1e-9)


def _kept(problem: PlanningProblem, plan: Plan) -> list[str]:
    """What each stage owes the stages before it."""
    names = [stage.name for stage in plan.stages]
    if any(name not in names for name in _REQUIRED):
        return []
    choice = dict(zip(names, plan.stage_choice, strict=True))
    wrong = []
    for name in names:
        wrong += _stage_caps(problem, name, choice[name])
        wrong += _stage_floors(problem, name, choice[FLOORS], choice[name])
    if RATIO in choice:
        wrong += _share(problem, choice[SERVED], choice[RATIO])
    if CHANGE in choice:
        stage = plan.stages[names.index(CHANGE)]
        before = choice[RATIO] if RATIO in choice else choice[SERVED]
        measures = [("served value", value_of)]
        if RATIO in choice:
            measures.append(("throughput per watt", ratio_of))
        for label, compute in measures:
            least = (1 - stage.kept_within) * compute(problem, before)
            reached = compute(problem, choice[CHANGE])
            if reached < least * (1 - TOLERANCE):
                wrong.append(f"stage {CHANGE} keeps {label} {reached!r}, less than {least!r}")
    last_before = plan.stage_choice[names.index(BACK) - 1]
    return [*wrong, *_raises(problem, last_before, choice[BACK], is_shedding=RATIO in choice)]


def _stage_caps(problem: PlanningProblem, name: str, choice: IntArray) -> list[str]:
    drawn = drawn_watts(problem, choice)
    limit = np.maximum(problem.available_watts, least_drawn_watts(problem))
    excess = drawn - limit - CAP_TOLERANCE * problem.cap_watts
    # Where the cap is below the lowest draw, the sum itself is the limit: only rounding differs.
    broken = np.argwhere(excess > 1e-12 * np.abs(limit))
    return [
        f"stage {name}: domain {problem.domains[domain]}, period {period} draws "
        f"{drawn[domain, period]!r} W of {limit[domain, period]!r} W"
        for domain, period in broken.tolist()
    ]


def _stage_floors(
    problem: PlanningProblem, name: str, first: IntArray, choice: IntArray
) -> list[str]:
    allowed = class_shortfalls(problem, first)
    return [
        f"stage {name} misses floors of priority {level} by {missed!r}, stage {FLOORS} by "
        f"{allowed[level]!r}"
        for level, missed in class_shortfalls(problem, choice).items()
        if missed > allowed[level] * (1 + TOLERANCE) + TOLERANCE
    ]


def _share(problem: PlanningProblem, best: IntArray, choice: IntArray) -> list[str]:
    served, kept = picked(problem.served_tps, best), picked(problem.served_tps, choice)
    wanted = problem.served_share * served
    return [
        f"stage {RATIO}: {problem.deployments[deployment]} serves "
        f"{kept[deployment, period]!r} tokens/s in period {period}, its share of stage {SERVED} "
        f"is {wanted[deployment, period]!r}"
        for deployment, period in np.argwhere(kept < wanted * (1 - CAP_TOLERANCE)).tolist()
    ]


def _raises(
    problem: PlanningProblem, before: IntArray, after: IntArray, *, is_shedding: bool
) -> list[str]:
    wrong = []
    served, kept = picked(problem.served_tps, after), picked(problem.served_tps, before)
    least_share = 1 - _SERVED_TOLERANCE - CAP_TOLERANCE
    for deployment, period in np.argwhere(after != before).tolist():
        where = f"stage {BACK}: {problem.deployments[deployment]}, period {period}"
        if after[deployment, period] < before[deployment, period]:
            wrong.append(f"{where} is lowered")
        if not problem.is_ceiling[deployment]:
            wrong.append(f"{where} is raised and is no ceiling")
        if is_shedding and problem.served_share[deployment, period] < least_share:
            wrong.append(f"{where} is raised while its load is shed under stress")
        if served[deployment, period] < kept[deployment, period]:
            wrong.append(f"{where} serves less than before")
    return wrong


def _status(problem: PlanningProblem, plan: Plan) -> list[str]:
    wrong = []
    if plan.rung not in _RUNGS:
        wrong.append(f"rung is {plan.rung!r}; accepted: {', '.join(_RUNGS)}")
    if plan.status is PlanStatus.CAP_INFEASIBLE:
        return [*wrong, *_infeasible(problem, plan)]
    if plan.rung == "lowest":
        wrong.append(f"rung is 'lowest' although the status is {plan.status.value!r}")
    unproven = [stage.name for stage in plan.stages if stage.stopped_by is not StoppedBy.PROOF]
    if plan.status is PlanStatus.OPTIMAL and unproven:
        wrong.append(f"status is optimal, stages {unproven} stopped before their proof")
    if not plan.stages:
        wrong.append("the plan has no stages")
    return wrong


def _infeasible(problem: PlanningProblem, plan: Plan) -> list[str]:
    """A plan that exceeds caps must draw the least there is where it does."""
    drawn, least = drawn_watts(problem, plan.choice), least_drawn_watts(problem)
    limit = problem.available_watts + CAP_TOLERANCE * problem.cap_watts
    exceeded = drawn > limit
    if not exceeded.any():
        return ["status is cap_infeasible although the options keep every cap"]
    wrong = [] if plan.rung == "lowest" else [f"rung is {plan.rung!r}, expected 'lowest'"]
    summed = problem.upper_watts.sum(axis=0)
    least_each = np.where(problem.is_option[:, None, :], summed, np.inf).min(axis=2)
    is_lowest_of_all = bool((picked(summed, plan.choice) <= least_each * (1 + 1e-12)).all())
    for domain, period in np.argwhere(exceeded).tolist():
        if drawn[domain, period] > least[domain, period] * (1 + 1e-12) and not is_lowest_of_all:
            wrong.append(
                f"domain {problem.domains[domain]}, period {period} draws "
                f"{drawn[domain, period]!r} W above base, the least is "
                f"{least[domain, period]!r} W"
            )
    return wrong
