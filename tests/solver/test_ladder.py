"""What a plan does, case by case: caps, floors, shares, changes, giving back, failing back ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from powercap_solver.certificate import verify
from powercap_solver.compact.model import ChoiceAnswer, ChoiceModel, ChoiceSolver, SolveLimits
from powercap_solver.errors import ProblemError, SolverError
from powercap_solver.instances import FAMILIES
from powercap_solver.ladder import solve
from powercap_solver.methods import method_solver
from powercap_solver.parts import Grid
from powercap_solver.plan import Plan, PlanStatus, StoppedBy
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import Method, Objective, SolveSettings
from powercap_solver.testing import random_problem

OneCap = Callable[..., PlanningProblem]


def _replicas(problem: PlanningProblem, plan: Plan) -> list[int]:
    rows = np.arange(len(problem.deployments))
    return [int(count) for count in problem.replicas[rows, plan.choice[:, 0]]]


def _failing(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
    raise SolverError("the back end is gone")


def test_a_cap_that_does_not_bind_gives_every_ceiling_its_largest_option(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 10, 10, 10], [0, 5, 6, 6]],
        watts_per_replica=[100, 100],
        cap=1e6,
        replicas_in_force=[1, 1],
    )

    plan = solve(problem)

    assert _replicas(problem, plan) == [3, 3]
    assert (plan.shadow_price_low == 0).all()
    assert (plan.shadow_price_high == 0).all()


def test_fixed_deployments_are_not_raised_to_spend_headroom(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 10, 10, 10], [0, 5, 5, 5]],
        watts_per_replica=[100, 100],
        cap=1e6,
        is_ceiling=[False, True],
    )

    assert _replicas(problem, solve(problem)) == [1, 3]


def test_load_shed_under_stress_is_not_given_back(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 98, 100], [0, 98, 100]],
        watts_per_replica=[100, 100],
        cap=1e6,
        served_share=[0.95, 0.998],
    )

    assert _replicas(problem, solve(problem)) == [1, 2]
    throughput = SolveSettings(objective=Objective.THROUGHPUT)
    assert _replicas(problem, solve(problem, settings=throughput)) == [2, 2]


def test_floors_yield_by_priority_and_the_least_cap_keeps_them(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 10, 20], [0, 50, 100]],
        watts_per_replica=[100, 100],
        cap=250,
        priority=[5, 1],
        min_replicas=[2, 1],
        overhead_factor=[1.0],
    )

    plan = solve(problem)

    assert _replicas(problem, plan) == [2, 0]
    assert [(floor.deployment, floor.planned) for floor in plan.yielded_floors] == [("test/b", 0.0)]
    assert plan.least_cap_watts[0, 0] == pytest.approx(300, rel=1e-9)
    kept = one_cap(
        served=[[0, 10, 20], [0, 50, 100]],
        watts_per_replica=[100, 100],
        cap=float(plan.least_cap_watts[0, 0]),
        priority=[5, 1],
        min_replicas=[2, 1],
    )
    assert solve(kept).yielded_floors == ()


def test_the_least_cap_is_at_the_meter(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 10, 20]],
        watts_per_replica=[100],
        cap=300,
        min_replicas=[2],
        overhead_factor=[1.5],
        fixed_overhead_watts=[40],
        base_watts=[60],
        unmanaged_watts=[10],
    )

    plan = solve(problem)

    assert plan.least_cap_watts[0, 0] == pytest.approx((200 + 70) * 1.5 + 40, rel=1e-9)


def test_a_floor_that_no_option_reaches_has_no_least_cap(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 10, 20]], watts_per_replica=[100], cap=1e6, min_served_fraction=[1.0],
        load_tps=[80],
    )  # fmt: skip

    plan = solve(problem)

    assert _replicas(problem, plan) == [2]
    assert plan.yielded_floors[0].planned == pytest.approx(0.25)
    assert np.isnan(plan.least_cap_watts).all()


def test_caps_below_the_lowest_draw_give_the_lowest_draw_loudly(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 10, 20], [0, 10, 20]],
        watts_per_replica=[100, 100],
        cap=10,
        base_watts=[50],
        min_replicas=[1, 1],
        replicas_in_force=[2, 2],
    )

    plan = solve(problem)

    assert (plan.status, plan.rung) == (PlanStatus.CAP_INFEASIBLE, "lowest")
    assert _replicas(problem, plan) == [0, 0]
    assert plan.headroom_watts[0, 0] == pytest.approx(-40)
    assert verify(problem, plan) == ()


def test_caps_that_cannot_hold_together_give_the_lowest_sum() -> None:
    # Each option suits one domain and breaks the other.
    base = random_problem(np.random.default_rng(0), deployments=1, options=2, domains=2)
    upper = np.array([[[0.0, 100.0]], [[100.0, 0.0]]])
    values: dict[str, Any] = {
        "option_count": np.array([2]),
        "replicas": np.array([[1, 2]]),
        "served_tps": np.array([[[1.0, 2.0]]]),
        "power_watts": np.array([[[1.0, 2.0]]]),
        "draw_domain": np.array([0, 1]),
        "draw_deployment": np.array([0, 0]),
        "upper_watts": upper,
        "overhead_factor": np.ones(2),
        "base_watts": np.zeros((2, 1)),
        "cap_watts": np.full((2, 1), 50.0),
        "fixed_overhead_watts": np.zeros(2),
    }
    problem = replace(base, **values)

    plan = solve(problem)

    assert (plan.status, plan.rung) == (PlanStatus.CAP_INFEASIBLE, "lowest")
    assert verify(problem, plan) == ()


def test_a_raise_worth_less_than_the_tolerance_waits(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 500, 999, 1000]],
        watts_per_replica=[100],
        cap=1000,
        replicas_in_force=[2],
        is_ceiling=[False],
        served_share=[1.0],
    )

    assert _replicas(problem, solve(problem)) == [2]


def test_a_raise_worth_more_does_not_wait(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 500, 900, 1000]],
        watts_per_replica=[100],
        cap=1000,
        replicas_in_force=[2],
        is_ceiling=[False],
        served_share=[1.0],
    )

    assert _replicas(problem, solve(problem)) == [3]


def test_a_lowering_for_a_cap_never_waits(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 500, 999, 1000]], watts_per_replica=[100], cap=210, replicas_in_force=[3]
    )

    assert _replicas(problem, solve(problem)) == [2]


def test_a_small_deployment_is_not_starved_to_avoid_a_change(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 100_000], [0, 100]],
        watts_per_replica=[100, 100],
        cap=200,
        replicas_in_force=[1, 0],
        is_ceiling=[False, False],
    )

    assert _replicas(problem, solve(problem)) == [1, 1]


def test_equal_deployments_do_not_swap_their_replicas(one_cap: OneCap) -> None:
    served = [[0, 100, 200, 300], [0, 100.1, 200.2, 300.3]]
    problem = one_cap(
        served=served, watts_per_replica=[100, 100], cap=500, replicas_in_force=[3, 2]
    )

    assert _replicas(problem, solve(problem)) == [3, 2]


def test_ceilings_flat_above_the_need_take_no_watts_from_others(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 10, 10, 10], [0, 10, 20, 30]], watts_per_replica=[100, 100], cap=400
    )

    assert _replicas(problem, solve(problem)) == [1, 3]


def test_spare_ceilings_stay_where_they_are_when_little_would_be_gained(one_cap: OneCap) -> None:
    fields = {
        "served": [[0, 10, 10, 10], [0, 10, 10, 10]],
        "watts_per_replica": [100, 100],
        "cap": 400,
        "weight": [1.0, 1.001],
    }

    fresh = solve(one_cap(**fields))
    held = solve(one_cap(**fields, replicas_in_force=[3, 1]))

    assert fresh.choice.ravel().tolist() == [1, 3]
    assert held.choice.ravel().tolist() == [3, 1]
    assert held.status is PlanStatus.OPTIMAL


def test_the_shadow_price_is_an_interval_at_a_corner_and_at_the_meter(one_cap: OneCap) -> None:
    problem = one_cap(
        served=[[0, 100, 150]], watts_per_replica=[100], cap=200, overhead_factor=[2.0]
    )

    plan = solve(problem)

    assert plan.shadow_price_low[0, 0] == pytest.approx(0.5 / 2)
    assert plan.shadow_price_high[0, 0] == pytest.approx(1.0 / 2)


def test_shadow_prices_of_several_caps_match_the_one_that_binds() -> None:
    problem = FAMILIES["scarce_one_cap"].make(size=10, seed=0)
    loose = replace(
        problem,
        domains=("feed", "spare"),
        draw_domain=np.repeat([0, 1], 10),
        draw_deployment=np.tile(np.arange(10), 2),
        upper_watts=np.concatenate([problem.upper_watts, problem.upper_watts]),
        cap_watts=np.array([[problem.cap_watts[0, 0]], [1e9]]),
        overhead_factor=np.repeat(problem.overhead_factor, 2),
        fixed_overhead_watts=np.zeros(2),
        base_watts=np.repeat(problem.base_watts, 2, axis=0),
        unmanaged_watts=np.zeros((2, 1)),
        fixed_watts=np.zeros((2, 1)),
    )

    one, two = solve(problem), solve(loose)

    assert two.shadow_price_low[0, 0] == pytest.approx(one.shadow_price_low[0, 0], rel=1e-6)
    assert two.shadow_price_low[1, 0] == 0


def _without(*failing: Method) -> Callable[[Method], ChoiceSolver]:
    return lambda method: _failing if method in failing else method_solver(method)


@pytest.mark.parametrize("name", ["scarce_one_cap", "tight_floors", "racks_and_periods"])
@pytest.mark.parametrize(
    ("failing", "rung", "status"),
    [
        pytest.param([Method.FAST], "compact", PlanStatus.OPTIMAL, id="fast"),
        pytest.param([Method.FAST, Method.HIGHS], "greedy", PlanStatus.FEASIBLE, id="both"),
        pytest.param(list(Method), "lowest", None, id="all"),
    ],
)
def test_a_method_that_fails_gives_way_to_the_next_rung(
    name: str,
    failing: list[Method],
    rung: str,
    status: PlanStatus | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    problem = FAMILIES[name].make(size=12, seed=0)

    plan = solve(problem, method_of=_without(*failing))

    assert plan.rung == rung
    assert status in (None, plan.status)
    assert "the back end is gone" in caplog.text
    assert verify(problem, plan) == ()


def test_without_any_method_the_plan_in_force_stands_where_it_keeps_the_caps(
    one_cap: OneCap,
) -> None:
    fields = {"served": [[0, 10, 20]] * 2, "watts_per_replica": [100, 90], "cap": 250}

    kept = solve(one_cap(**fields, replicas_in_force=[1, 0]), method_of=_without(*Method))
    broken = solve(one_cap(**fields, replicas_in_force=[2, 1]), method_of=_without(*Method))

    assert (kept.rung, kept.choice.ravel().tolist()) == ("in_force", [1, 0])
    assert (broken.rung, broken.choice.ravel().tolist()) == ("lowest", [0, 0])


def test_a_method_that_answers_wrongly_gives_way_to_the_next_rung(
    caplog: pytest.LogCaptureFixture,
) -> None:
    problem = FAMILIES["scarce_one_cap"].make(size=12, seed=0)

    def forging(model: ChoiceModel, limits: SolveLimits) -> ChoiceAnswer:
        heaviest = model.allowed.shape[1] - 1 - np.argmax(model.allowed[:, ::-1], axis=1)
        return ChoiceAnswer(
            choice=heaviest,
            bound=model.worth(heaviest),
            method="forged",
            stopped_by=StoppedBy.PROOF,
        )

    plan = solve(
        problem,
        method_of=lambda method: forging if method is Method.FAST else method_solver(method),
    )

    assert plan.rung == "compact"
    assert "is wrong" in caplog.text
    assert verify(problem, plan) == ()


def test_a_deadline_gives_a_plan_that_says_so() -> None:
    ticks = iter(range(10_000))
    problem = FAMILIES["racks_and_periods"].make(size=10, seed=0)

    plan = solve(
        problem, settings=SolveSettings(deadline_seconds=3.0), clock=lambda: float(next(ticks))
    )

    assert verify(problem, plan) == ()
    assert plan.status is PlanStatus.FEASIBLE
    assert StoppedBy.DEADLINE in {stage.stopped_by for stage in plan.stages}


@pytest.mark.parametrize("method", list(Method))
def test_standard_output_stays_clean(method: Method, capfd: pytest.CaptureFixture[str]) -> None:
    problem = FAMILIES["racks_and_periods"].make(size=6, seed=0)

    solve(problem, settings=SolveSettings(method=method))

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [("relative_gap", -1.0), ("stability_tolerance", 1.0), ("deadline_seconds", 0.0)],
)
def test_settings_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ProblemError, match=field):
        SolveSettings(**{field: value})


def test_a_problem_without_deployments_or_caps_is_planned(one_cap: OneCap) -> None:
    problem = random_problem(np.random.default_rng(1), deployments=3, domains=0)

    plan = solve(problem)

    assert verify(problem, plan) == ()
    assert plan.upper_watts.shape == (0, 1)


def test_net_value_gives_no_ceiling_back_that_loses_money(one_cap: OneCap) -> None:
    grid = Grid(
        price_per_mwh=np.array([[1000.0]]),
        carbon_g_per_kwh=np.zeros((1, 1)),
        overhead_factor=np.ones(1),
        token_price_per_million=np.array([0.001, 1000.0]),
    )
    problem = one_cap(
        served=[[0, 10, 20], [0, 10, 20]], watts_per_replica=[100, 100], cap=1000, grid=grid
    )

    plan = solve(problem, settings=SolveSettings(objective=Objective.NET_VALUE))

    assert plan.choice.ravel().tolist() == [0, 2]
    assert verify(problem, plan) == ()
