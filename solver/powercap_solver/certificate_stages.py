"""What the stages of a plan state, and what each owes the stages before it.

Every stage must keep every limit and ramp and the floors of each class as stage ``floors`` does;
``throughput_per_watt`` each deployment's share of what ``served`` gave it; ``least_change`` worth
and ratio within what it states; ``give_back`` may only raise ceilings that are not being shed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from powercap_solver.certificate_claims import MOST_TOLD, ROUNDING, TOLERANCE, is_near
from powercap_solver.plan import Plan, PlanStatus, StageResult
from powercap_solver.problem import PlanningProblem
from powercap_solver.recomputed import (
    BACK,
    CHANGE,
    FLOORS,
    RATIO,
    SERVED,
    THROUGHPUT_PER_WATT,
    Chosen,
    exact_sum,
    objective_of,
)
from powercap_solver.recomputed_limits import CAP_TOLERANCE, UNITS, LimitRows, Limits

_SERVED_TOLERANCE = 0.002
_MINIMISED = (FLOORS, CHANGE)


def check_stages(
    problem: PlanningProblem,
    plan: Plan,
    limits: Limits,
    last: Chosen,
    rows: tuple[LimitRows, ...],
) -> list[str]:
    """Check the stages; ``last`` and ``rows`` are what ``plan.choice`` gives and uses."""
    if not plan.stages:
        if plan.status is PlanStatus.CAP_INFEASIBLE:
            return []
        return [*_limits_of("plan", plan, limits, last, rows), *_aggregate(limits, plan)]
    names = [stage.name for stage in plan.stages]
    misordered = _misordered(problem, plan, names)
    if misordered:
        return misordered
    chosen = _chosen(problem, plan, last)
    wrong = []
    for index, stage in enumerate(plan.stages):
        before = chosen[max(0, index - 1)]
        size = chosen[index].worth_size if stage.name == SERVED else 0.0
        wrong += _numbers(stage, objective_of(stage.name, chosen[index], before), size)
    seen: set[int] = set()
    for name, each in zip(names, chosen, strict=True):
        if id(each) not in seen:
            used = rows if each is last else limits.rows(each.choice)
            wrong += _limits_of(f"stage {name}", plan, limits, each, used)
            wrong += _floors(name, chosen[0], each)
        seen.add(id(each))
    wrong += _aggregate(limits, plan)
    by_name = dict(zip(names, chosen, strict=True))
    if RATIO in by_name:
        wrong += _share(problem, by_name[SERVED], by_name[RATIO])
    if CHANGE in by_name:
        wrong += _change(plan.stages[names.index(CHANGE)], by_name)
    if BACK in by_name:
        wrong += _raises(problem, chosen[-2], chosen[-1], plan.objective == THROUGHPUT_PER_WATT)
    return wrong


def _chosen(problem: PlanningProblem, plan: Plan, last: Chosen) -> list[Chosen]:
    """What each stage's choice gives; stages of the same choice share it."""
    found: list[Chosen] = [last]
    for choice in plan.stage_choice[::-1]:
        same = next((each for each in found if np.array_equal(each.choice, choice)), None)
        found.append(same or Chosen(problem=problem, objective=plan.objective, choice=choice))
    return found[:0:-1]


def _misordered(problem: PlanningProblem, plan: Plan, names: list[str]) -> list[str]:
    early, whole = [FLOORS, SERVED], [FLOORS, SERVED]
    if plan.objective == THROUGHPUT_PER_WATT and (RATIO in names or _must_draw(problem)):
        whole.append(RATIO)
    if (problem.replicas_in_force >= 0).any():
        whole.append(CHANGE)
    whole.append(BACK)
    if names in (early, whole):
        return []
    return [f"stages are {names}; accepted: {whole}, or {early} alone"]


def _must_draw(problem: PlanningProblem) -> bool:
    """Whether nothing can be served without W being more than 0."""
    weight = problem.energy_weight * problem.period_seconds
    energy = weight[problem.zone_index][:, :, None] * problem.power_watts
    energy = np.where(problem.is_option[:, None, :], energy, np.inf)
    least = energy.min(axis=2)
    extra = (energy - least[:, :, None])[problem.served_tps > 0]
    total = math.fsum([exact_sum(least), exact_sum(weight * problem.zone_base_watts)])
    return total + float(extra.min(initial=np.inf)) > ROUNDING * float(np.abs(least).sum())


def _numbers(stage: StageResult, objective: float, size: float) -> list[str]:
    stated = (stage.objective, stage.bound, stage.gap, stage.seconds, stage.kept_within)
    if not all(math.isfinite(number) for number in stated):
        return [f"stage {stage.name} states a number that is not finite: {stated}"]
    wrong = []
    if not is_near(stage.objective, objective, size=size):
        wrong.append(
            f"stage {stage.name}: objective is {stage.objective!r}, its choices give {objective!r}"
        )
    excess = stage.objective - stage.bound
    if stage.name in _MINIMISED:
        excess = -excess
    if excess > 1e-9 * max(abs(stage.objective), 1e-9) + ROUNDING * size:
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


def _limits_of(
    label: str, plan: Plan, limits: Limits, chosen: Chosen, rows: Iterable[LimitRows]
) -> list[str]:
    """Every limit and ramp, for the choice of one stage."""
    wrong = []
    is_infeasible = plan.status is PlanStatus.CAP_INFEASIBLE
    for each in rows:
        limit = limits.effective(each) if is_infeasible else each.given
        # A least use is a limit without slack of its own: only its rounding differs.
        excess = each.used - limit - each.slack - ROUNDING * np.abs(np.minimum(limit, each.used))
        for place, period in np.argwhere(excess > 0)[:MOST_TOLD].tolist():
            used, most = float(each.used[place, period]), float(limit[place, period])
            wrong.append(
                f"{label}: {each.kind} of {each.names[place]}, period {period}: the options use "
                f"{used!r} {UNITS[each.kind]}, {used - most!r} more than the {most!r} there are"
            )
    dynamics = limits.problem.dynamics
    if dynamics is not None:
        for deployment, period in np.argwhere(chosen.breaks_ramps)[:MOST_TOLD].tolist():
            wrong.append(
                f"{label}: ramp of {limits.problem.deployments[deployment]}, period {period}: "
                f"{chosen.steps[deployment, period]:+.0f} replicas; accepted: at most "
                f"{dynamics.max_raise[deployment]} up and {dynamics.max_lower[deployment]} down"
            )
    return wrong


def _aggregate(limits: Limits, plan: Plan) -> list[str]:
    """With assurance Expected the plan itself, not only its rows, must keep every cap."""
    bound = limits.aggregate(plan.choice)
    if bound is None:
        return []
    problem = limits.problem
    caps = limits.rows(plan.choice)[0]
    is_infeasible = plan.status is PlanStatus.CAP_INFEASIBLE
    limit = limits.effective(caps) if is_infeasible else caps.given
    over = np.argwhere(bound > limit + caps.slack + ROUNDING * np.abs(limit))
    return [
        f"domain {problem.domains[domain]}, period {period}: the aggregate bound is "
        f"{bound[domain, period]!s} W above base, more than the {limit[domain, period]!s} W "
        "available"
        for domain, period in over[:MOST_TOLD].tolist()
    ]


def _floors(name: str, first: Chosen, chosen: Chosen) -> list[str]:
    allowed = first.class_shortfalls
    return [
        f"stage {name} misses floors of priority {level} by {missed!r}, stage {FLOORS} by "
        f"{allowed[level]!r}"
        for level, missed in chosen.class_shortfalls.items()
        if missed > allowed[level] * (1 + TOLERANCE) + TOLERANCE
    ]


def _share(problem: PlanningProblem, best: Chosen, chosen: Chosen) -> list[str]:
    wanted = problem.served_share * best.served
    below = np.argwhere(chosen.served < wanted * (1 - CAP_TOLERANCE))
    return [
        f"stage {RATIO}: {problem.deployments[deployment]} serves "
        f"{chosen.served[deployment, period]!s} tokens/s in period {period}, its share of stage "
        f"{SERVED} is {wanted[deployment, period]!s}"
        for deployment, period in below[:MOST_TOLD].tolist()
    ]


def _change(stage: StageResult, chosen: dict[str, Chosen]) -> list[str]:
    before, after = chosen.get(RATIO, chosen[SERVED]), chosen[CHANGE]
    wrong = []
    scale = before.worth_scale
    least = before.worth - stage.kept_within * scale
    if after.worth < least - TOLERANCE * scale - ROUNDING * before.worth_size:
        wrong.append(f"stage {CHANGE} keeps the worth {after.worth!r}, less than {least!r}")
    if RATIO in chosen:
        least = (1 - stage.kept_within) * before.ratio
        if after.ratio < least - TOLERANCE * abs(least):
            wrong.append(f"stage {CHANGE} keeps the ratio {after.ratio!r}, less than {least!r}")
    return wrong


def _raises(
    problem: PlanningProblem, before: Chosen, after: Chosen, may_be_shedding: bool
) -> list[str]:
    is_changed = after.choice != before.choice
    is_shed = problem.served_share < 1 - _SERVED_TOLERANCE - CAP_TOLERANCE
    rules = (
        ("is lowered", after.replicas < before.replicas),
        ("is raised and is no ceiling", is_changed & ~problem.is_ceiling[:, None]),
        ("is raised while its load is shed under stress", is_changed & is_shed & may_be_shedding),
        ("serves less than before", is_changed & (after.served < before.served)),
    )
    return [
        f"stage {BACK}: {problem.deployments[deployment]}, period {period} {said}"
        for said, broken in rules
        for deployment, period in np.argwhere(broken)[:MOST_TOLD].tolist()
    ]
