"""One rung of the ladder: all stages by one method, put together as a plan."""

from __future__ import annotations

import logging
import math

import numpy as np

from powercap_solver.arrays import FloatArray, IntArray
from powercap_solver.context import Context
from powercap_solver.duals import shadow_prices
from powercap_solver.errors import SolverError
from powercap_solver.floors import lowest_choice, yielded_floors
from powercap_solver.least_caps import least_caps, least_common_factor
from powercap_solver.lexicographic import Outcome, solve_stages
from powercap_solver.measures import Measures
from powercap_solver.plan import BindingRow, Plan, PlanStatus, StageResult, StoppedBy, YieldedFloor
from powercap_solver.worth import BUDGETS

_LOGGER = logging.getLogger(__name__)

FAST, COMPACT, GREEDY, IN_FORCE, LOWEST = "fast", "compact", "greedy", "in_force", "lowest"


def solve_rung(context: Context, rung: str) -> Plan | None:
    """Run every stage and put the plan together; None when the rows cannot hold together.

    Raises:
        SolverError: when the method fails, or time is out before any plan was found.
    """
    outcome = solve_stages(context)
    if outcome is None:
        return None
    measures = context.measures
    yielded = yielded_floors(measures, outcome.choice)
    least, factor = _least_caps(context, yielded)
    return _assemble(
        context,
        choice=outcome.choice,
        status=_status(context, outcome),
        rung=LOWEST if measures.is_impossible else rung,
        stages=tuple(stage.result for stage in outcome.stages),
        stage_choice=np.stack([stage.choice for stage in outcome.stages]),
        prices=shadow_prices(measures, outcome.kept, outcome.row_prices),
        yielded=yielded,
        least_cap_watts=least,
        least_common_factor=factor,
        row_prices=outcome.row_prices,
    )


def lowest_plan(context: Context) -> Plan:
    """The lowest draw summed over the domains, whatever else; loudly where rows do not hold."""
    measures = context.measures
    choice = lowest_choice(measures)
    if measures.hold(choice) and not measures.is_impossible:
        return _bare(context, choice, PlanStatus.FEASIBLE, LOWEST)
    _LOGGER.warning("caps %s cannot hold together: lowest draw", measures.problem.domains)
    return _bare(context, choice, PlanStatus.CAP_INFEASIBLE, LOWEST)


def plan_in_force(context: Context) -> Plan | None:
    """The replicas in force as a plan without stages; None where they are not known or not kept."""
    measures = context.measures
    periods = measures.shape[1]
    in_force = np.repeat(measures.problem.replicas_in_force, periods)[:, None]
    matches = measures.allowed & (measures.replicas == in_force)
    if not matches.any(axis=1).all() or measures.is_impossible:
        return None
    choice = np.argmax(matches, axis=1).astype(np.int64)
    return _bare(context, choice, PlanStatus.FEASIBLE, IN_FORCE) if measures.hold(choice) else None


def _bare(context: Context, choice: IntArray, status: PlanStatus, rung: str) -> Plan:
    nothing = np.full(context.measures.available.shape, np.nan)
    return _assemble(
        context,
        choice=choice,
        status=status,
        rung=rung,
        stages=(),
        stage_choice=np.zeros((0, len(choice)), dtype=np.int64),
        prices=(nothing, nothing.copy()),
        yielded=yielded_floors(context.measures, choice),
        least_cap_watts=nothing.copy(),
        least_common_factor=math.nan,
        row_prices=np.zeros(0),
    )


def _least_caps(context: Context, yielded: tuple[YieldedFloor, ...]) -> tuple[FloatArray, float]:
    try:
        return least_caps(context, yielded), least_common_factor(context, yielded)
    except SolverError as error:
        _LOGGER.warning("least caps are not known: %s", error)
        return np.full(context.measures.problem.cap_watts.shape, np.nan), math.nan


def _status(context: Context, outcome: Outcome) -> PlanStatus:
    if context.measures.is_impossible:
        return PlanStatus.CAP_INFEASIBLE
    gap = context.settings.relative_gap
    results = [stage.result for stage in outcome.stages]
    # A give-back held at the plan in force states by how much it stays below the best.
    is_proven = all(
        result.stopped_by is StoppedBy.PROOF
        and (result.gap <= 1.01 * max(gap, 1e-9) or result.name in ("least_change", "give_back"))
        for result in results
    )
    return PlanStatus.OPTIMAL if is_proven else PlanStatus.FEASIBLE


def _assemble(
    context: Context,
    *,
    choice: IntArray,
    status: PlanStatus,
    rung: str,
    stages: tuple[StageResult, ...],
    stage_choice: IntArray,
    prices: tuple[FloatArray, FloatArray],
    yielded: tuple[YieldedFloor, ...],
    least_cap_watts: FloatArray,
    least_common_factor: float,
    row_prices: FloatArray,
) -> Plan:
    measures = context.measures
    problem = measures.problem
    drawn = _drawn(measures, choice)
    above_base = problem.base_watts + problem.unmanaged_watts + problem.fixed_watts
    return Plan(
        status=status,
        rung=rung,
        objective=context.settings.objective.value,
        choice=choice.reshape(measures.shape),
        stages=stages,
        upper_watts=drawn + above_base,
        headroom_watts=problem.available_watts - drawn,
        shadow_price_low=prices[0],
        shadow_price_high=prices[1],
        yielded_floors=yielded,
        least_cap_watts=least_cap_watts,
        least_common_factor=least_common_factor,
        stage_choice=stage_choice.reshape((len(stages), *measures.shape)),
        binding=_binding(measures, choice, row_prices),
        row_prices=row_prices,
        kappa=np.zeros((0, 0)) if problem.expected is None else measures.kappa,
    )


def _drawn(measures: Measures, choice: IntArray) -> FloatArray:
    """float64[domain, period]: watts above base that are charged."""
    shape = measures.problem.cap_watts.shape
    drawn = np.zeros(shape)
    for row in measures.rows[: drawn.size]:
        drawn[row.place] = row.used(choice)
    return drawn


def _binding(
    measures: Measures, choice: IntArray, row_prices: FloatArray
) -> tuple[BindingRow, ...]:
    """Rows with a price, and rows that leave less than the next larger option of anyone needs."""
    problem = measures.problem
    pools = () if problem.pools is None else problem.pools.names
    names = {"pool": pools, "budget": BUDGETS}
    found = []
    for index, row in enumerate(measures.rows):
        price = float(row_prices[index]) if index < len(row_prices) else 0.0
        used = row.used(choice)
        if not (
            price > 0
            or _leaves_too_little(
                measures, row.groups, row.coefficient, choice, row.limit + row.slack - used
            )
        ):
            continue
        found.append(
            BindingRow(
                kind=row.kind,
                name=names.get(row.kind, problem.domains)[row.place[0]],
                period=row.place[1],
                used=used,
                limit=row.limit,
                price=price,
            )
        )
    return tuple(found)


def _leaves_too_little(
    measures: Measures,
    groups: IntArray,
    coefficient: FloatArray,
    choice: IntArray,
    left: float,
) -> bool:
    now = coefficient[np.arange(len(groups)), choice[groups]]
    more = np.where(measures.allowed[groups], coefficient - now[:, None], 0.0)
    larger = more > 0
    return bool(larger.any()) and float(more[larger].min()) > left
