"""Prometheus's HTTP API through prometheus-api-client, with what that library leaves out.

A timeout on every query (at the server too), bounded retries, range queries cut below the
server's 11,000 points, one error type, results in a defined order, and the server's warnings,
which the library drops although they tell that an answer is partial.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import requests
from prometheus_api_client.exceptions import PrometheusApiClientException
from prometheus_api_client.prometheus_connect import PrometheusConnect
from urllib3.util.retry import Retry

from powercap_planner.config import PrometheusConfig
from powercap_planner.errors import SourceError

MAX_POINTS = 10_000
"""Per series and range query; the server refuses more than 11,000."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series of an answer: its labels and (Unix time in s, value) points, NaN and Inf kept."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]


class PrometheusApi:
    """Asks one Prometheus; for one thread at a time."""

    def __init__(self, config: PrometheusConfig) -> None:
        self._config = config
        session = requests.Session()
        if config.ca_file:
            session.verify = config.ca_file
        session.hooks["response"].append(self._keep_warnings)
        self._connect = PrometheusConnect(
            url=config.url.rstrip("/"),
            session=session,
            # Hinted as int; requests takes any number of seconds.
            timeout=cast(int, config.timeout_seconds),
            # The library's own default takes 6 s to report a refused connection.
            retry=Retry(
                total=1,
                backoff_factor=0.2,
                backoff_jitter=0.2,
                status_forcelist=(502, 503, 504),
                raise_on_status=False,
            ),
        )
        self._warnings: list[str] = []

    def instant(self, promql: str, *, at_seconds: float) -> tuple[Series, ...]:
        """Return the value of each series at a moment, in order of the labels.

        Raises:
            SourceError: no answer, or not the documented one.
        """
        parameters = {"time": f"{at_seconds:.3f}", "timeout": self._timeout}
        return _sorted(
            _series(entry)
            for entry in self._ask(self._connect.custom_query, promql, params=parameters)
        )

    def range(
        self, promql: str, *, start_seconds: int, end_seconds: int, step_seconds: int
    ) -> tuple[Series, ...]:
        """Return the values of each series at each step, both ends included.

        Raises:
            SourceError: no answer, or not the documented one.
        """
        merged: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        for first in range(start_seconds, end_seconds + 1, step_seconds * MAX_POINTS):
            last = min(first + step_seconds * (MAX_POINTS - 1), end_seconds)
            answer = self._ask(
                self._connect.custom_query_range,
                promql,
                start_time=datetime.fromtimestamp(first, UTC),
                end_time=datetime.fromtimestamp(last, UTC),
                step=str(step_seconds),
                params={"timeout": self._timeout},
            )
            for entry in answer:
                part = _series(entry)
                merged.setdefault(tuple(sorted(part.labels.items())), []).extend(part.points)
        return _sorted(
            Series(labels=dict(key), points=tuple(points)) for key, points in merged.items()
        )

    def take_warnings(self) -> tuple[str, ...]:
        """Return the server's warnings since the last call."""
        taken = tuple(sorted(set(self._warnings)))
        self._warnings.clear()
        return taken

    def close(self) -> None:
        """Close the connections."""
        self._connect.close()

    @property
    def _timeout(self) -> str:
        return f"{max(1, int(self._config.timeout_seconds * 1000))}ms"

    def _ask(self, call: Any, promql: str, **arguments: Any) -> list[dict[str, Any]]:
        url = self._config.url
        self._connect.headers = self._headers()
        try:
            result = call(promql, **arguments)
        except PrometheusApiClientException as error:
            raise SourceError(f"prometheus {url} refused a query: {error}: {promql}") from error
        except requests.RequestException as error:
            raise SourceError(f"prometheus {url} did not answer: {_reason(error)}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"{url} does not answer like a Prometheus: {error!r}") from error
        if not isinstance(result, list):
            raise SourceError(f"{url} does not answer like a Prometheus: no list of series")
        return result

    def _headers(self) -> dict[str, str]:
        if not self._config.bearer_token_file:
            return {}
        try:
            token = Path(self._config.bearer_token_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SourceError(
                f"prometheus.bearer_token_file {self._config.bearer_token_file}: {error.strerror}"
            ) from error
        return {"Authorization": f"Bearer {token}"}

    def _keep_warnings(self, response: requests.Response, **_: object) -> None:
        # Warnings follow the data: look at the end only, answers can be large.
        if b'"warnings":' in response.content[-4096:]:
            try:
                found = json.loads(response.content).get("warnings", [])
            except ValueError:
                return
            self._warnings.extend(str(one) for one in found)
            _log.warning("prometheus answers with warnings: %s", found)


def _series(entry: dict[str, Any]) -> Series:
    try:
        points = entry["values"] if "values" in entry else [entry["value"]]
        return Series(
            labels={str(key): str(value) for key, value in entry["metric"].items()},
            points=tuple((float(moment), float(value)) for moment, value in points),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"prometheus: a series of the answer is malformed: {error!r}") from error


def _sorted(series: Iterator[Series]) -> tuple[Series, ...]:
    return tuple(sorted(series, key=lambda one: sorted(one.labels.items())))


def _reason(error: requests.RequestException) -> str:
    # The text of a connection error nests three exceptions; its class says it shorter.
    if isinstance(error, requests.Timeout):
        return "timed out"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)
