"""Why the plan gives a deployment what it gives: one sentence for people each."""

from __future__ import annotations

from powercap_planner.inputs import TargetInputs
from powercap_planner.outcome import TargetStatus
from powercap_solver.plan import Plan, PlanStatus, YieldedFloor
from powercap_solver.problem import PlanningProblem


def explain_unplanned(one: TargetInputs, *, replicas: int) -> str:
    """Return why a target is charged as it is."""
    if one.status is TargetStatus.HELD:
        return f"held at {replicas}: {one.note}"
    return f"charged, not planned: {one.note}"


def explain_planned(
    one: TargetInputs, *, problem: PlanningProblem, plan: Plan, deployment: int
) -> str:
    """Return why a planned target may run just as many replicas."""
    yielded = [floor for floor in plan.yielded_floors if floor.deployment == one.key]
    if one.pinned_replicas is not None:
        return f"pinned to {one.pinned_replicas}"
    if plan.status is PlanStatus.CAP_INFEASIBLE:
        return "even the lowest draw of everything exceeds the cap"
    if yielded:
        return _explain_floor(yielded[0])
    option = int(plan.choice[deployment, 0])
    if option + 1 == problem.option_count[deployment]:
        return "the user's maximum"
    needed = one_more_watts(problem, deployment=deployment, option=option)
    left = float(plan.headroom_watts[0, 0])
    if needed > left:
        return f"cap binds: one more replica needs {needed:.0f} W, {max(left, 0):.0f} W are left"
    served = problem.served_tps[deployment, 0]
    if served[option + 1] - served[option] <= 1e-9 * max(served[option], 1.0):
        return "serves all its load"
    return "one more replica is worth less than its energy or the change"


def one_more_watts(problem: PlanningProblem, *, deployment: int, option: int) -> float:
    """Return the upper watts that the next option is charged more, W."""
    upper = problem.upper_watts[deployment, 0]
    return float(upper[option + 1] - upper[option])


def _explain_floor(floor: YieldedFloor) -> str:
    if floor.kind == "min_replicas":
        return (
            f"cap binds: the floor of {floor.required:.0f} replicas yields to {floor.planned:.0f}"
        )
    return (
        f"cap binds: the floor of {floor.required:.0%} served yields to {floor.planned:.0%} of load"
    )
