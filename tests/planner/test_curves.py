"""Power curves: what is learned, what bounds it, and what is charged when nothing is known."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from sklearn.utils.estimator_checks import check_estimator

from powercap_planner.curves.fit import FitSettings, fit_model, fit_models
from powercap_planner.curves.model import ModelKind
from powercap_planner.curves.nameplate import LARGEST, find_gpu
from powercap_planner.curves.regressor import PowerCurveRegressor
from powercap_planner.observations import ClusterObservation, DeploymentObservation

H100 = "NVIDIA H100 80GB HBM3"
PARKED = {H100: 70.0}


def true_watts(load_per_replica):
    return 70.0 + 600.0 * load_per_replica / (load_per_replica + 300.0)


def history(
    *, length: int = 600, seed: int = 1, saturates: bool = True, **changes: Any
) -> DeploymentObservation:
    """Return a day-like history of 1 to 4 replicas that saturate at 2,000 tokens/s each."""
    rng = np.random.default_rng(seed)
    phase = np.linspace(0.0, 4.0 * np.pi, length)
    asked = 4500.0 + 4000.0 * np.sin(phase)
    replicas = np.clip(np.ceil(asked / 1400.0), 1, 4)
    each = np.minimum(asked / replicas, 2000.0 if saturates else 1200.0)
    waiting = np.where((asked / replicas > 2000.0) & saturates, 20.0, 0.0) * replicas
    series: dict[str, Any] = {
        "power_watts": replicas * true_watts(each) * (1.0 + rng.normal(0.0, 0.02, length)),
        "ready_replicas": replicas,
        "present_replicas": replicas,
        "arrived_tps": asked,
        "served_tps": replicas * each,
        "running_requests": replicas * 10.0,
        "waiting_requests": waiting,
        "ttft_p95_seconds": np.full(length, np.nan),
        "itl_p95_seconds": np.full(length, np.nan),
    }
    return DeploymentObservation(
        **{
            "namespace": "llm",
            "name": "chat",
            "gpu_type": H100,
            "gpus_per_replica": 1,
            "min_replicas": 1,
            "max_replicas": 8,
            **series,
            **changes,
        }
    )


def fit(deployment: DeploymentObservation, **settings: Any):
    return fit_model(deployment, parked_gpu_watts=PARKED, settings=FitSettings(**settings))


def reasons(model) -> set[str]:
    return {one.reason for one in model.findings}


@pytest.mark.filterwarnings("ignore:Skipping check:sklearn.exceptions.SkipTestWarning")
def test_the_regressor_keeps_scikit_learns_contract():
    check_estimator(PowerCurveRegressor())


def test_the_regressor_starts_at_the_idle_anchor_and_stays_under_the_ceiling():
    rng = np.random.default_rng(0)
    load = rng.uniform(200.0, 3000.0, 400)
    watts = true_watts(load) + rng.normal(0.0, 10.0, 400)

    curve = PowerCurveRegressor(idle_watts=70.0, ceiling_watts=600.0, random_state=0)
    predicted = curve.fit(load[:, None], watts).predict(np.linspace(0, 50_000, 500)[:, None])

    assert predicted[0] == pytest.approx(70.0)
    assert predicted.max() <= 600.0


def test_the_regressor_extrapolates_by_its_concave_base():
    load = np.linspace(200.0, 2000.0, 60)
    curve = PowerCurveRegressor(idle_watts=70.0, random_state=0)

    curve.fit(load[:, None], true_watts(load))
    beyond = np.array([100.0, 4000.0, 8000.0])

    np.testing.assert_allclose(curve.predict(beyond[:, None]), true_watts(beyond), rtol=0.02)


def test_boosting_learns_what_the_concave_base_cannot():
    load = np.linspace(100.0, 3000.0, 200)
    watts = true_watts(load) - 60.0 * ((load > 1500) & (load < 2200))
    with_boosting = PowerCurveRegressor(idle_watts=70.0, random_state=0)
    without = PowerCurveRegressor(idle_watts=70.0, min_boosting_samples=10_000)

    errors = [
        np.abs(one.fit(load[:, None], watts).predict(load[:, None]) - watts).mean()
        for one in (with_boosting, without)
    ]

    assert errors[0] < 0.3 * errors[1]


def test_the_curve_is_of_one_replica_so_unseen_counts_follow():
    model = fit(history())

    loads = np.array([300.0, 800.0, 1500.0, 1900.0])

    np.testing.assert_allclose(model.watts(loads), true_watts(loads), rtol=0.03)
    assert model.kind is ModelKind.FITTED
    assert model.error_fraction is not None
    assert model.error_fraction < 0.03


def test_equal_input_gives_equal_curves():
    first, second = fit(history()), fit(history())

    np.testing.assert_array_equal(first.mean_watts, second.mean_watts)
    assert first.peak_upper_watts == second.peak_upper_watts


def test_the_upper_bound_covers_new_windows_and_never_falls():
    model = fit(history(seed=1))
    fresh = history(seed=2, length=3000)
    each, watts = (
        series / fresh.ready_replicas for series in (fresh.served_tps, fresh.power_watts)
    )

    bound = np.interp(each, model.knot_tps, model.upper_watts)

    assert (watts <= bound).mean() > 0.97
    assert (np.diff(model.upper_watts) >= 0).all()
    assert model.peak_upper_watts >= model.mean_watts.max()


def test_the_bound_covers_what_was_seen_a_rare_spike_included():
    spiky = history()
    watts = np.array(spiky.power_watts)
    watts[::100] *= 1.1

    model = fit(history(power_watts=watts))
    each = spiky.served_tps / spiky.ready_replicas
    bound = np.interp(each, model.knot_tps, model.upper_watts)

    assert (watts / spiky.ready_replicas <= bound * 1.01).all()


def test_the_coverage_claimed_is_what_the_sample_supports():
    short, long = fit(history(length=80)), fit(history(length=8000))

    assert short.coverage_fraction is not None
    assert short.coverage_fraction == pytest.approx(20 / 21)
    assert long.coverage_fraction == pytest.approx(0.999)


def test_no_bound_is_above_the_gpu_limit_and_host_share():
    noisy = history()
    rng = np.random.default_rng(3)
    watts = noisy.ready_replicas * np.clip(rng.normal(690.0, 60.0, 600), 400.0, 800.0)

    model = fit(history(power_watts=watts))

    assert model.peak_upper_watts <= 700.0 * 1.02 + 100.0


def test_saturation_gives_the_capacity_and_is_flagged_when_not_seen():
    seen, unseen = fit(history()), fit(history(saturates=False))

    assert seen.saturated_tps == pytest.approx(2000.0)
    assert seen.capacity_tps == pytest.approx(1800.0)
    assert "CapacityAssumed" in reasons(seen)
    assert "SaturationNotSeen" in reasons(unseen)
    assert seen.peak_upper_watts < unseen.peak_upper_watts == unseen.nameplate_watts


def test_a_point_is_not_a_curve_and_is_charged_by_nameplate():
    length = 600
    flat = history(
        served_tps=np.full(length, 1000.0),
        ready_replicas=np.ones(length),
        present_replicas=np.ones(length),
        power_watts=np.full(length, 500.0),
        waiting_requests=np.full(length, 9.0),
    )

    model = fit(flat)

    assert "SupportNarrow" in reasons(model)
    assert model.peak_upper_watts == model.nameplate_watts


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"power_watts": np.full(600, np.nan)}, id="no power"),
        pytest.param({"served_tps": np.full(600, np.nan)}, id="no tokens"),
        pytest.param({"ready_replicas": np.zeros(600)}, id="no replica ever"),
        pytest.param({"power_watts": np.full(600, -5.0)}, id="negative power"),
        pytest.param({"power_watts": np.zeros(600)}, id="zero power"),
        pytest.param({"power_watts": np.full(600, 1e7)}, id="absurd power"),
    ],
)
def test_unusable_power_is_never_read_as_zero(changes):
    model = fit(history(**changes))

    assert model.kind is ModelKind.NAMEPLATE
    assert not model.is_plannable
    assert model.peak_upper_watts == pytest.approx(700.0 * 1.2)
    assert "NeverMeasured" in reasons(model)


def test_single_bad_windows_do_not_move_the_curve():
    good = history()
    watts = np.array(good.power_watts)
    watts[::10] = np.nan
    watts[1::50] = 0.0
    watts[2::50] = 1e9

    model = fit(history(power_watts=watts))

    np.testing.assert_allclose(
        model.watts(np.array([800.0, 1800.0])), true_watts(np.array([800.0, 1800.0])), rtol=0.03
    )
    assert "PowerAbsurd" in reasons(model)


def test_an_unknown_gpu_is_charged_as_the_largest_there_is():
    model = fit(history(gpu_type="Mystery 9000", power_watts=np.full(600, np.nan)))

    assert model.peak_upper_watts == pytest.approx(LARGEST.nameplate_watts * 1.2)
    assert any("Mystery 9000" in one.message for one in model.findings)


def test_unknown_gpus_per_replica_are_charged_as_a_whole_host():
    model = fit(history(gpus_per_replica=None, power_watts=np.full(600, np.nan)))

    assert model.peak_upper_watts == pytest.approx(8 * 700.0 * 1.2)
    assert model.parked_watts == 0.0


@pytest.mark.parametrize(
    ("name", "watts"),
    [
        ("NVIDIA H100 80GB HBM3", 700.0),
        ("NVIDIA H100 PCIe", 350.0),
        ("h100", 700.0),
        ("NVIDIA H200", 700.0),
        ("NVIDIA B200", 1000.0),
        ("A100-SXM4-40GB", 400.0),
        ("NVIDIA A100-SXM4-80GB", 400.0),
        ("NVIDIA A100 80GB PCIe", 300.0),
        ("NVIDIA L40S", 350.0),
        ("NVIDIA L4", 72.0),
        ("Tesla T4", 70.0),
    ],
)
def test_gpus_are_found_by_the_names_exporters_give(name, watts):
    gpu = find_gpu(name)

    assert gpu is not None
    assert gpu.nameplate_watts == watts


@pytest.mark.parametrize("name", [None, "", "GeForce GTX 1080", "H1000"])
def test_a_gpu_that_is_not_in_the_table_is_not_guessed(name):
    assert find_gpu(name) is None


def test_twenty_deployments_fit_in_seconds():
    length = 1440
    many = tuple(history(length=length, seed=seed, name=f"d{seed}") for seed in range(20))
    observation = ClusterObservation(
        time_seconds=60.0 * np.arange(length),
        step_seconds=60.0,
        deployments=many,
        gpu_count={H100: 100},
        parked_gpu_watts=PARKED,
        host_idle_watts=0.0,
        total_watts=np.full(length, np.nan),
        measured=None,
    )
    start = time.process_time()

    models = fit_models(observation)

    assert len(models) == 20
    # Generous: a loaded machine must not fail this, a slow method must.
    assert time.process_time() - start < 8.0


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        pytest.param("NVIDIA H100 80GB HBM3", 69.0, 71.0, id="h100"),
        pytest.param("NVIDIA B200", 136.0, 145.0, id="b200"),
        pytest.param("NVIDIA A100-SXM4-40GB", 33.0, 50.0, id="a100-40gb"),
        pytest.param("NVIDIA A100-SXM4-80GB", 51.0, 68.0, id="a100-80gb"),
        pytest.param("A100", 51.0, 68.0, id="a100 of either memory: the larger"),
    ],
)
def test_parked_watts_are_within_published_readings(name, low, high):
    gpu = find_gpu(name)

    assert gpu is not None
    assert low <= gpu.parked_watts <= high
    assert not gpu.is_parked_assumed


def test_assumed_parked_watts_are_no_lower_than_measured_shares():
    measured = [find_gpu(name) for name in ("H100", "H200", "B200", "A100")]
    assumed = find_gpu("NVIDIA GB200")

    assert assumed is not None
    assert assumed.is_parked_assumed
    share = assumed.parked_watts / assumed.nameplate_watts
    assert all(share >= one.parked_watts / one.nameplate_watts for one in measured)
