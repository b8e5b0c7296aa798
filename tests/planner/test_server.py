"""The planner as its own process with its real entry point, over real sockets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from control_plane import free_port
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from planner_process import ENTRY_POINT, PlannerProcess, PlannerThread, sample_observation
from prometheus import Prometheus

from powercap_planner.config import GridConfig, PrometheusConfig, ServeConfig
from powercap_planner.errors import InputFileError
from powercap_planner.server import PlannerServer
from powercap_planner.service import PlannerService
from powercap_planner.sources.files import write_observation
from powercap_proto.client import (
    PlannerClient,
    PlannerError,
    PlannerNotReady,
    PlannerRefused,
    PlannerUnavailable,
    TlsFiles,
)
from powercap_proto.v1 import planner_pb2 as pb
from powercap_solver.certificate import verify
from powercap_solver.files import plan_from_json, problem_from_json

END = 1_750_000_000.0
SERVICES = ("powercap.planner.v1.Planner", "Planner")
REQUEST = pb.CalculateOptimalReplicasRequest(
    deployments=[
        pb.Deployment(name="alpha", namespace="llm"),
        pb.Deployment(name="beta", namespace="llm"),
    ],
    power_cap_watts=2500,
)

# Runs where only the prototype's own stubs are loaded, as with a client built from it long ago.
PROTOTYPE_CLIENT = """\
import json, sys
import grpc
from powercap_proto.prototype import planner_pb2, planner_pb2_grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    answer = planner_pb2_grpc.PlannerStub(channel).CalculateOptimalReplicas(
        planner_pb2.CalculateOptimalReplicasRequest(
            deployments=[
                planner_pb2.Deployment(name="beta", namespace="llm"),
                planner_pb2.Deployment(name="alpha", namespace="llm"),
            ],
            powerCap=float(sys.argv[2]),
        ),
        timeout=30,
    )
assert not any(name.startswith("powercap_proto.v1") for name in sys.modules)
print(json.dumps([[one.name, one.namespace, one.optimalReplicas]
                  for one in answer.deploymentReplicas]))
"""


@pytest.fixture(scope="module")
def observations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("observations") / "day.json"
    write_observation(path, sample_observation(end_seconds=END))
    return path


def replaying(path: Path, *arguments: str) -> PlannerProcess:
    return PlannerProcess("--observations", str(path), "--observations-clock", "file", *arguments)


def in_process(path: Path) -> PlannerThread:
    return PlannerThread(observations=str(path), observations_clock="file")


@pytest.fixture(scope="module")
def planner(observations: Path) -> Iterator[PlannerProcess]:
    with replaying(observations) as running:
        yield running


@pytest.fixture
def client(planner: PlannerProcess) -> Iterator[PlannerClient]:
    with PlannerClient(planner.target, timeout_seconds=30) as connected:
        yield connected


def replicas(response: pb.CalculateOptimalReplicasResponse) -> dict[str, int]:
    return {one.name: one.optimal_replicas for one in response.deployment_replicas}


def test_plan_comes_with_its_certificate(client):
    response = client.calculate_optimal_replicas(REQUEST)

    (cap,) = response.caps
    assert cap.charged_watts <= cap.cap_watts == 2500
    assert cap.charged_watts + cap.headroom_watts == pytest.approx(2500)
    assert response.status == "optimal"
    assert all(stage.gap <= 1e-6 for stage in response.stages)
    assert response.expires_at.seconds - response.planned_at.seconds == 180
    assert {one.status for one in response.deployment_replicas} == {
        pb.DeploymentReplicas.STATUS_PLANNED
    }
    assert all(one.reason for one in response.deployment_replicas)


def test_larger_cap_never_serves_less(client):
    served = []
    for cap in (1500, 2500, 3500, 4500, 9000):
        request = pb.CalculateOptimalReplicasRequest(
            deployments=REQUEST.deployments,
            power_cap_watts=cap,
            objective=pb.Objective(kind=pb.Objective.KIND_THROUGHPUT),
        )
        response = client.calculate_optimal_replicas(request)
        served.append(sum(one.served_tps * one.weight for one in response.deployment_replicas))

    assert served == sorted(served)
    assert served[0] < served[-1]


def test_client_of_the_published_prototype_works_unchanged(planner, client):
    done = subprocess.run(
        [sys.executable, "-c", PROTOTYPE_CLIENT, planner.target, "2500"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [(name, space) for name, space, _ in answers] == [("beta", "llm"), ("alpha", "llm")]
    assert {name: count for name, _, count in answers} == replicas(
        client.calculate_optimal_replicas(REQUEST)
    )


def test_bare_request_is_never_answered_with_zero(planner):
    done = subprocess.run(
        [sys.executable, "-c", PROTOTYPE_CLIENT, planner.target, "1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert [count for _, _, count in json.loads(done.stdout)] == [1, 1]


def test_deployment_that_is_not_asked_for_is_unmanaged_and_absent(client):
    request = pb.CalculateOptimalReplicasRequest(
        deployments=[pb.Deployment(name="alpha", namespace="llm")], power_cap_watts=4000
    )

    alone = client.calculate_optimal_replicas(request)

    assert set(replicas(alone)) == {"alpha"}
    # beta's three replicas draw at least their loaded idle above what their GPUs draw parked.
    assert alone.caps[0].unmanaged_watts > 3 * (250 - 70)


def test_equal_requests_get_equal_plans(client):
    first = client.calculate_optimal_replicas(REQUEST)
    time.sleep(2.5)
    second = client.calculate_optimal_replicas(REQUEST)

    assert first.plan_id == second.plan_id
    assert replicas(first) == replicas(second)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        pytest.param(
            pb.CalculateOptimalReplicasRequest(deployments=REQUEST.deployments),
            "power_cap_watts",
            id="no-cap",
        ),
        pytest.param(
            pb.CalculateOptimalReplicasRequest(
                deployments=[pb.Deployment(name="nobody", namespace="llm")], power_cap_watts=2500
            ),
            "deployments[0]",
            id="unknown-deployment",
        ),
        pytest.param(
            pb.CalculateOptimalReplicasRequest(
                deployments=[REQUEST.deployments[0]] * 2, power_cap_watts=2500
            ),
            "deployments[1]",
            id="duplicate",
        ),
    ],
)
def test_wrong_request_is_refused_naming_the_field(client, request_, field):
    with pytest.raises(PlannerRefused) as raised:
        client.calculate_optimal_replicas(request_)

    assert raised.value.field == field
    assert "Traceback" not in str(raised.value)


def test_status_gives_measured_watts_at_the_meter(client):
    meters = pb.GetStatusRequest(
        caps=[pb.Cap(), pb.Cap(overhead_factor=1.4, fixed_overhead_watts=300)]
    )

    status = client.get_status(meters)

    bare, metered = status.caps
    assert metered.measured_watts == pytest.approx(1.4 * bare.measured_watts + 300)
    assert bare.age_seconds == 0
    assert bare.source
    assert [one.is_healthy for one in status.sources] == [True]
    assert {one.deployment: one.kind for one in status.models} == {
        "llm/alpha": "fitted",
        "llm/beta": "fitted",
    }


def test_health_answers_for_every_service(planner):
    with grpc.insecure_channel(planner.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        states = [
            stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status
            for name in ("", *SERVICES)
        ]
        with pytest.raises(grpc.RpcError) as raised:
            stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)

    assert set(states) == {health_pb2.HealthCheckResponse.SERVING}
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_describes_both_names(planner):
    with grpc.insecure_channel(planner.target) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        listed = set(database.get_services())
        pool = DescriptorPool(database)
        methods = {name: set(pool.FindServiceByName(name).methods_by_name) for name in SERVICES}

    assert listed > set(SERVICES)
    assert methods == {
        "powercap.planner.v1.Planner": {"CalculateOptimalReplicas", "GetStatus"},
        "Planner": {"CalculateOptimalReplicas"},
    }


def test_deadline_of_the_caller_is_kept_and_the_server_lives_on(client):
    started = time.monotonic()

    with pytest.raises(PlannerUnavailable) as raised:
        client.calculate_optimal_replicas(REQUEST, timeout_seconds=0.001)

    assert raised.value.status is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 5
    assert client.calculate_optimal_replicas(REQUEST).plan_id


def test_rewritten_file_counts_from_the_next_plan(tmp_path):
    path = tmp_path / "day.json"
    write_observation(path, sample_observation(end_seconds=END))

    with in_process(path) as planner, PlannerClient(planner.target, timeout_seconds=30) as client:
        before = client.calculate_optimal_replicas(REQUEST)
        later = tmp_path / "later.json"
        write_observation(later, sample_observation(end_seconds=END + 3600, load_factor=0.3))
        later.replace(path)
        after = client.calculate_optimal_replicas(REQUEST)
        status = client.get_status()

    assert after.planned_at.seconds - before.planned_at.seconds == 3600
    assert after.deployment_replicas[0].load_tps < 0.5 * before.deployment_replicas[0].load_tps
    assert status.time.seconds == END + 3600


def test_file_that_breaks_while_serving_leaves_the_last_snapshot(tmp_path):
    path = tmp_path / "day.json"
    write_observation(path, sample_observation(end_seconds=END))

    with in_process(path) as planner, PlannerClient(planner.target, timeout_seconds=30) as client:
        before = client.calculate_optimal_replicas(REQUEST)
        path.write_text("{broken")
        after = client.calculate_optimal_replicas(REQUEST)
        status = client.get_status()

    assert after.plan_id == before.plan_id
    assert not status.caps[0].HasField("measured_watts")
    assert "not JSON" in status.caps[0].reason
    assert [one.is_healthy for one in status.sources] == [False]


def test_recorded_problem_and_plan_verify(observations, tmp_path):
    with (
        PlannerThread(
            observations=str(observations), observations_clock="file", record=str(tmp_path / "new")
        ) as planner,
        PlannerClient(planner.target, timeout_seconds=30) as client,
    ):
        response = client.calculate_optimal_replicas(REQUEST)

    stem = tmp_path / "new" / response.plan_id
    problem = problem_from_json(Path(f"{stem}.problem.json").read_text())
    plan = plan_from_json(Path(f"{stem}.plan.json").read_text())
    assert verify(problem, plan) == ()
    assert float(plan.upper_watts[0, 0]) == response.caps[0].charged_watts


def test_old_file_is_not_taken_for_the_present(observations):
    with (
        PlannerThread(observations=str(observations)) as planner,
        PlannerClient(planner.target, timeout_seconds=30) as client,
        pytest.raises(PlannerUnavailable, match="holds nothing of the last"),
    ):
        client.calculate_optimal_replicas(REQUEST)


def test_prometheus_that_is_down_is_unavailable():
    nobody = PrometheusConfig(url=f"http://127.0.0.1:{free_port()}")

    with (
        PlannerThread(prometheus=nobody) as planner,
        PlannerClient(planner.target, timeout_seconds=30) as client,
    ):
        with pytest.raises(PlannerUnavailable, match="did not answer"):
            client.calculate_optimal_replicas(REQUEST)
        status = client.get_status()

    assert not status.caps[0].HasField("measured_watts")
    assert "did not answer" in status.caps[0].reason
    assert [one.is_healthy for one in status.sources] == [False]


def test_prometheus_without_the_exporters_is_not_ready(prometheus_binaries):
    with (
        Prometheus(prometheus_binaries) as server,
        PlannerThread(prometheus=PrometheusConfig(url=server.url)) as planner,
        PlannerClient(planner.target, timeout_seconds=30) as client,
        pytest.raises(PlannerNotReady, match="dcgm-exporter"),
    ):
        client.calculate_optimal_replicas(REQUEST)


def test_what_breaks_inside_is_a_reference_into_the_log_and_no_traceback(
    observations, monkeypatch, caplog
):
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(PlannerService, "_plan_now", broken)
    with (
        in_process(observations) as planner,
        PlannerClient(planner.target, timeout_seconds=30) as client,
        pytest.raises(PlannerError) as raised,
    ):
        client.calculate_optimal_replicas(REQUEST)

    assert raised.value.status is grpc.StatusCode.INTERNAL
    assert "secret" not in str(raised.value)
    reference = str(raised.value).split("reference ")[1].split(" ")[0]
    assert any(reference in one.getMessage() and one.exc_info for one in caplog.records)


def test_told_to_stop_it_says_not_serving_first_and_ends_well(observations):
    states: list[int] = []
    with replaying(observations) as planner, grpc.insecure_channel(planner.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="Planner"), timeout=30
        )
        states.append(next(watch).status)

        def read() -> None:
            try:
                states.extend(one.status for one in watch)
            except grpc.RpcError:
                return

        reader = threading.Thread(target=read)
        reader.start()
        assert planner.process is not None
        planner.process.send_signal(signal.SIGTERM)
        code = planner.process.wait(20)
        reader.join(10)

    serving = health_pb2.HealthCheckResponse
    assert states == [serving.SERVING, serving.NOT_SERVING]
    assert code == 0


def test_log_of_a_plan_says_what_was_decided_and_why(planner, client):
    fresh = pb.CalculateOptimalReplicasRequest()
    fresh.CopyFrom(REQUEST)
    fresh.valid_seconds = 77

    response = client.calculate_optimal_replicas(fresh)
    event = planner.wait_for("planned")
    while event["plan_id"] != response.plan_id:
        event = planner.wait_for("planned")

    assert event["plan_id"] == response.plan_id
    assert event["cap_watts"] == 2500
    assert event["charged_watts"] == pytest.approx(response.caps[0].charged_watts)
    assert event["headroom_watts"] == pytest.approx(response.caps[0].headroom_watts)
    assert event["rung"] == response.rung
    assert event["gap"] <= 1e-6
    now, allowed, reason = event["replicas"]["llm/alpha"]
    assert (now, allowed) == (4, replicas(response)["alpha"])
    assert reason
    assert planner.other_output == []


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def test_mutual_tls_lets_in_only_who_has_a_certificate(observations, certificates):
    leaf, key, root = (certificates / name for name in ("leaf.crt", "leaf.key", "ca.crt"))
    flags = ("--tls-certificate", leaf, "--tls-key", key, "--tls-client-ca", root)

    with replaying(observations, *map(str, flags)) as planner:
        tls = TlsFiles(ca=root, certificate=leaf, key=key)
        with PlannerClient(planner.target, tls=tls, timeout_seconds=30) as client:
            plan_id = client.calculate_optimal_replicas(REQUEST).plan_id
        refused = []
        for wrong in (TlsFiles(ca=root), None):
            with PlannerClient(planner.target, tls=wrong, timeout_seconds=5) as client:
                try:
                    client.get_status()
                except PlannerUnavailable as error:
                    refused.append(error)

    assert plan_id
    assert len(refused) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--observations", "nowhere.json"], "cannot be read", id="no-file"),
        pytest.param(["--observations", "GOOD", "--listen", "127.0.0.1:BUSY"], "listen", id="port"),
        pytest.param(["--log-level", "loud"], "log_level: is 'loud'", id="log-level"),
    ],
)
def test_mistake_at_start_is_one_line_and_exit_code_2(planner, observations, arguments, message):
    names = {"GOOD": str(observations)}
    given = [names.get(one, one.replace("BUSY", str(planner.port))) for one in arguments]

    done = subprocess.run(
        [ENTRY_POINT, *given], capture_output=True, text=True, timeout=60, check=False
    )

    said = [one for one in done.stderr.splitlines() if not one.startswith("{")]
    assert done.returncode == 2, done.stderr
    assert message in said[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"grid": GridConfig(price_file="nowhere.csv")}, "cannot be read", id="price"),
        pytest.param(
            {"tls_key": "nowhere.pem", "tls_certificate": "x"},
            "tls_key: nowhere.pem cannot be read",
            id="key",
        ),
        pytest.param({"observations": "BROKEN"}, "not JSON", id="broken-file"),
    ],
)
def test_file_of_the_configuration_that_cannot_be_used_is_named(
    observations, tmp_path, settings, message
):
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    given = {"observations": str(observations), **settings}
    if given["observations"] == "BROKEN":
        given["observations"] = str(broken)

    with pytest.raises(InputFileError, match=message):
        PlannerServer(ServeConfig(**given))
