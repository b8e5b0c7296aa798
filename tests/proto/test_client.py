"""The Planner client against real servers on loopback: deadlines, errors, TLS."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from control_plane import free_port
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from powercap_proto.client import (
    AsyncPlannerClient,
    PlannerClient,
    PlannerError,
    PlannerNotReady,
    PlannerRefused,
    PlannerUnavailable,
    TlsFiles,
)
from powercap_proto.v1 import planner_pb2 as pb
from powercap_proto.v1 import planner_pb2_grpc

REQUEST = pb.CalculateOptimalReplicasRequest(power_cap_watts=1000)
Answer = Callable[[grpc.ServicerContext], pb.CalculateOptimalReplicasResponse]


class Planner(planner_pb2_grpc.PlannerServicer):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def CalculateOptimalReplicas(self, request, context):  # noqa: N802 (of the contract)
        return self.answer(context)

    def GetStatus(self, request, context):  # noqa: N802 (of the contract)
        return pb.GetStatusResponse(caps=[pb.CapStatus(name="cluster", measured_watts=5.0)])


@contextmanager
def serving(answer: Answer, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    planner_pb2_grpc.add_PlannerServicer_to_server(Planner(answer), server)
    port = (
        server.add_insecure_port("127.0.0.1:0")
        if credentials is None
        else server.add_secure_port("127.0.0.1:0", credentials)
    )
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def planned(_: grpc.ServicerContext) -> pb.CalculateOptimalReplicasResponse:
    return pb.CalculateOptimalReplicasResponse(plan_id="p1")


def failing(code: grpc.StatusCode) -> Answer:
    def answer(context: grpc.ServicerContext) -> pb.CalculateOptimalReplicasResponse:
        context.abort(code, "because")

    return answer


def refusing(context: grpc.ServicerContext) -> pb.CalculateOptimalReplicasResponse:
    violation = error_details_pb2.BadRequest.FieldViolation(field="deployments[1].weight")
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="is -1")
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    context.abort_with_status(rpc_status.to_status(status))


def too_slow(context: grpc.ServicerContext) -> pb.CalculateOptimalReplicasResponse:
    time.sleep(0.6)
    return planned(context)


def call_sync(target: str, **options) -> pb.CalculateOptimalReplicasResponse:
    with PlannerClient(target, **options) as client:
        return client.calculate_optimal_replicas(REQUEST)


def call_aio(target: str, **options) -> pb.CalculateOptimalReplicasResponse:
    async def call() -> pb.CalculateOptimalReplicasResponse:
        async with AsyncPlannerClient(target, **options) as client:
            return await client.calculate_optimal_replicas(REQUEST)

    return asyncio.run(call())


both = pytest.mark.parametrize(
    "call", [pytest.param(call_sync, id="sync"), pytest.param(call_aio, id="aio")]
)


@both
def test_answer_comes_back(call):
    with serving(planned) as target:
        assert call(target).plan_id == "p1"


def test_status_needs_no_request():
    async def ask(target: str) -> pb.GetStatusResponse:
        async with AsyncPlannerClient(target) as client:
            return await client.get_status()

    with serving(planned) as target, PlannerClient(target) as client:
        assert client.get_status().caps[0].measured_watts == 5.0
        assert asyncio.run(ask(target)).caps[0].measured_watts == 5.0


@both
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, PlannerRefused),
        (grpc.StatusCode.FAILED_PRECONDITION, PlannerNotReady),
        (grpc.StatusCode.UNAVAILABLE, PlannerUnavailable),
        (grpc.StatusCode.INTERNAL, PlannerError),
    ],
)
def test_status_code_becomes_an_error_of_the_tree(call, code, kind):
    with serving(failing(code)) as target, pytest.raises(PlannerError, match="because") as raised:
        call(target)

    assert type(raised.value) is kind
    assert raised.value.status is code
    assert raised.value.field == ""


@both
def test_refusal_names_the_field(call):
    with serving(refusing) as target, pytest.raises(PlannerRefused) as raised:
        call(target)

    assert raised.value.field == "deployments[1].weight"


@both
def test_every_call_has_a_deadline(call):
    started = time.monotonic()

    with serving(too_slow) as target, pytest.raises(PlannerUnavailable) as raised:
        call(target, timeout_seconds=0.2)

    assert raised.value.status is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 5


@both
def test_nobody_there_is_unavailable(call):
    with pytest.raises(PlannerUnavailable):
        call(f"127.0.0.1:{free_port()}", timeout_seconds=5)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_deadline_must_be_one(seconds):
    with pytest.raises(ValueError, match="timeout_seconds"):
        PlannerClient("127.0.0.1:1", timeout_seconds=seconds)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a root, and a certificate of 127.0.0.1 that serves both ends."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "leaf.cnf").write_text("subjectAltName=IP:127.0.0.1\n")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    for command in (
        f"req -x509 {key} -days 2 -subj /CN=root -keyout ca.key -out ca.crt",
        f"req {key} -subj /CN=planner -keyout leaf.key -out leaf.csr",
        "x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2"
        " -extfile leaf.cnf -out leaf.crt",
    ):
        subprocess.run(
            ["openssl", *command.split()], cwd=folder, check=True, capture_output=True, timeout=30
        )
    return folder


def mutual(folder: Path) -> grpc.ServerCredentials:
    pair = ((folder / "leaf.key").read_bytes(), (folder / "leaf.crt").read_bytes())
    return grpc.ssl_server_credentials(
        [pair], root_certificates=(folder / "ca.crt").read_bytes(), require_client_auth=True
    )


@both
def test_mutual_tls(call, certificates):
    tls = TlsFiles(
        ca=certificates / "ca.crt",
        certificate=certificates / "leaf.crt",
        key=certificates / "leaf.key",
    )

    with serving(planned, mutual(certificates)) as target:
        assert call(target, tls=tls).plan_id == "p1"


@both
def test_without_its_certificate_a_client_is_turned_away(call, certificates):
    with serving(planned, mutual(certificates)) as target, pytest.raises(PlannerUnavailable):
        call(target, tls=TlsFiles(ca=certificates / "ca.crt"), timeout_seconds=5)


def test_certificate_without_key_is_refused(certificates):
    with pytest.raises(ValueError, match="certificate and key"):
        TlsFiles(certificate=certificates / "leaf.crt").credentials()
