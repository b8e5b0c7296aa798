"""What the Prometheus client makes of answers: good, odd, partial, late and wrong ones."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from powercap_planner.config import PrometheusConfig
from powercap_planner.errors import SourceError
from powercap_planner.sources.prometheus_api import MAX_POINTS, PrometheusApi


class Answers:
    """An HTTP server that answers what the test puts here, and keeps what was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.body: bytes | list[bytes] = b""
        self.delay_seconds = 0.0
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parsed = urllib.parse.urlparse(self.path)
                arguments = urllib.parse.parse_qs(parsed.query)
                answers.asked.append(
                    {"path": parsed.path, **{key: one[0] for key, one in arguments.items()}}
                )
                answers.headers.append(dict(self.headers))
                time.sleep(answers.delay_seconds)
                body = answers.body
                content = body if isinstance(body, bytes) else body[len(answers.asked) - 1]
                self.send_response(answers.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                try:
                    self.wfile.write(content)
                except BrokenPipeError:
                    return

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def answers() -> Iterator[Answers]:
    made = Answers()
    yield made
    made.close()


@pytest.fixture
def api(answers: Answers) -> Iterator[PrometheusApi]:
    made = PrometheusApi(PrometheusConfig(url=f"{answers.url}/prefix/", timeout_seconds=1.0))
    yield made
    made.close()


def success(result: list[dict[str, Any]], **more: object) -> bytes:
    document = {"status": "success", "data": {"resultType": "vector", "result": result}, **more}
    return json.dumps(document).encode()


def instant(name: str, value: str) -> dict[str, Any]:
    return {"metric": {"pod": name}, "value": [1_700_000_000.5, value]}


def test_values_are_strings_and_some_are_no_numbers(answers, api):
    answers.body = success([instant("a", "1.5"), instant("b", "NaN"), instant("c", "+Inf")])

    values = [one.points[0][1] for one in api.instant("up", at_seconds=1_700_000_000.5)]

    assert values[0] == 1.5
    assert math.isnan(values[1])
    assert values[2] == math.inf


def test_order_of_the_answer_does_not_matter(answers, api):
    answers.body = success([instant("b", "2"), instant("a", "1")])

    assert [one.labels["pod"] for one in api.instant("up", at_seconds=1.0)] == ["a", "b"]


def test_query_carries_its_time_and_a_timeout_for_the_server(answers, api):
    answers.body = success([])

    api.instant("up", at_seconds=1_700_000_000.25)

    assert answers.asked == [
        {
            "path": "/prefix/api/v1/query",
            "query": "up",
            "time": "1700000000.250",
            "timeout": "1000ms",
        }
    ]


def test_long_range_is_asked_in_parts_and_joined(answers, api):
    metric = {"metric": {"pod": "a"}}
    answers.body = [
        success([{**metric, "values": [[0, "1"]]}]),
        success([{**metric, "values": [[MAX_POINTS * 5, "2"]]}]),
    ]

    (series,) = api.range("up", start_seconds=0, end_seconds=MAX_POINTS * 5, step_seconds=5)

    assert series.points == ((0, 1), (MAX_POINTS * 5, 2))
    ends = [(int(one["start"]), int(one["end"])) for one in answers.asked]
    assert ends == [(0, 5 * (MAX_POINTS - 1)), (5 * MAX_POINTS, 5 * MAX_POINTS)]


def test_warnings_of_the_server_are_kept(answers, api):
    answers.body = success([], warnings=["store rack-3 is down"])

    api.instant("up", at_seconds=1.0)

    assert api.take_warnings() == ("store rack-3 is down",)
    assert api.take_warnings() == ()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        pytest.param(400, b'{"status":"error","error":"parse error"}', "parse error", id="refused"),
        pytest.param(401, b"who are you", "401", id="unauthorised"),
        pytest.param(200, b"<html>log in</html>", "did not answer", id="html"),
        pytest.param(200, b'{"status":"success"}', "like a Prometheus", id="no-data"),
        pytest.param(200, b'{"data":{"result":{}}}', "no list of series", id="no-list"),
        pytest.param(200, b'{"data":{"result":[{"metric":{}}]}}', "malformed", id="no-value"),
        pytest.param(
            200,
            b'{"data":{"result":[{"metric":{},"value":[1,"many"]}]}}',
            "malformed",
            id="no-number",
        ),
    ],
)
def test_wrong_answer_is_one_error(answers, api, status, body, message):
    answers.status, answers.body = status, body

    with pytest.raises(SourceError, match=message):
        api.instant("up", at_seconds=1.0)


def test_unavailable_server_is_asked_again_only_once(answers, api):
    answers.status, answers.body = 503, b"starting"

    with pytest.raises(SourceError, match="503"):
        api.instant("up", at_seconds=1.0)

    assert len(answers.asked) == 2


def test_server_that_hangs_is_left_after_the_timeout(answers, api):
    answers.body, answers.delay_seconds = success([]), 3.0
    started = time.monotonic()

    with pytest.raises(SourceError, match="did not answer"):
        api.instant("up", at_seconds=1.0)

    assert time.monotonic() - started < 4


def test_rotated_token_is_read_again(answers, tmp_path):
    token = tmp_path / "token"
    answers.body = success([])
    api = PrometheusApi(PrometheusConfig(url=answers.url, bearer_token_file=str(token)))

    token.write_text("first\n")
    api.instant("up", at_seconds=1.0)
    token.write_text("second\n")
    api.instant("up", at_seconds=1.0)

    sent = [one["Authorization"] for one in answers.headers]
    assert sent == ["Bearer first", "Bearer second"]
    token.unlink()
    with pytest.raises(SourceError, match="bearer_token_file"):
        api.instant("up", at_seconds=1.0)
    api.close()


def test_recorded_answer_of_an_old_kepler_is_read(answers, api, real_data: Path):
    recorded = (
        real_data
        / "metrics_samples"
        / "kepler_v0_old"
        / "query_range__kepler_container_package_joules_total.json"
    )
    answers.body = recorded.read_bytes()
    entries = json.loads(answers.body)["data"]["result"]

    series = api.range("recorded", start_seconds=0, end_seconds=60, step_seconds=15)

    assert len(series) == len(entries)
    assert {one.labels["mode"] for one in series} == {"dynamic", "idle"}
    assert sum(len(one.points) for one in series) == sum(len(one["values"]) for one in entries)
    assert all(value >= 0 for one in series for _, value in one.points)
