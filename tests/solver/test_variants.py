"""Variant groups: what is dropped loses no optimum, load is split whole, limits are told."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_solver.errors import ProblemError
from powercap_solver.ladder import solve
from powercap_solver.pareto import first_matched
from powercap_solver.parts import Labels, Pools
from powercap_solver.problem import PlanningProblem
from powercap_solver.variant_options import GroupOptions, group_options, split_load
from powercap_solver.variants import Variant, VariantDraw, VariantGroup, curve_from_table

_POOLS = ("h100", "b200")


def _variant(generator: np.random.Generator, name: str) -> Variant:
    capacity = float(generator.choice([50.0, 100.0, 250.0]))
    idle = float(generator.integers(100, 400))
    rise = float(generator.integers(0, 500))
    domains = [name for name in ("row", "feed") if generator.random() < 0.8]
    return Variant(
        name=name,
        replica_counts=np.arange(int(generator.integers(0, 2)), int(generator.integers(2, 5))),
        capacity_tps=capacity,
        saturated_tps=1.2 * capacity,
        watts=curve_from_table(
            np.array([0.0, 0.3, 1.2]) * capacity, np.array([idle, idle + 0.8 * rise, idle + rise])
        ),
        parked_watts=70.0,
        peak_upper_watts=1.1 * (idle + rise),
        draws=tuple(
            VariantDraw(
                domain=domain,
                fraction=float(generator.choice([0.5, 1.0])),
                most_replicas=[None, 2][int(generator.integers(2))],
            )
            for domain in domains
        ),
        gpus=((str(generator.choice(_POOLS)), int(generator.integers(1, 9))),),
        min_running=int(generator.integers(0, 2)),
    )


def _group(seed: int, *, count: int = 3, **changes: Any) -> VariantGroup:
    generator = np.random.default_rng(seed)
    periods, scenarios = int(generator.integers(1, 3)), int(generator.integers(1, 4))
    share = generator.random((periods, scenarios)) + 0.1
    values: dict[str, Any] = {
        "name": "chat",
        "variants": tuple(_variant(generator, f"v{place}") for place in range(count)),
        "load_tps": generator.choice([0.0, 90.0, 300.0, 700.0], (periods, scenarios)),
        "share": share / share.sum(axis=1, keepdims=True),
        "is_ceiling": bool(generator.integers(2)),
    }
    return VariantGroup(**{**values, **changes})


def _every_vector(group: VariantGroup) -> GroupOptions:
    """The full product: every vector is named as one that stays."""
    counts = [one.replica_counts for one in group.variants]
    grid = np.stack(np.meshgrid(*counts, indexing="ij"), axis=-1).reshape(-1, len(counts))
    options = group_options(replace(group, kept=grid), most_options=10**9)
    assert len(options.replicas) == options.vectors == len(grid)
    return options


def _best(options: GroupOptions, caps: Any, gpus: Any, floor: int) -> tuple[float, ...] | None:
    """Floor, served, then served per watt over the options that keep all limits."""
    fits = (options.upper_watts <= caps[:, :, None]).all(axis=(0, 1))
    fits &= (options.gpus <= gpus[:, None]).all(axis=0)
    if not fits.any():
        return None
    missing = np.maximum(0, floor - options.replicas)
    fits &= missing == missing[fits].min()
    served, power = options.served_tps.sum(axis=0), options.power_watts.sum(axis=0)
    at_best = fits & (served >= served[fits].max() - 1e-9)
    return (
        float(missing[fits].min()),
        float(served[fits].max()),
        float(power[at_best].min()),
        float((served[fits] / (100.0 + power[fits])).max()),
        float((served[fits] - 0.4 * power[fits]).max()),
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 4))
def test_what_is_dropped_is_in_no_optimum(seed: int, count: int, floor: int) -> None:
    group = _group(seed, count=count, min_replicas=floor)
    every, kept = _every_vector(group), group_options(group)
    generator = np.random.default_rng(seed + 1)

    for _ in range(10):
        most = every.upper_watts.max(axis=2, initial=0.0)
        caps = most * generator.random(most.shape)
        gpus = every.gpus.max(axis=1, initial=0) * generator.random(len(every.pools))
        best, other = _best(every, caps, gpus, floor), _best(kept, caps, gpus, floor)

        assert (best is None) == (other is None)
        if best is not None and other is not None:
            assert other == pytest.approx(best, rel=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_a_plan_over_the_kept_options_is_worth_that_over_every_vector(seed: int) -> None:
    group = _group(seed, count=2)
    every, kept = _every_vector(group), group_options(group)
    generator = np.random.default_rng(seed + 1)
    share = generator.random(len(every.domains))
    gpu_count = generator.integers(every.gpus.min(axis=1), every.gpus.max(axis=1) + 1)

    plans = [solve(_problem(each, every, share, gpu_count)) for each in (every, kept)]

    assert plans[1].status is plans[0].status
    stages = [{stage.name: stage.objective for stage in plan.stages} for plan in plans]
    for name in ("floors", "served", "throughput_per_watt"):
        if name in stages[0]:
            assert stages[1][name] == pytest.approx(stages[0][name], rel=1e-5)


def _problem(
    options: GroupOptions, every: GroupOptions, share: Any, gpu_count: Any
) -> PlanningProblem:
    """The group as the only deployment, under caps that are shares of its most."""
    periods, width = options.served_tps.shape
    domains = len(options.domains)
    most = every.upper_watts.max(axis=2, initial=0.0)
    return PlanningProblem(
        deployments=("test/chat",),
        domains=options.domains,
        zones=("zone",),
        period_seconds=np.full(periods, 300.0),
        option_count=np.array([width]),
        replicas=options.replicas[None],
        served_tps=options.served_tps[None],
        power_watts=options.power_watts[None],
        draw_domain=np.arange(domains),
        draw_deployment=np.zeros(domains, dtype=np.int64),
        upper_watts=options.upper_watts,
        load_tps=options.served_tps.max(axis=1)[None],
        weight=np.ones(1),
        priority=np.zeros(1, dtype=np.int64),
        min_replicas=np.zeros(1, dtype=np.int64),
        min_served_fraction=np.zeros(1),
        served_share=np.full((1, periods), 0.9),
        is_ceiling=np.ones(1, dtype=bool),
        replicas_in_force=np.full(1, -1),
        zone_index=np.zeros(1, dtype=np.int64),
        energy_weight=np.ones((1, periods)),
        zone_base_watts=np.full((1, periods), 50.0),
        cap_watts=100.0 + most * share[:, None],
        overhead_factor=np.ones(domains),
        fixed_overhead_watts=np.full(domains, 100.0),
        base_watts=np.zeros((domains, periods)),
        unmanaged_watts=np.zeros((domains, periods)),
        fixed_watts=np.zeros((domains, periods)),
        pools=Pools(
            names=options.pools,
            gpu_count=np.repeat(gpu_count[:, None], periods, axis=1),
            gpus=options.gpus[:, None, :],
        ),
        labels=Labels(
            modes=("full",),
            mode_index=np.zeros((1, width), dtype=np.int64),
            variants=(options.variants,),
            variant_replicas=options.variant_replicas[None],
        ),
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_the_split_conserves_load_and_fills_all_alike(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    load = generator.random((2, 5)) * 1e4
    able = generator.integers(0, 3, (5, count)) * generator.choice([10.0, 250.0], count)

    split = split_load(load, able)

    total = np.where(able.sum(axis=1) > 0, load, 0.0)
    np.testing.assert_allclose(split.sum(axis=2), total, rtol=1e-12)
    assert (split[:, able == 0] == 0).all()
    filled = split / np.where(able > 0, able, np.nan)
    spread = np.nanmax(filled, axis=2, initial=-1) - np.nanmin(filled, axis=2, initial=1e9)
    assert (spread <= 1e-9 * 1e4).all()


@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_the_order_of_the_variants_does_not_matter(seed: int, count: int) -> None:
    group = _group(seed, count=count)
    turned = replace(group, variants=group.variants[::-1])

    one, other = _every_vector(group), _every_vector(turned)

    vectors = other.variant_replicas[:, :count][:, ::-1]
    place = np.lexsort(vectors.T[::-1])
    same = np.lexsort(one.variant_replicas[:, :count].T[::-1])
    for name in ("served_tps", "power_watts", "upper_watts", "gpus"):
        np.testing.assert_allclose(
            getattr(other, name)[..., place], getattr(one, name)[..., same], rtol=1e-12
        )


@given(st.integers(0, 2**32 - 1))
def test_alike_variants_are_interchangeable(seed: int) -> None:
    one = _group(seed, count=1).variants[0]
    pair = (one, replace(one, name="twin"))
    group = _group(seed, count=1, variants=pair)

    options = group_options(group)

    vectors = options.variant_replicas[:, :2]
    lowest, rest = vectors[0], {tuple(sorted(vector)) for vector in vectors.tolist()}
    assert (lowest == [each.replica_counts[0] for each in pair]).all()
    # Of (1, 2) and (2, 1) one is enough.
    assert len(rest) == len(vectors)


@given(st.integers(0, 2**32 - 1))
def test_served_is_the_load_or_what_all_replicas_carry(seed: int) -> None:
    group = _group(seed)

    options = group_options(group)

    able = options.variant_replicas[:, :3] @ [one.capacity_tps for one in group.variants]
    expected = np.minimum(group.load_tps[:, None, :], able[None, :, None])
    np.testing.assert_allclose(
        options.served_tps, (expected * group.share[:, None, :]).sum(axis=2), rtol=1e-12
    )
    assert (np.diff(options.replicas) >= 0).all()
    assert (options.variant_replicas.sum(axis=1) == options.replicas).all()


def test_power_is_that_of_each_variant_at_its_part_of_the_load() -> None:
    def variant(name: str, capacity: float, slope: float) -> Variant:
        return Variant(
            name=name,
            replica_counts=np.arange(4),
            capacity_tps=capacity,
            saturated_tps=1.5 * capacity,
            watts=lambda load: 200.0 + slope * load,
            parked_watts=70.0,
            peak_upper_watts=600.0,
        )

    group = VariantGroup(
        name="chat",
        variants=(variant("h100", 100.0, 1.0), variant("b200", 300.0, 0.5)),
        load_tps=np.array([[250.0]]),
        share=np.ones((1, 1)),
        target_utilisation=0.5,
        kept=np.array([[2, 1]]),
    )

    options = group_options(group)

    place = int(np.flatnonzero((options.variant_replicas[:, :2] == [2, 1]).all(axis=1))[0])
    # 100 of 250 tokens/s to two H100 replicas at 50 each, 150 to one B200 replica.
    assert options.power_watts[0, place] == pytest.approx(2 * (250 - 70) + (275 - 70))
    assert options.served_tps[0, place] == 250


def test_named_vectors_and_the_lowest_stay_whatever_beats_them() -> None:
    group = _group(5, count=2)
    maxima = [int(one.replica_counts[-1]) for one in group.variants]
    odd = [7, 0]

    options = group_options(replace(group, kept=np.array([maxima, odd])))

    vectors = options.variant_replicas[:, :2].tolist()
    lowest = [int(one.replica_counts[0]) for one in group.variants]
    for vector in (maxima, odd, lowest):
        assert vector in vectors


@given(st.integers(0, 2**32 - 1))
def test_with_ramps_every_number_of_replicas_stays_reachable(seed: int) -> None:
    group = _group(seed, count=2)

    options = group_options(replace(group, is_ramped=True))

    assert set(options.replicas.tolist()) == set(_every_vector(group).replicas.tolist())


def test_more_than_four_variants_are_refused_by_the_name_of_the_group() -> None:
    with pytest.raises(ProblemError, match=r"'chat' has 5 variants; accepted: 1 to 4; plan"):
        _group(1, count=5)
    with pytest.raises(ProblemError, match="'chat' has 0 variants"):
        _group(1, count=0)


def test_too_many_vectors_are_refused_by_the_name_of_the_group() -> None:
    group = _group(1, count=4)
    wide = tuple(replace(one, replica_counts=np.arange(17)) for one in group.variants)

    with pytest.raises(ProblemError, match=r"'chat' has 17 x 17 x 17 x 17 = 83521 joint"):
        group_options(replace(group, variants=wide))


def test_thinned_options_say_so_and_keep_both_ends(caplog: pytest.LogCaptureFixture) -> None:
    group = _group(3, count=3)
    wide = tuple(replace(one, replica_counts=np.arange(12)) for one in group.variants)
    group = replace(group, variants=wide, load_tps=np.full_like(group.load_tps, 4000.0))
    every = group_options(group, most_options=10**9)
    assert len(every.replicas) > 40

    options = group_options(group, most_options=40)

    assert len(options.replicas) == 40
    assert options.is_thinned
    assert not every.is_thinned
    assert options.undominated == len(every.replicas)
    assert options.served_tps.mean(axis=0).max() == every.served_tps.mean(axis=0).max()
    assert (options.variant_replicas[0] == 0).all()
    assert "variant group chat" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"share": np.array([[0.5]])}, "share has sums", id="share"),
        pytest.param({"load_tps": np.array([[-1.0]])}, "load_tps holds -1.0", id="load"),
        pytest.param({"target_utilisation": 0.0}, "target_utilisation is 0.0", id="utilisation"),
        pytest.param({"kept": np.array([[1, 2, 3]])}, "kept has shape", id="kept"),
    ],
)
def test_a_group_names_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    values = {"load_tps": np.array([[10.0]]), "share": np.ones((1, 1))}
    with pytest.raises(ProblemError, match=f"'chat': {message}"):
        _group(2, count=2, **{**values, **changes})


def test_a_variant_names_what_is_wrong() -> None:
    one = _group(2, count=1).variants[0]
    wrong: dict[str, Any] = {
        "replica_counts": np.array([2, 1]),
        "capacity_tps": math.nan,
        "saturated_tps": 1.0,
        "peak_upper_watts": 60.0,
    }
    for field, value in wrong.items():
        with pytest.raises(ProblemError, match=rf"'chat': variant 'v0': {field} is"):
            _group(2, variants=(replace(one, **{field: value}),))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_what_is_matched_is_what_pairs_say(seed: int, columns: int) -> None:
    costs = np.random.default_rng(seed).integers(0, 5, (60, columns)).astype(float)
    costs = np.concatenate([costs] * 20) if seed % 3 == 0 else costs

    matched = first_matched(costs)

    no_worse = (costs[:, None] <= costs[None]).all(axis=2)
    better = no_worse & ~no_worse.T
    place = np.arange(len(costs))
    equal_before = no_worse & no_worse.T & (place[:, None] < place)
    assert (matched == (better | equal_before).any(axis=0)).all()
