"""Rates to the next caps, and one more replica, against enumeration and against solving again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_solver.errors import ProblemError
from powercap_solver.ladder import solve
from powercap_solver.marginal import CapRates, cap_rates
from powercap_solver.one_more import one_more_replica
from powercap_solver.parts import Dynamics, Pools
from powercap_solver.plan import Plan, PlanStatus
from powercap_solver.problem import PlanningProblem
from powercap_solver.settings import Method, SolveSettings

_ROOMS = (0.2, 0.45, 0.6, 0.8, 1.1)
"""Of what all largest options draw beyond the smallest."""
_SEEDS = st.integers(0, 2**32 - 1)


def _random(
    seed: int,
    *,
    periods: int = 1,
    domains: int = 2,
    has_floors: bool = True,
    has_pool: bool = False,
    links: str = "",
) -> PlanningProblem:
    """A problem small enough to enumerate; ``links``: ``ramps`` or ``losses``."""
    generator = np.random.default_rng(seed)
    deployments, options = 3, 4
    shape = (deployments, periods, options)
    count = generator.integers(2, options + 1, deployments)
    real = (np.arange(options) < count[:, None])[:, None, :]
    replicas = np.cumsum(generator.integers(1, 3, (deployments, options)), axis=1) - 1
    served = np.cumsum(generator.integers(0, 30, shape) * 2.5, axis=2)
    is_there = generator.random((domains, deployments)) < 0.8
    draw_domain, draw_deployment = np.nonzero(is_there)
    upper = np.cumsum(generator.integers(1, 40, (len(draw_domain), periods, options)) * 5.0, axis=2)
    upper = np.where(real[draw_deployment], upper, 0.0)
    base: Any = generator.integers(0, 3, (domains, periods)) * 50.0
    overhead = generator.choice([1.0, 1.25, 1.5], domains)
    least, most = np.zeros((domains, periods)), np.zeros((domains, periods))
    np.add.at(least, draw_domain, upper[:, :, 0])
    np.add.at(most, draw_domain, upper.max(axis=2))
    room = least + (most - least) * generator.choice(_ROOMS, (domains, periods))
    gpus = np.where(real[:, 0], replicas, 0)[None]
    pools = Pools(
        names=("h100",),
        gpu_count=np.full((1, periods), gpus.min(axis=2).sum() + int(generator.integers(3, 12))),
        gpus=gpus,
    )
    some = np.full(deployments, -1)
    dynamics = Dynamics(
        max_raise=generator.integers(1, 4, deployments),
        max_lower=generator.integers(1, 4, deployments),
        switching_cost=generator.choice([0.0, 500.0], deployments) * (links == "losses"),
        starts_late=(generator.random(deployments) < 0.5) & (links == "losses"),
        initial_replicas=np.where(generator.random(deployments) < 0.5, replicas[:, 1], some),
        present_upper_watts=np.zeros((len(draw_domain), periods)),
        max_rise_watts=np.full(domains, math.inf),
        max_fall_watts=np.full(domains, math.inf),
        initial_upper_watts=np.full(domains, math.nan),
    )
    return PlanningProblem(
        deployments=("test/a", "test/b", "test/c"),
        domains=("row", "rack", "feed")[:domains],
        zones=("zone",),
        period_seconds=generator.choice([60.0, 300.0], periods),
        option_count=count,
        replicas=np.where(real[:, 0], replicas, 0),
        served_tps=np.where(real, served, 0.0),
        power_watts=np.where(real, served * 0.7, 0.0),
        draw_domain=draw_domain,
        draw_deployment=draw_deployment,
        upper_watts=upper,
        load_tps=served[:, :, -1],
        weight=generator.choice([0.5, 1.0, 3.0], deployments),
        priority=generator.integers(0, 2, deployments),
        min_replicas=generator.choice([0, 0, 0, 1, 3], deployments) * has_floors,
        min_served_fraction=generator.choice([0.0, 0.0, 0.0, 0.3], deployments) * has_floors,
        served_share=np.full((deployments, periods), 0.95),
        is_ceiling=np.ones(deployments, dtype=bool),
        replicas_in_force=np.full(deployments, -1),
        zone_index=np.zeros(deployments, dtype=np.int64),
        energy_weight=np.ones((1, periods)),
        zone_base_watts=np.full((1, periods), 100.0),
        cap_watts=(room + base + 20.0) * overhead[:, None] + 30.0,
        overhead_factor=overhead,
        fixed_overhead_watts=np.full(domains, 30.0),
        base_watts=base,
        unmanaged_watts=np.full((domains, periods), 20.0),
        fixed_watts=np.zeros((domains, periods)),
        pools=pools if has_pool else None,
        dynamics=dynamics if links else None,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Every:
    """Every choice that keeps ramps and pools, with what it uses, misses and is worth."""

    choice: Any
    """int64[choice, deployment, period]."""
    used: Any
    """float64[choice, domain, period], watts above base."""
    worth: Any
    """float64[choice]."""
    missed: Any
    """float64[choice, class], highest priority first, rounded."""

    def kept(self, problem: PlanningProblem) -> Any:
        """bool[choice]: floors are missed no more than the best under the caps misses them."""
        fits = _fit(problem, self.used)
        if not fits.any():
            return fits
        least = min(tuple(row) for row in self.missed[fits].tolist())
        return (self.missed <= np.array(least) + 1e-9).all(axis=1)


def _fit(problem: PlanningProblem, used: Any, *, apart: tuple[int, int] | None = None) -> Any:
    over = used > problem.available_watts + 1e-9 * problem.cap_watts
    if apart is not None:
        over[:, apart[0], apart[1]] = False
    return ~over.any(axis=(1, 2))


def _every(problem: PlanningProblem) -> _Every:
    periods = len(problem.period_seconds)
    counts = np.repeat(problem.option_count, periods)
    grid = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1)
    choice = grid.reshape(-1, len(problem.deployments), periods)
    d, t = np.indices(choice.shape[1:])
    replicas = problem.replicas[d, choice]
    used = np.zeros((len(choice), *problem.cap_watts.shape))
    for draw, (domain, deployment) in enumerate(
        zip(problem.draw_domain, problem.draw_deployment, strict=True)
    ):
        used[:, domain] += problem.upper_watts[draw][t[0], choice[:, deployment]]
    factor = problem.weight[:, None] * problem.period_seconds
    worth = (factor * problem.served_tps[d, t, choice]).sum(axis=(1, 2))
    keeps = np.ones(len(choice), dtype=bool)
    if problem.pools is not None:
        keeps &= (replicas.sum(axis=1) <= problem.pools.gpu_count[0]).all(axis=1)
    if problem.dynamics is not None:
        keeps &= _keeps_ramps(problem.dynamics, replicas)
        worth = worth - _lost(problem, problem.dynamics, choice, replicas)
    share = problem.period_seconds / problem.period_seconds.sum()
    wanted = problem.min_replicas[:, None]
    floor = problem.min_served_fraction[:, None] * problem.load_tps
    missing = np.maximum(0, wanted - replicas) / np.maximum(wanted, 1)
    short = floor - problem.served_tps[d, t, choice]
    missing = missing + np.where(short > 1e-9 * floor, short / np.maximum(floor, 1e-9), 0.0)
    classes = sorted(set(problem.priority.tolist()), reverse=True)
    missed = [(missing * share)[:, problem.priority == each].sum(axis=(1, 2)) for each in classes]
    return _Every(
        choice=choice[keeps],
        used=used[keeps],
        worth=worth[keeps],
        missed=np.round(np.stack(missed, axis=1), 9)[keeps],
    )


def _keeps_ramps(dynamics: Dynamics, replicas: Any) -> Any:
    initial = np.where(dynamics.initial_replicas < 0, np.nan, dynamics.initial_replicas)
    before = np.broadcast_to(initial[:, None], replicas[:, :, :1].shape)
    step = np.diff(np.concatenate([before, replicas], axis=2), axis=2)
    with np.errstate(invalid="ignore"):
        broken = (step > dynamics.max_raise[:, None]) | (-step > dynamics.max_lower[:, None])
    return ~broken.any(axis=(1, 2))


def _lost(problem: PlanningProblem, dynamics: Dynamics, choice: Any, replicas: Any) -> Any:
    initial = np.where(dynamics.initial_replicas < 0, np.nan, dynamics.initial_replicas)
    before = np.broadcast_to(initial[:, None], replicas[:, :, :1].shape)
    step = np.abs(np.diff(np.concatenate([before, replicas], axis=2), axis=2))
    lost = (dynamics.switching_cost[:, None] * np.nan_to_num(step)).sum(axis=(1, 2))
    for deployment in np.flatnonzero(dynamics.starts_late):
        served = problem.served_tps[deployment]
        for period in range(choice.shape[2]):
            now = served[period, choice[:, deployment, period]]
            if period:
                then = served[period, choice[:, deployment, period - 1]]
            elif dynamics.initial_replicas[deployment] >= 0:
                smaller = problem.replicas[deployment] <= dynamics.initial_replicas[deployment]
                real = problem.is_option[deployment]
                then = served[0, np.flatnonzero(smaller & real)[-1]]
            else:
                continue
            factor = problem.weight[deployment] * problem.period_seconds[period]
            lost = lost + factor * np.maximum(0.0, now - then)
    return lost


def _check_rates(problem: PlanningProblem, every: _Every, rates: CapRates, domain: int) -> None:
    """Compare ``rates`` with what every choice says."""
    period = rates.period
    seconds = problem.period_seconds[period]
    candidate = every.kept(problem) & _fit(problem, every.used, apart=(domain, period))
    used, worth = every.used[candidate, domain, period], every.worth[candidate]
    available = problem.available_watts[domain, period]
    here = used <= available + 1e-6
    best = worth[here].max()
    assert rates.value_per_second * seconds == pytest.approx(best, rel=1e-9)
    cap = problem.cap_watts[domain, period]
    overhead = problem.overhead_factor[domain]
    is_more = worth > best + 1e-6
    if is_more.any():
        first = used[is_more].min()
        value = worth[used <= first + 1e-6].max()
        larger = cap + (first - available) * overhead
        assert rates.larger_cap_watts == pytest.approx(larger, rel=1e-9)
        assert rates.larger_value_per_second * seconds == pytest.approx(value, rel=1e-9)
        assert rates.rate_up == pytest.approx((value - best) / seconds / (larger - cap), rel=1e-6)
        assert rates.up_reason == ""
        assert rates.is_up_proven
    else:
        assert math.isnan(rates.larger_cap_watts)
        assert math.isnan(rates.rate_up)
        assert "no larger cap" in rates.up_reason
        assert rates.is_up_proven
    kept = used[worth >= best - 1e-6].min()
    assert rates.kept_cap_watts == pytest.approx(cap + (kept - available) * overhead, rel=1e-9)
    is_less = used < kept - 1e-6
    if is_less.any():
        value = worth[is_less].max()
        smaller = cap + (used[worth >= value - 1e-6].min() - available) * overhead
        assert rates.smaller_cap_watts == pytest.approx(smaller, rel=1e-9)
        assert rates.smaller_value_per_second * seconds == pytest.approx(value, rel=1e-9)
        rate = (best - value) / seconds / (cap - smaller)
        assert rates.rate_down == pytest.approx(rate, rel=1e-6)
        assert rates.down_reason == ""
        assert rates.is_down_proven
    else:
        assert math.isnan(rates.rate_down)
        assert "no plan with less" in rates.down_reason
        assert rates.is_down_proven


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({"domains": 1}, id="one-cap"),
        pytest.param({"domains": 3}, id="three-caps"),
        pytest.param({"domains": 2, "has_pool": True}, id="pool"),
        pytest.param({"domains": 1, "periods": 2}, id="two-periods"),
        pytest.param({"domains": 2, "periods": 2, "links": "ramps"}, id="ramps"),
        pytest.param({"domains": 1, "periods": 2, "links": "losses"}, id="switching-and-late"),
    ],
)
@given(seed=_SEEDS)
def test_cap_rates_are_those_of_every_choice(shape: dict[str, Any], seed: int) -> None:
    problem = _random(seed, **shape)
    every = _every(problem)
    plan = solve(problem)
    if plan.status is PlanStatus.CAP_INFEASIBLE:
        return

    for domain, name in enumerate(problem.domains):
        period = seed % len(problem.period_seconds)
        rates = cap_rates(problem, plan, domain=name, period=period)

        _check_rates(problem, every, rates, domain)


def _with_cap(problem: PlanningProblem, domain: int, period: int, cap: float) -> PlanningProblem:
    caps = np.array(problem.cap_watts)
    caps[domain, period] = cap
    return replace(problem, cap_watts=caps)


def _served(plan: Plan) -> float:
    return next(stage.objective for stage in plan.stages if stage.name == "served")


@given(_SEEDS)
def test_solving_at_the_stated_caps_gives_the_stated_values(seed: int) -> None:
    problem = _random(seed, domains=2, has_floors=False)
    plan = solve(problem)
    if plan.status is PlanStatus.CAP_INFEASIBLE:
        return

    rates = cap_rates(problem, plan, domain="rack")

    def at(cap: float) -> float:
        exact = SolveSettings(relative_gap=0.0)
        return _served(solve(_with_cap(problem, 1, 0, cap), settings=exact))

    seconds, now = problem.period_seconds[0], rates.value_per_second
    if not rates.up_reason:
        larger = rates.larger_cap_watts
        assert at(larger) / seconds == pytest.approx(rates.larger_value_per_second, rel=1e-9)
        assert at(larger - 0.01) / seconds == pytest.approx(now, rel=1e-9)
    kept = rates.kept_cap_watts
    assert at(kept) / seconds == pytest.approx(now, rel=1e-9)
    if not rates.down_reason:
        smaller, value = rates.smaller_cap_watts, rates.smaller_value_per_second
        assert at(kept - 0.01) / seconds == pytest.approx(value, rel=1e-9)
        assert at(smaller) / seconds == pytest.approx(value, rel=1e-9)
        below = solve(_with_cap(problem, 1, 0, smaller - 0.01))
        assert below.status is PlanStatus.CAP_INFEASIBLE or _served(below) < value * seconds


@pytest.mark.parametrize("method", [Method.HIGHS, Method.SCIP, Method.FAST])
@pytest.mark.parametrize("seed", range(5))
def test_methods_measure_the_same_rates(method: Method, seed: int) -> None:
    problem = _random(seed, domains=2)
    plan = solve(problem)

    rates = cap_rates(problem, plan, domain="row", settings=SolveSettings(method=method))

    _check_rates(problem, _every(problem), rates, 0)


def test_the_rates_of_a_staircase_read_as_stated(one_cap: Any) -> None:
    problem = one_cap(
        served=[[0, 10, 18, 24]],
        watts_per_replica=[100],
        cap=250 * 1.5 + 40,
        overhead_factor=[1.5],
        fixed_overhead_watts=[40],
    )

    rates = cap_rates(problem, solve(problem), domain="cluster")

    assert rates.value_per_second == pytest.approx(18)
    assert rates.larger_cap_watts == pytest.approx(490)
    assert rates.rate_up == pytest.approx(6 / 75)
    assert rates.kept_cap_watts == pytest.approx(340)
    assert rates.smaller_cap_watts == pytest.approx(190)
    assert rates.rate_down == pytest.approx(8 / (415 - 190))


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({"domains": 1}, id="one-cap"),
        pytest.param({"domains": 3, "has_pool": True}, id="three-caps-and-pool"),
        pytest.param({"domains": 1, "periods": 2, "links": "ramps"}, id="ramps"),
        pytest.param({"domains": 1, "periods": 2, "links": "losses"}, id="switching-and-late"),
    ],
)
@given(seed=_SEEDS)
def test_one_more_replica_costs_what_every_choice_says(shape: dict[str, Any], seed: int) -> None:
    problem = _random(seed, **shape)
    every = _every(problem)
    plan = solve(problem)
    if plan.status is PlanStatus.CAP_INFEASIBLE:
        return
    place, period = seed % 3, seed % len(problem.period_seconds)

    answer = one_more_replica(problem, plan, deployment=problem.deployments[place], period=period)

    seconds = problem.period_seconds[period]
    candidate = every.kept(problem) & _fit(problem, every.used)
    best = every.worth[candidate].max()
    replicas = problem.replicas[np.arange(3)[:, None], every.choice]
    planned = problem.replicas[np.arange(3)[:, None], plan.choice]
    forced = candidate & (replicas[:, place, period] > planned[place, period])
    assert answer.replicas == planned[place, period]
    if not forced.any():
        assert math.isnan(answer.lost_per_second)
        assert answer.reason
        return
    assert answer.reason == ""
    lost = best - every.worth[forced].max()
    assert answer.lost_per_second == pytest.approx(lost / seconds, rel=1e-7, abs=1e-7)
    assert answer.lost_error_per_second <= 1e-6 * best / seconds + 1e-9
    as_good = forced & (every.worth >= every.worth[forced].max() - 1e-6)
    fewest = np.maximum(0, planned - replicas[as_good]).sum(axis=(1, 2)).min()
    if shape.get("links") != "losses":
        assert sum(fall.replicas for fall in answer.falls) == fewest
    assert all(fall.deployment != answer.deployment or fall.period != period
               for fall in answer.falls)  # fmt: skip


@given(seed=_SEEDS)
def test_what_one_more_needs_is_the_difference_of_the_options(seed: int) -> None:
    problem = _random(seed, domains=2, has_pool=True)
    plan = solve(problem)
    if plan.status is PlanStatus.CAP_INFEASIBLE:
        return

    answer = one_more_replica(problem, plan, deployment="test/a")

    now = int(plan.choice[0, 0])
    if now + 1 == problem.option_count[0]:
        assert "no option with more" in answer.reason
        return
    assert answer.larger == problem.replicas[0, now + 1]
    for need in answer.needs:
        if need.kind == "pool":
            assert need.needed == answer.larger - answer.replicas
            continue
        domain = problem.domains.index(need.name)
        draw = np.flatnonzero((problem.draw_domain == domain) & (problem.draw_deployment == 0))[0]
        upper = problem.upper_watts[draw, 0]
        assert need.needed == upper[now + 1] - upper[now]
        assert need.left == pytest.approx(plan.headroom_watts[domain, 0], abs=1e-5)
    if answer.binding is None:
        assert all(need.needed <= need.left for need in answer.needs)
        assert answer.falls == ()
    else:
        assert answer.binding.short > 0


def test_one_more_says_who_pays(one_cap: Any) -> None:
    problem = one_cap(
        served=[[0, 10, 18], [0, 9, 12]],
        watts_per_replica=[100, 60],
        cap=230,
        weight=[1.0, 1.0],
    )
    plan = solve(problem)
    assert problem.replicas[[0, 1], plan.choice[:, 0]].tolist() == [1, 2]

    answer = one_more_replica(problem, plan, deployment="test/a")

    assert answer.binding is not None
    assert (answer.binding.name, answer.binding.needed) == ("cluster", 100)
    assert answer.binding.left == pytest.approx(10)
    assert answer.lost_per_second == pytest.approx(22 - 18)
    assert answer.lost_tps == pytest.approx(4)
    assert [(fall.deployment, fall.replicas) for fall in answer.falls] == [("test/b", 2)]


def test_one_more_that_fits_costs_nothing(one_cap: Any) -> None:
    problem = one_cap(
        served=[[0, 10, 10]],
        watts_per_replica=[100],
        cap=250,
        is_ceiling=[False],
        served_share=[[1.0]],
    )

    answer = one_more_replica(problem, solve(problem), deployment="test/a")

    assert (answer.replicas, answer.larger) == (1, 2)
    assert answer.binding is None
    assert answer.lost_per_second == 0
    assert answer.falls == ()


def test_what_stands_against_one_more_is_named(one_cap: Any) -> None:
    tables: dict[str, Any] = {"served": [[0, 10, 18], [0, 9, 12]], "watts_per_replica": [100, 100]}
    floors = one_cap(**tables, cap=200, min_replicas=[1, 1])
    alone = one_cap(**tables, cap=150)
    plan_of_floors, plan_alone = solve(floors), solve(alone)

    floor = one_more_replica(floors, plan_of_floors, deployment="test/a")
    cap = one_more_replica(alone, plan_alone, deployment="test/a")

    assert floor.reason == "a floor would yield that holds now, or yield further"
    assert cap.reason == "the cap of cluster does not allow it, even with the least of all others"
    assert math.isnan(floor.lost_per_second)
    assert math.isnan(cap.lost_per_second)
    assert cap.binding is not None


def test_a_floor_that_holds_is_no_price_for_a_smaller_cap(one_cap: Any) -> None:
    problem = one_cap(served=[[0, 10, 18]], watts_per_replica=[100], cap=150, min_replicas=[1])

    rates = cap_rates(problem, solve(problem), domain="cluster")

    assert rates.kept_cap_watts == pytest.approx(100)
    assert math.isnan(rates.rate_down)
    assert "floors that hold" in rates.down_reason


def test_without_time_nothing_is_claimed(one_cap: Any) -> None:
    problem = one_cap(served=[[0, 10, 18], [0, 9, 12]], watts_per_replica=[100, 60], cap=230)
    plan = solve(problem)
    ticks = iter(range(10_000))

    rates = cap_rates(
        problem,
        plan,
        domain="cluster",
        settings=SolveSettings(deadline_seconds=0.5),
        clock=lambda: float(next(ticks)),
    )

    assert math.isnan(rates.rate_up)
    assert "nothing was found" in rates.up_reason
    assert "nothing was found" in rates.down_reason


def test_unknown_names_are_refused(one_cap: Any) -> None:
    problem = one_cap(served=[[0, 10]], watts_per_replica=[100], cap=150)
    plan = solve(problem)

    with pytest.raises(ProblemError, match="domain 'row' is not in the problem; it has cluster"):
        cap_rates(problem, plan, domain="row")
    with pytest.raises(ProblemError, match="period is 1; accepted: 0 to 0"):
        cap_rates(problem, plan, domain="cluster", period=1)
    with pytest.raises(ProblemError, match="deployment 'x' is not in the problem"):
        one_more_replica(problem, plan, deployment="x")
