"""Charges and steps: whatever happens in between, more is never charged than is available."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from powercap_operator import rollout
from powercap_operator.ledger import Entry, Ledger
from powercap_operator.rollout import Sheddable, Step, StepReason, Wish

NAMES = ["a", "b", "c", "d", "e"]


@st.composite
def ledgers(draw: st.DrawFn) -> tuple[Ledger, list[Wish]]:
    """Draw a ledger with current maxima, and what is wished of each target."""
    entries, wishes = {}, []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1)):
        key = ("ns", name)
        current = draw(st.integers(1, 12))
        entries[key] = Entry(
            # The autoscaler may still enforce more than what is written.
            allowed=max(current, draw(st.integers(0, 12))),
            present=draw(st.integers(0, 12)),
            watts_per_replica=draw(st.floats(0.1, 5000)),
        )
        wishes.append(
            Wish(
                key=key,
                current=current,
                desired=draw(st.integers(1, 12)),
                priority=draw(st.integers(-2, 2)),
                weight=draw(st.floats(0.1, 10)),
            )
        )
    available = draw(st.floats(-1000, 200_000))
    return Ledger(entries=entries, available_watts=available), wishes


def _written(ledger: Ledger, step: Step) -> Ledger:
    """Apply a step as the cluster may see it: a lowering frees nothing before its pods end."""
    entry = ledger.entries[step.key]
    allowed = max(entry.allowed, step.after) if step.is_raise else entry.allowed
    return ledger.with_allowed(step.key, allowed)


def test_a_charge_is_the_larger_of_allowed_and_present_once() -> None:
    ledger = Ledger(
        entries={
            ("ns", "a"): Entry(allowed=5, present=2, watts_per_replica=100.0),
            ("ns", "b"): Entry(allowed=1, present=4, watts_per_replica=50.0),
        },
        available_watts=1000.0,
    )

    assert ledger.charged_watts == 700.0
    assert ledger.free_watts == 300.0


@given(ledgers())
def test_no_prefix_of_steps_charges_more_than_is_available(
    drawn: tuple[Ledger, list[Wish]],
) -> None:
    ledger, wishes = drawn
    most = max(ledger.available_watts, ledger.charged_watts)

    for step in rollout.plan_steps(wishes, ledger=ledger):
        ledger = _written(ledger, step)

        assert ledger.charged_watts <= most + 1e-6 * max(1.0, abs(most))


@given(ledgers())
def test_every_lowering_comes_before_the_first_raise(drawn: tuple[Ledger, list[Wish]]) -> None:
    ledger, wishes = drawn

    raises = [step.is_raise for step in rollout.plan_steps(wishes, ledger=ledger)]

    assert raises == sorted(raises)


@given(ledgers())
def test_no_step_overshoots_its_wish(drawn: tuple[Ledger, list[Wish]]) -> None:
    ledger, wishes = drawn
    by_key = {wish.key: wish for wish in wishes}

    for step in rollout.plan_steps(wishes, ledger=ledger):
        wish = by_key[step.key]
        assert step.before == wish.current
        low, high = sorted((wish.current, wish.desired))
        assert low <= step.after <= high
        assert step.after != step.before


@given(ledgers())
def test_steps_lead_to_the_wishes_once_the_pods_are_gone(
    drawn: tuple[Ledger, list[Wish]],
) -> None:
    ledger, wishes = drawn
    wanted = sum(wish.desired * ledger.entries[wish.key].watts_per_replica for wish in wishes)
    room = Ledger(entries=ledger.entries, available_watts=wanted * (1 + 1e-6))

    for _ in range(3):
        steps = {step.key: step for step in rollout.plan_steps(wishes, ledger=room)}
        wishes = [
            Wish(
                key=wish.key,
                current=steps[wish.key].after if wish.key in steps else wish.current,
                desired=wish.desired,
            )
            for wish in wishes
        ]
        entries = {
            wish.key: Entry(
                allowed=wish.current,
                present=0,
                watts_per_replica=room.entries[wish.key].watts_per_replica,
            )
            for wish in wishes
        }
        room = Ledger(entries=entries, available_watts=room.available_watts)

    assert [wish.current for wish in wishes] == [wish.desired for wish in wishes]
    assert rollout.plan_steps(wishes, ledger=room) == ()


def test_the_more_important_target_rises_first_and_the_other_in_part() -> None:
    entry = Entry(allowed=1, present=1, watts_per_replica=100.0)
    ledger = Ledger(entries={("ns", "a"): entry, ("ns", "b"): entry}, available_watts=600.0)
    wishes = [
        Wish(key=("ns", "a"), current=1, desired=5, priority=0),
        Wish(key=("ns", "b"), current=1, desired=4, priority=1),
    ]

    steps = rollout.plan_steps(wishes, ledger=ledger)

    assert [(step.key[1], step.after) for step in steps] == [("b", 4), ("a", 2)]


def test_nothing_rises_while_more_is_charged_than_available() -> None:
    entries = {
        ("ns", "a"): Entry(allowed=2, present=6, watts_per_replica=100.0),
        ("ns", "b"): Entry(allowed=9, present=1, watts_per_replica=100.0),
    }
    ledger = Ledger(entries=entries, available_watts=1000.0)
    wishes = [
        Wish(key=("ns", "a"), current=2, desired=4),
        Wish(key=("ns", "b"), current=9, desired=4),
    ]

    steps = rollout.plan_steps(wishes, ledger=ledger)

    assert [(step.key[1], step.after) for step in steps] == [("b", 4)]


def _sheddable(name: str, **given: object) -> Sheddable:
    values: dict[str, object] = {
        "current": 4,
        "present": 4,
        "floor": 1,
        "soft_floor": 1,
        "watts_per_replica": 100.0,
        **given,
    }
    return Sheddable(key=("ns", name), **values)  # type: ignore[arg-type]


def test_shedding_takes_the_least_important_first_and_no_more_than_the_excess() -> None:
    candidates = [_sheddable("a", priority=1), _sheddable("b"), _sheddable("c", weight=0.5)]

    steps, watts = rollout.shedding_steps(candidates, excess_watts=450.0)

    assert [(step.key[1], step.before, step.after) for step in steps] == [
        ("c", 4, 1),
        ("b", 4, 2),
    ]
    assert watts == 500.0
    assert {step.reason for step in steps} == {StepReason.SHED}


def test_floors_give_way_only_after_everything_else() -> None:
    candidates = [_sheddable("a", soft_floor=3), _sheddable("b", priority=1)]

    some, _ = rollout.shedding_steps(candidates, excess_watts=400.0)
    more, _ = rollout.shedding_steps(candidates, excess_watts=500.0)

    assert {step.key[1]: step.after for step in some} == {"a": 3, "b": 1}
    assert {step.key[1]: step.after for step in more} == {"a": 2, "b": 1}


def test_shedding_counts_what_runs_not_what_is_allowed() -> None:
    steps, watts = rollout.shedding_steps(
        [_sheddable("a", current=10, present=3)], excess_watts=100.0
    )

    assert [(step.before, step.after) for step in steps] == [(10, 2)]
    assert watts == 100.0


def test_nothing_is_shed_without_an_excess() -> None:
    assert rollout.shedding_steps([_sheddable("a")], excess_watts=0.0) == ((), 0.0)
    assert rollout.shedding_steps([_sheddable("a")], excess_watts=-50.0) == ((), -0.0)


@given(
    st.lists(
        st.tuples(st.integers(1, 10), st.integers(0, 10), st.integers(1, 4), st.integers(-2, 2)),
        max_size=5,
    ),
    st.floats(-500, 5000),
)
def test_shedding_never_raises_and_keeps_the_minimum(
    drawn: list[tuple[int, int, int, int]], excess: float
) -> None:
    candidates = [
        _sheddable(NAMES[i], current=current, present=present, floor=floor, priority=priority)
        for i, (current, present, floor, priority) in enumerate(drawn)
    ]

    steps, watts = rollout.shedding_steps(candidates, excess_watts=excess)

    floors = {item.key: item.floor for item in candidates}
    assert all(step.after < step.before and step.after >= floors[step.key] for step in steps)
    assert watts <= max(0.0, excess) + 100.0
