"""Serving as vLLM does it, in the fluid limit, for all deployments at once.

Data per deployment and tick: arrived tokens, ready replicas, the curve. A replica batches what it
has: up to its saturated throughput everything that arrives is served within the tick, beyond it a
queue grows. Running requests follow from Little's law (each emits one token per mean inter-token
latency). Requests that would wait longer than the deployment's patience are given up.

    arrived = served + given up + growth of the queue        (tokens, every tick)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from powercap_simulator.curves import CurveTable
from powercap_simulator.scenario import DeploymentSpec

FloatArray = NDArray[np.float64]

TTFT_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0, np.inf,
)  # fmt: skip
"""Default bounds of ``vllm:time_to_first_token_seconds``, s."""
ITL_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0, np.inf,
)  # fmt: skip
"""Default bounds of ``vllm:inter_token_latency_seconds``, s."""

COUNTERS = ("prompt_tokens", "generation_tokens", "finished", "aborted", "ttft_sum", "itl_sum")
TTFT_SLICE = slice(len(COUNTERS), len(COUNTERS) + len(TTFT_BUCKETS))
ITL_SLICE = slice(TTFT_SLICE.stop, TTFT_SLICE.stop + len(ITL_BUCKETS))
COUNTER_WIDTH = ITL_SLICE.stop
"""Columns of the counters: ``COUNTERS``, then cumulative TTFT and ITL buckets."""

# Latencies are spread log-normally; only the 95th percentile is known.
_SPREAD = 0.4
_Z95 = 1.6448536269514722
_FOLD_TICKS = 500
_SCORES = np.linspace(-6.0, 6.0, 481)
_NORMAL = np.array([0.5 * math.erfc(-score / math.sqrt(2)) for score in _SCORES])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServedTick:
    """What one tick did; every array float64[deployment]."""

    arrived_tokens: FloatArray
    served_tokens: FloatArray
    aborted_tokens: FloatArray
    load_per_replica_tps: FloatArray
    power_per_replica_watts: FloatArray
    """GPUs of one ready replica, noise apart."""
    running_requests: FloatArray
    waiting_requests: FloatArray
    ttft_p95_seconds: FloatArray
    """NaN where nothing ran."""
    itl_p95_seconds: FloatArray
    """NaN where nothing ran."""


class Serving:
    """Queues of all deployments."""

    def __init__(self, deployments: tuple[DeploymentSpec, ...]) -> None:
        curves = [deployment.curve for deployment in deployments]
        self._table = CurveTable(curves)
        self._saturated = np.array([curve.saturated_tps for curve in curves])
        self._output = np.array([d.workload.output_tokens for d in deployments])
        self._prompt = np.array([d.workload.prompt_tokens for d in deployments])
        self._patience = np.array([d.patience_seconds for d in deployments])
        self._prefill = np.array([curve.prefill_seconds for curve in curves])
        self.queue_tokens = np.zeros(len(deployments))
        """float64[deployment]: generated tokens asked for and not begun."""
        self._counters = np.zeros((len(deployments), COUNTER_WIDTH))
        self._uncounted: list[tuple[FloatArray, ...]] = []

    def serve(self, *, arrived_tokens: FloatArray, ready: FloatArray, seconds: float) -> ServedTick:
        """Serve one tick of ``seconds`` with ``ready`` replicas of each deployment."""
        able = ready * self._saturated
        asked = self.queue_tokens + arrived_tokens
        served = np.minimum(asked, able * seconds)
        queue = asked - served
        # Without a single ready replica clients wait for one replica to come up.
        patient = np.maximum(able, self._saturated) * self._patience
        aborted = np.maximum(0.0, queue - patient)
        self.queue_tokens = queue - aborted
        replicas = np.maximum(ready, 1.0)
        load = served / seconds / replicas
        power, mean, p95 = self._table.at(load)
        running = served / seconds * mean
        wait = np.where(able > 0, self.queue_tokens / np.maximum(able, 1e-9), np.nan)
        is_active = (ready > 0) & (served > 0)
        tick = ServedTick(
            arrived_tokens=arrived_tokens,
            served_tokens=served,
            aborted_tokens=aborted,
            load_per_replica_tps=load,
            power_per_replica_watts=power,
            running_requests=running,
            waiting_requests=self.queue_tokens / self._output,
            ttft_p95_seconds=np.where(is_active, self._prefill + wait, np.nan),
            itl_p95_seconds=np.where(is_active, p95, np.nan),
        )
        self._count(tick, mean, replicas, is_active)
        return tick

    @property
    def counters(self) -> FloatArray:
        """float64[deployment, counter]: what one replica, ready since the start, has counted."""
        if self._uncounted:
            self._fold()
        return self._counters

    def _count(
        self, tick: ServedTick, mean: FloatArray, replicas: FloatArray, is_active: NDArray[np.bool_]
    ) -> None:
        """Remember what is to be counted; counting many ticks at once is much cheaper."""
        self._uncounted.append(
            (
                tick.served_tokens / replicas,
                tick.aborted_tokens / replicas,
                np.where(is_active, tick.ttft_p95_seconds, 1.0),
                np.where(is_active, tick.itl_p95_seconds, 1.0),
                mean,
            )
        )
        if len(self._uncounted) >= _FOLD_TICKS:
            self._fold()

    def _fold(self) -> None:
        tokens, aborted, ttft, itl, mean = np.array(self._uncounted).transpose(1, 0, 2)
        self._uncounted.clear()
        requests = tokens / self._output
        mean_over_p95 = np.exp(_SPREAD * (_SPREAD / 2 - _Z95))
        counters = self._counters
        counters[:, 0] += (requests * self._prompt).sum(axis=0)
        counters[:, 1] += tokens.sum(axis=0)
        counters[:, 2] += requests.sum(axis=0)
        counters[:, 3] += (aborted / self._output).sum(axis=0)
        counters[:, 4] += (requests * ttft * mean_over_p95).sum(axis=0)
        counters[:, 5] += (tokens * mean).sum(axis=0)
        counters[:, TTFT_SLICE] += (requests[..., None] * _share_below(ttft, TTFT_BUCKETS)).sum(
            axis=0
        )
        counters[:, ITL_SLICE] += (tokens[..., None] * _share_below(itl, ITL_BUCKETS)).sum(axis=0)


def _share_below(p95_seconds: FloatArray, bounds: tuple[float, ...]) -> FloatArray:
    score = np.log(np.asarray(bounds) / p95_seconds[..., None]) / _SPREAD + _Z95
    share: FloatArray = np.interp(score, _SCORES, _NORMAL)
    return share
