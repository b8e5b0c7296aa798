"""Small problems by hand for the solver's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from powercap_solver.problem import PlanningProblem

settings.register_profile("solver", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("solver")


def _one_cap(
    *,
    served: list[list[float]],
    watts_per_replica: list[float],
    cap: float,
    power: list[list[float]] | None = None,
    **fields: Any,
) -> PlanningProblem:
    table = np.array(served, dtype=float)[:, None, :]
    deployments, _, options = table.shape
    replicas = np.tile(np.arange(options), (deployments, 1))
    upper = replicas * np.array(watts_per_replica, dtype=float)[:, None]
    mean = upper * 0.8 if power is None else np.array(power, dtype=float)
    values: dict[str, Any] = {
        "deployments": tuple(f"test/{'abcdefgh'[index]}" for index in range(deployments)),
        "domains": ("cluster",),
        "zones": ("zone",),
        "period_seconds": np.array([300.0]),
        "option_count": np.full(deployments, options),
        "replicas": replicas,
        "served_tps": table,
        "power_watts": mean[:, None, :],
        "draw_domain": np.zeros(deployments, dtype=np.int64),
        "draw_deployment": np.arange(deployments),
        "upper_watts": upper[:, None, :],
        "load_tps": table[:, :, -1],
        "weight": np.ones(deployments),
        "priority": np.zeros(deployments, dtype=np.int64),
        "min_replicas": np.zeros(deployments, dtype=np.int64),
        "min_served_fraction": np.zeros(deployments),
        "served_share": np.full((deployments, 1), 0.998),
        "is_ceiling": np.ones(deployments, dtype=bool),
        "replicas_in_force": np.full(deployments, -1),
        "zone_index": np.zeros(deployments, dtype=np.int64),
        "energy_weight": np.ones((1, 1)),
        "zone_base_watts": np.full((1, 1), 100.0),
        "cap_watts": np.array([[float(cap)]]),
        "overhead_factor": np.ones(1),
        "fixed_overhead_watts": np.zeros(1),
        "base_watts": np.zeros((1, 1)),
        "unmanaged_watts": np.zeros((1, 1)),
        "fixed_watts": np.zeros((1, 1)),
    }
    for name, value in fields.items():
        default = values.get(name)
        if isinstance(default, np.ndarray):
            values[name] = np.asarray(value, dtype=default.dtype).reshape(default.shape)
        else:
            values[name] = value
    return PlanningProblem(**values)


@pytest.fixture
def one_cap() -> Callable[..., PlanningProblem]:
    """Build a problem of one cap and one period from short tables; see its arguments."""
    return _one_cap
