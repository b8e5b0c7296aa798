"""Without a fresh plan nothing rises: the plan in force until it expires, then safe maxima."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_operator import fallback
from powercap_operator.fallback import Holding
from powercap_operator.rollout import StepReason

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
MAYBE = st.none() | st.integers(0, 20)


def _holding(**given: int | None) -> Holding:
    values: dict[str, int | None] = {
        "current": 6,
        "in_force": 6,
        "safe_max": 2,
        "present": 4,
        "floor": 1,
        **given,
    }
    return Holding(key=("ns", "a"), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expires_in", "reason"),
    [
        pytest.param(None, None, id="no plan ever"),
        pytest.param(1.0, StepReason.HOLD, id="in force"),
        pytest.param(0.0, StepReason.FALLBACK, id="expires now"),
        pytest.param(-1.0, StepReason.FALLBACK, id="expired"),
    ],
)
def test_the_expiry_divides_holding_from_falling_back(
    expires_in: float | None, reason: StepReason | None
) -> None:
    expires_at = None if expires_in is None else NOW + datetime.timedelta(seconds=expires_in)

    assert fallback.reason_at(NOW, expires_at=expires_at) is reason


@given(
    current=st.integers(1, 20),
    in_force=MAYBE,
    safe_max=MAYBE,
    present=MAYBE,
    floor=st.integers(1, 5),
)
@pytest.mark.parametrize("reason", [StepReason.HOLD, StepReason.FALLBACK])
def test_no_failure_raises_a_maximum(
    reason: StepReason,
    current: int,
    in_force: int | None,
    safe_max: int | None,
    present: int | None,
    floor: int,
) -> None:
    holding = _holding(
        current=current, in_force=in_force, safe_max=safe_max, present=present, floor=floor
    )

    (wish,) = fallback.wishes([holding], reason=reason)
    (again,) = fallback.wishes(
        [
            _holding(
                current=wish.desired,
                in_force=in_force,
                safe_max=safe_max,
                present=present,
                floor=floor,
            )
        ],
        reason=reason,
    )

    assert wish.desired <= current
    assert wish.desired >= min(current, floor)
    assert again.desired == wish.desired


@pytest.mark.parametrize(
    ("reason", "given_", "desired"),
    [
        pytest.param(StepReason.HOLD, {}, 6, id="the plan in force is kept"),
        pytest.param(StepReason.HOLD, {"current": 9}, 6, id="a raise by hand is taken back"),
        pytest.param(StepReason.FALLBACK, {}, 2, id="safe maximum"),
        pytest.param(StepReason.FALLBACK, {"safe_max": 8}, 6, id="never above what is allowed"),
        pytest.param(StepReason.FALLBACK, {"floor": 3}, 3, id="never below the minimum"),
        pytest.param(StepReason.FALLBACK, {"safe_max": None}, 4, id="unknown: what runs may stay"),
    ],
)
def test_what_is_wanted(reason: StepReason, given_: dict[str, int | None], desired: int) -> None:
    (wish,) = fallback.wishes([_holding(**given_)], reason=reason)

    assert wish.desired == desired
