from pathlib import Path

import numpy as np
import pytest

from powercap_planner.curves.nameplate import find_gpu
from powercap_simulator.curves import (
    GPU_TYPES,
    CurveTable,
    ReplicaCurve,
    builtin_curve,
    read_curves,
)
from powercap_simulator.errors import ScenarioError

PAIRS = [
    ("llama-3.1-8b", "H100"),
    ("qwen3-14b", "H100"),
    ("gemma-3-12b", "H100"),
    ("llama-3.3-70b", "H100"),
    ("llama-3.3-70b", "B200"),
    ("gpt-oss-20b", "B200"),
    ("qwen3-235b", "B200"),
    ("codellama-7b", "A100"),
    ("llama-2-13b", "A100"),
]
HEADER = "curve_id,model,gpu,gpus_per_replica,output_tokens_per_s,power_w,tpot_s,itl_p95_s\n"


@pytest.mark.parametrize("gpu", GPU_TYPES)
def test_gpus_are_those_of_the_planner(gpu: str) -> None:
    emulated, planned = GPU_TYPES[gpu], find_gpu(GPU_TYPES[gpu].name)

    assert planned is not None
    assert emulated.limit_watts == planned.nameplate_watts
    assert emulated.parked_watts == planned.parked_watts


@pytest.mark.parametrize(("model", "gpu"), PAIRS)
def test_builtin_curves_have_the_measured_shape(model: str, gpu: str) -> None:
    curve = builtin_curve(model=model, gpu=gpu)

    slope = np.diff(curve.power_watts) / np.diff(curve.load_tps)
    assert (slope > 0).all()
    assert (np.diff(slope) <= 1e-9).all()  # concave
    tenth, full = np.interp(
        [0.1 * curve.saturated_tps, curve.saturated_tps], curve.load_tps, curve.power_watts
    )
    assert 1.05 < full / tenth < 1.7  # high floor: a tenfold load raises power about 1.4 times
    parked = GPU_TYPES[gpu].parked_watts * curve.gpus_per_replica
    assert parked < curve.idle_watts < tenth < full <= curve.limit_watts
    assert (np.diff(curve.itl_p95_seconds) > 0).all()


def test_the_measured_point_is_kept() -> None:
    curve = builtin_curve(model="qwen3-14b", gpu="H100")

    assert np.interp(620.0, curve.load_tps, curve.power_watts) == pytest.approx(432.0, rel=0.02)


def test_table_of_curves_agrees_with_each_curve() -> None:
    curves = [builtin_curve(model=model, gpu=gpu) for model, gpu in PAIRS]
    table = CurveTable(curves)
    random = np.random.default_rng(2)

    for share in random.random((50, len(curves))):
        load = share * [curve.saturated_tps for curve in curves]
        for found, name in zip(
            table.at(load),
            ("power_watts", "itl_mean_seconds", "itl_p95_seconds"),
            strict=True,
        ):
            expected = [
                np.interp(x, c.load_tps, getattr(c, name))
                for x, c in zip(load, curves, strict=True)
            ]
            np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_capacity_is_the_largest_load_within_the_objective() -> None:
    curve = builtin_curve(model="llama-3.1-8b", gpu="H100")

    within = curve.capacity_tps(itl_p95_objective_seconds=0.03)

    assert 0 < within < curve.saturated_tps
    assert np.interp(within, curve.load_tps, curve.itl_p95_seconds) <= 0.03
    assert np.interp(within * 1.01, curve.load_tps, curve.itl_p95_seconds) > 0.03
    assert curve.capacity_tps(itl_p95_objective_seconds=9.0) == curve.saturated_tps
    assert curve.capacity_tps(itl_p95_objective_seconds=1e-9) == 0.0


def test_curves_are_read_from_benchmark_rows(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text(
        HEADER
        + "a,m,H100,2,2000,1100,0.03,0.05\n"
        + "a,m,H100,2,1000,900,0.02,\n"
        + "a,m,H100,2,2000,1300,0.03,0.05\n"
        + "b,m,L4,1,10,20,0.1,\n"
    )

    curves = read_curves(path)

    assert list(curves) == ["a"]
    np.testing.assert_allclose(curves["a"].load_tps, [0, 1000, 2000])
    np.testing.assert_allclose(curves["a"].power_watts, [0.16 * 1400, 900, 1200])
    np.testing.assert_allclose(curves["a"].itl_p95_seconds, [0.026, 0.026, 0.05])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("curve_id,model\n", "column 'gpu' is missing", id="column"),
        pytest.param(HEADER, "holds no row", id="empty"),
        pytest.param(HEADER + "a,m,H100,1,nan,5,1,\n", "line 2: output_tokens_per_s", id="nan"),
        pytest.param(HEADER + "a,m,H100,1,5,-3,1,\n", "line 2: power_w is '-3'", id="negative"),
        pytest.param(HEADER + "a,m,H100,1\n", "line 2: output_tokens_per_s is ''", id="short"),
    ],
)
def test_malformed_curve_files_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "curves.csv"
    path.write_text(text)

    with pytest.raises(ScenarioError, match=message):
        read_curves(path)


def test_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        read_curves(tmp_path / "none.csv")


def test_a_curve_that_does_not_start_at_no_load_is_refused() -> None:
    values = np.array([1.0, 2.0])
    with pytest.raises(ScenarioError, match="load_tps must start at 0"):
        ReplicaCurve(
            model_name="m",
            gpu="H100",
            gpus_per_replica=1,
            load_tps=values,
            power_watts=values,
            itl_mean_seconds=values,
            itl_p95_seconds=values,
        )
