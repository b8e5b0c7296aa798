"""Price and carbon: read with their units, weighed against what is usual, neutral when missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powercap_planner.errors import InputFileError, SourceError
from powercap_planner.grid.files import FileCarbonProvider, FilePriceProvider
from powercap_planner.grid.series import ConstantProvider, GridSeries
from powercap_planner.grid.weight import (
    GridConditions,
    GridSignal,
    read_conditions,
    served_share,
    signal_at,
)
from powercap_planner.units import carbon_unit, price_unit, utc_seconds, utc_text

HOUR = 3600.0
WEIGHTS = {"price_weight": 0.5, "carbon_weight": 0.5}


def signal(value: float, reference: float) -> GridSignal:
    return GridSignal(value=value, reference=reference, unit="", source="", age_seconds=0.0)


def series(values: list[float]) -> GridSeries:
    return GridSeries(
        zone="X",
        unit="EUR/MWh",
        source="test",
        time_seconds=HOUR * np.arange(len(values)),
        values=np.array(values),
        step_seconds=HOUR,
    )


def price_file(tmp_path, rows: list[str], header: str = "timestamp_utc,zone,price_eur_per_mwh"):
    path = tmp_path / "prices.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_the_energy_weight_is_one_when_all_is_as_usual_and_when_nothing_is_known():
    usual = GridConditions(price=signal(80.0, 80.0), carbon=signal(300.0, 300.0))

    assert usual.energy_weight(**WEIGHTS) == 1.0
    assert GridConditions().energy_weight(**WEIGHTS) == 1.0
    assert served_share(GridConditions().stress(**WEIGHTS)) == pytest.approx(0.998)


def test_the_energy_weight_follows_the_deviation_of_both_signals():
    dear = GridConditions(price=signal(160.0, 80.0), carbon=signal(450.0, 300.0))

    assert dear.energy_weight(**WEIGHTS) == pytest.approx(1.0 + 0.5 * 1.0 + 0.5 * 0.5)


def test_a_reference_near_zero_does_not_blow_the_weight_up():
    around_zero = GridConditions(price=signal(5.0, 0.0))

    assert around_zero.energy_weight(**WEIGHTS) == pytest.approx(1.0 + 0.5 * 5.0 / 10.0)


@given(st.floats(-1e6, 1e6), st.floats(-1e4, 1e4), st.floats(0, 1e5), st.floats(0, 1e4))
def test_the_energy_weight_stays_in_its_range(price, price_ref, carbon, carbon_ref):
    grid = GridConditions(price=signal(price, price_ref), carbon=signal(carbon, carbon_ref))

    assert 0.05 <= grid.energy_weight(**WEIGHTS) <= 10.0


def test_stress_lowers_the_share_that_must_be_served_down_to_the_limit():
    shares = [served_share(stress) for stress in (0.5, 1.0, 1.5, 2.0, 9.0)]

    assert shares == pytest.approx([0.998, 0.998, 0.974, 0.95, 0.95])


def test_the_reference_is_a_trimmed_mean_so_that_a_spike_does_not_move_it():
    found, findings = signal_at(series([50.0] * 19 + [5000.0]), now_seconds=19 * HOUR, name="price")

    assert found is not None
    assert (found.value, found.reference, found.age_seconds) == (5000.0, 50.0, 0.0)
    assert findings == ()


def test_a_missing_hour_uses_the_last_good_value_and_says_so():
    found, findings = signal_at(
        series([50.0, 60.0, float("nan")]), now_seconds=2.5 * HOUR, name="price"
    )

    assert found is not None
    assert (found.value, found.age_seconds) == (60.0, 0.5 * HOUR)
    assert [one.reason for one in findings] == ["GridDataOld"]


def test_a_feed_gone_for_hours_is_neutral_never_free():
    found, findings = signal_at(series([50.0, 60.0]), now_seconds=9 * HOUR, name="price")

    assert found is None
    assert [one.reason for one in findings] == ["GridDataMissing"]


def test_a_provider_that_fails_is_neutral_with_a_finding():
    class Failing:
        name = "failing"

        def prices(self, *, zone, start_seconds, end_seconds):
            raise SourceError("timed out")

    grid = read_conditions(price=Failing(), carbon=None, zone="X", now_seconds=0.0)

    assert grid.price is None
    assert grid.energy_weight(**WEIGHTS) == 1.0
    assert "timed out" in grid.findings[0].message


def test_a_constant_is_its_own_reference():
    grid = read_conditions(
        price=ConstantProvider(90.0, unit="EUR/MWh"),
        carbon=ConstantProvider(400.0, unit="gCO2eq/kWh"),
        zone="X",
        now_seconds=1e9,
    )

    assert grid.price is not None
    assert grid.price.value == grid.price.reference == 90.0
    assert grid.energy_weight(**WEIGHTS) == 1.0


def test_a_price_file_is_read_in_its_own_unit_negative_prices_and_gaps_included(tmp_path):
    path = price_file(
        tmp_path,
        [
            "2023-01-01T00:00:00Z,DE-LU,-0.01",
            "2023-01-01T01:00:00Z,DE-LU,",
            "2023-01-01T02:00:00+01:00,DE-LU,0.08",
            "2023-01-01T02:00:00Z,DE-LU,0.1",
        ],
        header="timestamp_utc,zone,price_eur_per_kwh",
    )

    read = FilePriceProvider(path).prices(
        zone="DE-LU",
        start_seconds=utc_seconds("2023-01-01"),
        end_seconds=utc_seconds("2023-01-01T02:30:00"),
    )

    np.testing.assert_allclose(read.values, [-10.0, 80.0, 100.0])
    assert (read.unit, read.step_seconds) == ("EUR/MWh", HOUR)


def test_carbon_prefers_life_cycle_values(tmp_path):
    path = price_file(
        tmp_path,
        ["2023-01-01T00:00:00Z,X,100,150"],
        header="timestamp_utc,zone,carbon_intensity_direct_g_per_kwh,"
        "carbon_intensity_lca_g_per_kwh",
    )

    read = FileCarbonProvider(path).intensities(zone="", start_seconds=0.0, end_seconds=2e9)

    assert read.values.tolist() == [150.0]
    assert read.unit == "gCO2eq/kWh (average)"


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        pytest.param(
            "timestamp_utc,zone,price_eur_per_mw", [], "price_eur_per_mw has a unit", id="unit"
        ),
        pytest.param("timestamp_utc,zone,cost", [], "no column begins with price", id="no price"),
        pytest.param("when,zone,price_eur_per_mwh", [], "timestamp_utc or", id="no time"),
        pytest.param("timestamp_utc,price_eur_per_mwh", [], "zone or balancing", id="no zone"),
        pytest.param(
            "timestamp_utc,zone,price_eur_per_mwh",
            ["2023-01-01T00:00:00Z,X,ten"],
            "line 2, column price_eur_per_mwh: is 'ten'",
            id="no number",
        ),
        pytest.param(
            "timestamp_utc,zone,price_eur_per_mwh",
            ["2023-01-01T00:00:00Z,X,1", "yesterday,X,2"],
            "line 3, column timestamp_utc: is 'yesterday'",
            id="no moment",
        ),
        pytest.param(
            "timestamp_utc,zone,price_eur_per_mwh",
            ["2023-01-01T00:00:00Z,X"],
            "line 2, column price_eur_per_mwh: is missing",
            id="short line",
        ),
        pytest.param("timestamp_utc,zone,price_eur_per_mwh", [], "holds no row", id="empty"),
    ],
)
def test_a_malformed_grid_file_is_one_clear_error(tmp_path, header, rows, message):
    with pytest.raises(InputFileError) as caught:
        FilePriceProvider(price_file(tmp_path, rows, header=header))

    assert message in str(caught.value)
    assert "prices.csv" in str(caught.value)


def test_an_unknown_zone_is_refused_with_the_known_ones(tmp_path):
    path = price_file(tmp_path, ["2023-01-01T00:00:00Z,FR,1", "2023-01-01T00:00:00Z,DE,2"])

    with pytest.raises(SourceError, match="no zone 'IT'; accepted: DE, FR"):
        FilePriceProvider(path).prices(zone="IT", start_seconds=0.0, end_seconds=2e9)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("price_usd_per_mwh", ("USD", 1.0)),
        ("price_eur_per_kwh", ("EUR", 1000.0)),
        ("price_eur_per_gwh", None),
        ("price_per_mwh", None),
    ],
)
def test_prices_say_their_unit_in_the_column(column, expected):
    assert price_unit(column) == expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("carbon_intensity_g_per_kwh", ("average", 1.0)),
        ("marginal_carbon_g_per_kwh", ("marginal", 1.0)),
        ("carbon_intensity_lca_kg_per_mwh", ("average", 1.0)),
        ("carbon_intensity_t_per_mwh", None),
    ],
)
def test_carbon_says_its_unit_in_the_column(column, expected):
    assert carbon_unit(column) == expected


def test_pounds_per_mwh_become_grams_per_kwh():
    known = carbon_unit("marginal_carbon_lb_per_mwh")

    assert known is not None
    # A published conversion: 870 lb/MWh are 394.6 g/kWh.
    assert 870.0 * known[1] == pytest.approx(394.6, abs=0.05)


@given(st.integers(0, 4_000_000_000))
def test_times_survive_their_text(seconds):
    assert utc_seconds(utc_text(seconds)) == seconds
