"""One plan from one moment's knowledge: gather, tabulate, solve, verify, explain.

Nothing leaves unverified. A solution that its certificate refuses is replaced by the lowest
option of every deployment, which asks for the least watts there are.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace

import numpy as np

from powercap_planner.assemble import (
    build_problem,
    build_safe_problem,
    charged_watts_per_replica,
    target_weight,
    unplanned_charge_watts,
)
from powercap_planner.curves.model import DeploymentModel
from powercap_planner.explain import explain_planned, explain_unplanned, one_more_watts
from powercap_planner.gather import gather_inputs
from powercap_planner.grid.weight import GridConditions
from powercap_planner.inputs import PlanningInputs, PlanningSettings, TargetInputs
from powercap_planner.observations import ClusterObservation, Finding, ReplicaRule
from powercap_planner.outcome import CapOutcome, PlanOutcome, TargetOutcome
from powercap_planner.request import PlanRequest
from powercap_solver.certificate import verify
from powercap_solver.files import problem_to_json
from powercap_solver.ladder import solve, solve_lowest
from powercap_solver.plan import Plan, PlanStatus
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import Objective, SolveSettings
from powercap_solver.warm import WarmStart

_logger = logging.getLogger(__name__)


def make_plan(
    *,
    observation: ClusterObservation,
    models: dict[str, DeploymentModel],
    grid: GridConditions,
    request: PlanRequest,
    now_seconds: float,
    settings: PlanningSettings | None = None,
    solve_settings: SolveSettings | None = None,
) -> PlanOutcome:
    """Return the verified plan for a request.

    Args:
        observation: history up to now.
        models: by ``namespace/name``, for every observed deployment.
        grid: price and carbon now.
        request: what is asked.
        now_seconds: Unix time; the age of every measurement is judged against it.
        settings: what planning assumes.
        solve_settings: limits of the solver.

    Raises:
        RequestError: when the request names a deployment nobody knows.
        DataMissingError: when no target has usable data.
    """
    inputs = gather_inputs(
        observation=observation,
        models=models,
        grid=grid,
        request=request,
        now_seconds=now_seconds,
        settings=settings or PlanningSettings(),
    )
    return plan_inputs(
        inputs,
        now_seconds=now_seconds,
        valid_seconds=request.valid_seconds,
        solve_settings=solve_settings,
    )


def plan_inputs(
    inputs: PlanningInputs,
    *,
    now_seconds: float,
    valid_seconds: float,
    solve_settings: SolveSettings | None = None,
    warm: WarmStart | None = None,
) -> PlanOutcome:
    """Return the verified plan for inputs that are already gathered, from a file or a what-if."""
    settings = replace(
        solve_settings or SolveSettings(),
        objective=Objective(inputs.objective.kind.value),
        stability_tolerance=inputs.objective.stability_tolerance_fraction,
    )
    problem = build_problem(inputs)
    plan, findings = solve_verified(problem, settings, warm=warm)
    allowed = {
        one.key: int(problem.replicas[row, plan.choice[row, 0]])
        for row, one in enumerate(inputs.planned)
    }
    safe = _safe_maxima(inputs, allowed, settings)
    targets = tuple(
        _unplanned_outcome(one, inputs)
        if one.key not in allowed
        else _planned_outcome(one, inputs, problem=problem, plan=plan, safe=safe[one.key])
        for one in inputs.targets
    )
    digest = hashlib.sha256(f"{now_seconds:.3f}\n{problem_to_json(problem)}".encode())
    return PlanOutcome(
        plan_id=digest.hexdigest()[:12],
        planned_at_seconds=now_seconds,
        expires_at_seconds=now_seconds + valid_seconds,
        targets=targets,
        caps=(_cap_outcome(problem, plan),),
        findings=(*inputs.findings, *findings),
        problem=problem,
        plan=plan,
    )


def solve_verified(
    problem: PlanningProblem, settings: SolveSettings, *, warm: WarmStart | None = None
) -> tuple[Plan, tuple[Finding, ...]]:
    """Return a plan whose certificate holds; the lowest one when the solver's does not.

    Raises:
        ProblemError: when the problem lacks what the objective needs.
    """
    plan = solve(problem, settings=settings, warm=warm)
    # The ladder has checked each of its rungs but the last. Here the planner answers for what
    # leaves it, whatever the ladder was told: it costs milliseconds at its sizes.
    violations = verify(problem, plan)
    if not violations:
        return plan, ()
    for violation in violations:
        _logger.error("plan refused: %s", violation)
    message = f"the solver's plan was refused ({violations[0]}): the lowest is used"
    return solve_lowest(problem), (Finding(reason="PlanRefused", message=message),)


def _safe_maxima(
    inputs: PlanningInputs, allowed: dict[str, int], settings: SolveSettings
) -> dict[str, int]:
    """Return the replicas that fit by nameplate alone, none above the plan's."""
    problem = build_safe_problem(inputs, allowed=allowed)
    plan, _ = solve_verified(problem, replace(settings, objective=Objective.THROUGHPUT))
    return {
        key: int(problem.replicas[row, plan.choice[row, 0]])
        for row, key in enumerate(problem.deployments)
    }


def _planned_outcome(
    one: TargetInputs,
    inputs: PlanningInputs,
    *,
    problem: PlanningProblem,
    plan: Plan,
    safe: int,
) -> TargetOutcome:
    row = problem.deployments.index(one.key)
    option = int(plan.choice[row, 0])
    return TargetOutcome(
        namespace=one.namespace,
        name=one.name,
        status=one.status,
        replicas=int(problem.replicas[row, option]),
        replicas_now=one.present_replicas,
        reason=explain_planned(one, problem=problem, plan=plan, deployment=row),
        planned_watts=float(problem.power_watts[row, 0, option]),
        charged_watts=float(problem.upper_watts[row, 0, option]),
        charged_watts_per_replica=charged_watts_per_replica(one, inputs),
        load_tps=float(problem.load_tps[row, 0]),
        served_tps=float(problem.served_tps[row, 0, option]),
        safe_max_replicas=safe,
        gpus_per_replica=one.model.gpus_per_replica,
        gpu_type=one.model.gpu_type,
        weight=target_weight(one),
    )


def _unplanned_outcome(one: TargetInputs, inputs: PlanningInputs) -> TargetOutcome:
    # Never above what is allowed; what is present where nothing was ever allowed.
    known = one.allowed_replicas if one.allowed_replicas is not None else one.present_replicas
    replicas = known or 0
    if one.replica_rule is ReplicaRule.CEILING:
        replicas = max(replicas, 1)
    charge = unplanned_charge_watts(one, inputs)
    return TargetOutcome(
        namespace=one.namespace,
        name=one.name,
        status=one.status,
        replicas=replicas,
        replicas_now=one.present_replicas,
        reason=explain_unplanned(one, replicas=replicas),
        # Its draw is not known: what it may draw is what is planned with.
        planned_watts=charge,
        charged_watts=charge,
        charged_watts_per_replica=charged_watts_per_replica(one, inputs),
        load_tps=0.0,
        served_tps=0.0,
        safe_max_replicas=replicas,
        gpus_per_replica=one.model.gpus_per_replica,
        gpu_type=one.model.gpu_type,
        weight=one.weight,
    )


def _cap_outcome(problem: PlanningProblem, plan: Plan) -> CapOutcome:
    row = np.arange(len(problem.deployments))
    chosen = plan.choice[:, 0]
    rest = (
        float(problem.base_watts[0, 0])
        + float(problem.unmanaged_watts[0, 0])
        + float(problem.fixed_watts[0, 0])
    )
    headroom = float(plan.headroom_watts[0, 0])
    return CapOutcome(
        name=problem.domains[0],
        cap_watts=float(problem.cap_watts[0, 0]),
        charged_watts=float(plan.upper_watts[0, 0]),
        planned_watts=rest + float(problem.power_watts[row, 0, chosen].sum()),
        base_watts=float(problem.base_watts[0, 0]),
        unmanaged_watts=float(problem.unmanaged_watts[0, 0]),
        fixed_watts=float(problem.fixed_watts[0, 0]),
        available_watts=float(problem.available_watts[0, 0]),
        headroom_watts=headroom,
        shadow_price_low=float(plan.shadow_price_low[0, 0]),
        shadow_price_high=float(plan.shadow_price_high[0, 0]),
        is_binding=plan.status is PlanStatus.CAP_INFEASIBLE
        or any(
            chosen[place] + 1 < problem.option_count[place]
            and one_more_watts(problem, deployment=int(place), option=int(chosen[place])) > headroom
            for place in row
        ),
        least_cap_watts=least_cap_watts(problem, plan, domain=0),
    )


def least_cap_watts(problem: PlanningProblem, plan: Plan, *, domain: int) -> float | None:
    """Return the least cap at the meter that keeps every floor of the first period, W.

    None where every floor is kept, and where it is not known.
    """
    least = float(plan.least_cap_watts[domain, 0])
    if not np.isnan(least):
        return least
    is_lowest = plan.status is PlanStatus.CAP_INFEASIBLE and len(problem.domains) == 1
    if not is_lowest or plan.yielded_floors:
        return None
    # The lowest draw keeps every floor: what it is charged is the least there is.
    charged = float(plan.upper_watts[domain, 0]) * float(problem.overhead_factor[domain])
    return charged + float(problem.fixed_overhead_watts[domain])
