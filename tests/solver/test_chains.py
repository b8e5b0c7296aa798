"""The best paths of chains against enumeration of every path."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_solver.chains import Chains, best_paths
from powercap_solver.links import Links

PADDING = float(np.iinfo(np.int32).max)


def _instance(seed: int, *, ascending: bool) -> tuple[np.ndarray, np.ndarray, Links]:
    generator = np.random.default_rng(seed)
    chains, periods = 2, int(generator.integers(1, 5))
    options = int(generator.integers(1, 5))
    # Few sizes to draw from: equal ones are common.
    size = np.sort(generator.integers(0, 5, (chains, options)), axis=1).astype(float)
    allowed = generator.random((chains * periods, options)) < 0.85
    if options > 1:
        padded = generator.integers(0, 2, chains)
        for chain in np.flatnonzero(padded):
            size[chain, -1] = PADDING
            allowed[chain * periods : (chain + 1) * periods, -1] = False
    late = generator.uniform(0, 30, (chains * periods, options))
    if ascending:
        late = np.sort(late, axis=1)
    is_late, is_known = generator.random() < 0.7, generator.random(chains) < 0.6
    initial_late = np.where(is_known, generator.uniform(0, 30, chains), np.inf)
    links = Links(
        periods=periods,
        size=size,
        max_raise=generator.choice([0.0, 1.0, 2.0, np.inf], chains),
        max_lower=generator.choice([0.0, 1.0, 2.0, np.inf], chains),
        change_cost=generator.choice([0.0, 0.5, 7.0], chains),
        initial_size=np.where(is_known, generator.integers(0, 6, chains), np.nan),
        late=late if is_late else None,
        initial_late=initial_late if is_late and generator.random() < 0.8 else None,
    )
    value = generator.uniform(-50, 50, (chains * periods, options))
    return value, allowed, links


def _paths(
    value: np.ndarray, allowed: np.ndarray, links: Links, chain: int
) -> list[tuple[tuple[int, ...], float]]:
    """Every path of one chain that keeps its ramps, with its worth."""
    alone = links.of_chains(np.array([chain]))
    groups = np.arange(chain * links.periods, (chain + 1) * links.periods)
    found = []
    for path in itertools.product(*(np.flatnonzero(allowed[group]) for group in groups)):
        choice = np.array(path)
        if alone.holds(choice):
            gained = math.fsum(value[groups, choice])
            found.append((tuple(choice.tolist()), gained - math.fsum(alone.losses(choice))))
    return found


@pytest.mark.parametrize("ascending", [True, False], ids=["ascending", "any-late"])
@given(seed=st.integers(0, 1_000_000))
def test_the_best_paths_are_those_of_enumeration(ascending: bool, seed: int) -> None:
    value, allowed, links = _instance(seed, ascending=ascending)
    worths = [
        [worth for _, worth in _paths(value, allowed, links, chain)]
        for chain in range(len(links.size))
    ]

    best = best_paths(value, allowed, links)

    if not all(worths):
        assert best.choice is None
        assert best.bound == -math.inf
        return
    total = math.fsum(max(each) for each in worths)
    assert best.choice is not None
    assert allowed[np.arange(len(best.choice)), best.choice].all()
    assert links.holds(best.choice)
    gained = math.fsum(value[np.arange(len(value)), best.choice])
    worth = gained - math.fsum(links.losses(best.choice))
    assert worth == pytest.approx(total, rel=1e-12, abs=1e-10)
    assert best.bound >= total - 1e-13 * abs(total)
    assert best.bound == pytest.approx(total, rel=1e-10, abs=1e-9)


@pytest.mark.parametrize("ascending", [True, False], ids=["ascending", "any-late"])
@given(seed=st.integers(0, 1_000_000))
def test_the_best_path_through_each_option_is_that_of_enumeration(
    ascending: bool, seed: int
) -> None:
    value, allowed, links = _instance(seed, ascending=ascending)
    expected = np.full(value.shape, -np.inf)
    for chain in range(len(links.size)):
        for path, worth in _paths(value, allowed, links, chain):
            for period, option in enumerate(path):
                group = chain * links.periods + period
                expected[group, option] = max(expected[group, option], worth)

    through = Chains(links).through(value, allowed)

    np.testing.assert_allclose(through, expected, rtol=1e-12, atol=1e-10)


@given(seed=st.integers(0, 1_000_000), exponent=st.integers(3, 9))
def test_the_bound_holds_where_large_numbers_cancel(seed: int, exponent: int) -> None:
    value, allowed, links = _instance(seed, ascending=True)
    # Great values that the costs of changing nearly undo.
    factor = 10.0**exponent
    links = replace(links, change_cost=links.change_cost * factor)
    value = value + factor * np.arange(value.shape[1])
    value[1::2] -= factor * np.arange(value.shape[1]) * 2
    worths = [
        [worth for _, worth in _paths(value, allowed, links, chain)]
        for chain in range(len(links.size))
    ]

    best = best_paths(value, allowed, links)

    if all(worths):
        assert best.bound >= math.fsum(max(each) for each in worths)


@given(seed=st.integers(0, 1_000_000))
def test_one_program_serves_many_values(seed: int) -> None:
    value, allowed, links = _instance(seed, ascending=True)
    chains = Chains(links)
    chains.best(-value, allowed)

    again = chains.best(value, allowed)

    fresh = best_paths(value, allowed, links)
    assert again.bound == fresh.bound


def test_a_chain_without_a_path_leaves_no_choice() -> None:
    links = Links(
        periods=2,
        size=np.array([[0.0, 5.0]]),
        max_raise=np.array([1.0]),
        max_lower=np.array([1.0]),
        change_cost=np.zeros(1),
        initial_size=np.array([np.nan]),
    )
    allowed = np.array([[True, False], [False, True]])

    best = best_paths(np.ones((2, 2)), allowed, links)

    assert best.choice is None
    assert best.bound == -math.inf


def test_late_values_without_a_start_cost_nothing_in_the_first_period() -> None:
    links = Links(
        periods=2,
        size=np.array([[0.0, 1.0]]),
        max_raise=np.array([np.inf]),
        max_lower=np.array([np.inf]),
        change_cost=np.zeros(1),
        initial_size=np.array([np.nan]),
        late=np.array([[0.0, 5.0], [0.0, 5.0]]),
    )

    assert links.losses(np.array([1, 1])).tolist() == [0, 0]
    assert links.losses(np.array([0, 1])).tolist() == [0, 5]
