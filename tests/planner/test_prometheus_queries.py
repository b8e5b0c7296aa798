"""Every query the planner sends: accepted by Prometheus, unit-tested, and documented."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from powercap_planner.config import PrometheusLabels
from powercap_planner.sources.promql import Expressions, KeplerFlavour, Query
from powercap_planner.sources.queries import all_queries, flavour_of, inventory

ROOT = Path(__file__).resolve().parents[2]
WINDOW = 120
AT = "10m"


def expressions(
    flavour: KeplerFlavour = KeplerFlavour.REWRITE, labels: PrometheusLabels | None = None
) -> Expressions:
    return Expressions(window_seconds=WINDOW, flavour=flavour, labels=labels or PrometheusLabels())


def written(path: Path, content: object) -> Path:
    # JSON is YAML.
    path.write_text(json.dumps(content))
    return path


def rules(queries: Iterable[Query]) -> dict[str, object]:
    listed = [{"record": f"powercap:{one.name}", "expr": one.promql} for one in queries]
    return {"groups": [{"name": "powercap", "rules": listed}]}


def promtool(binaries: Path, *arguments: object) -> None:
    done = subprocess.run(
        [binaries / "promtool", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def series(text: str, values: str) -> dict[str, str]:
    return {"series": text, "values": values}


def pods(name: str, *, namespace: str, count: int, gpus: int) -> list[dict[str, str]]:
    """Return a deployment with its owner chain, from two copies of kube-state-metrics."""
    found = []
    for copy in ("a", "b"):
        common = f'namespace="{namespace}",instance="{copy}"'
        found.append(
            series(
                f'kube_replicaset_owner{{{common},replicaset="{name}-rs",'
                f'owner_kind="Deployment",owner_name="{name}"}}',
                "1x20",
            )
        )
        for pod in range(count):
            one = f'{common},pod="{name}-{pod}"'
            found += [
                series(
                    f'kube_pod_owner{{{one},owner_kind="ReplicaSet",owner_name="{name}-rs"}}',
                    "1x20",
                ),
                series(f'kube_pod_status_phase{{{one},phase="Running"}}', "1x20"),
                series(
                    f'kube_pod_container_resource_requests{{{one},container="server",'
                    'resource="nvidia_com_gpu"}',
                    f"{gpus}x20",
                ),
            ]
    return found


def gpu(uuid: str, more: str, values: str) -> dict[str, str]:
    name = f'DCGM_FI_DEV_POWER_USAGE{{UUID="{uuid}",modelName="H100",Hostname="n1",{more}}}'
    return series(name, values)


DATA = [
    *pods("alpha", namespace="llm", count=2, gpus=1),
    # The same names elsewhere are other pods.
    *pods("alpha", namespace="batch", count=1, gpus=1),
    gpu("1", 'exported_namespace="llm",exported_pod="alpha-0",pod="dcgm"', "300x20"),
    gpu("2", 'namespace="llm",pod="alpha-1"', "310x20"),
    gpu("3", 'namespace="batch",pod="alpha-0"', "9223372036854775794x20"),
    gpu("4", 'pod="dcgm",namespace="monitoring"', "70x20"),
    # One device, twice: MIG instances repeat its watts.
    gpu("2", 'namespace="llm",pod="alpha-1",GPU_I_ID="1"', "310x20"),
    *(
        series(
            f'kepler_pod_cpu_watts{{pod_namespace="llm",pod_name="alpha-{pod}",'
            f'zone="{zone}",state="{state}"}}',
            "40x20",
        )
        for pod in range(2)
        for zone in ("package", "psys")
        for state in ("running", "terminated")
    ),
    series('kepler_node_cpu_watts{node_name="n1",zone="package",path="/0"}', "180x20"),
    series('kepler_node_cpu_watts{node_name="n1",zone="psys",path="/0"}', "250x20"),
    # Fell silent four minutes ago, at 90 W with a peak of 130 W before.
    series('kepler_node_cpu_watts{node_name="n2",zone="package",path="/0"}', "130x3 90x3 stale"),
    # A node that is gone: its GPU and host are no longer expected.
    series('kube_node_info{node="n1",instance="a"}', "1x20"),
    series('kube_node_info{node="n2",instance="a"}', "1x20"),
    series('kube_node_info{node="n3",instance="a"}', "1x5 stale"),
    series(
        'DCGM_FI_DEV_POWER_USAGE{UUID="5",modelName="H100",hostname="n3",pod="dcgm"}', "70x5 stale"
    ),
    series('kepler_node_cpu_watts{node_name="n3",zone="package",path="/0"}', "90x5 stale"),
    *(
        series(
            f'kube_node_status_{metric}{{node="n1",resource="nvidia_com_gpu",instance="{copy}"}}',
            f"{count}x20",
        )
        for metric, count in (("capacity", 5), ("allocatable", 4))
        for copy in ("a", "b")
    ),
    series('kepler_node_cpu_idle_watts{node_name="n1",zone="package",path="/0"}', "100x20"),
    *(
        series(
            f'kepler_container_package_joules_total{{container_namespace="llm",'
            f'pod_name="alpha-{pod}",container_name="s",container_id="{pod}",mode="{mode}",'
            'namespace="kepler",pod="kepler-0"}',
            values,
        )
        for pod in range(2)
        for mode, values in (("dynamic", "0+2400x20"), ("idle", "0+1200x20"))
    ),
    series(
        'kepler_node_package_joules_total{instance="n1:9102",package="0",mode="dynamic"}',
        "0+4800x20",
    ),
    series(
        'kepler_node_package_joules_total{instance="n1:9102",package="0",mode="idle"}', "0+6000x20"
    ),
]
LLM = 'namespace="llm", deployment="alpha"'
BATCH = 'namespace="batch", deployment="alpha"'


def expected(name: str, samples: dict[str, float]) -> dict[str, object]:
    found = [
        {"labels": f"powercap:{name}{{{labels}}}", "value": value}
        for labels, value in samples.items()
    ]
    return {"expr": f"powercap:{name}", "eval_time": AT, "exp_samples": found}


COMMON = [
    # Both label styles, MIG once, and the sentinel's GPU in no sum.
    expected("gpu_watts", {LLM: 610}),
    expected("gpus_measured", {LLM: 2}),
    # What is missing shows against what was requested.
    expected("gpus_running", {LLM: 2, BATCH: 1}),
    expected("gpus_per_replica", {LLM: 1, BATCH: 1}),
    expected("gpu_types", {f'{LLM}, modelName="H100"': 2}),
    expected("pods", {LLM: 2, BATCH: 1}),
    expected("host_watts", {LLM: 80}),
    expected("host_pods", {LLM: 2}),
    expected("gpu_count", {'modelName="H100"': 4}),
    expected("parked_gpu_watts", {'modelName="H100"': 70}),
    expected("host_idle_watts", {"": 100}),
    expected("gpu_values_dropped", {"": 1}),
    expected("gpus_shared", {}),
    expected("gpu_total_watts", {"": 680}),
    expected("gpus_valued", {"": 3}),
    expected("gpus_known", {"": 4}),
    expected("gpu_hosts", {'node="n1"': 4}),
    expected("silent_gpus", {}),
    expected("kube_gpus", {'node="n1"': 5}),
    expected("nodes", {'node="n1"': 1, 'node="n2"': 1}),
    # No servers are scraped: an empty answer, not a zero.
    expected("served_tps", {}),
    expected("serving_pods", {}),
    expected("ready_replicas", {}),
]


@pytest.mark.parametrize(
    ("flavour", "more"),
    [
        pytest.param(
            KeplerFlavour.REWRITE,
            [
                expected("host_total_watts", {"": 180 + 130}),
                expected("hosts_measured_now", {"": 1}),
                expected("hosts_valued", {"": 2}),
                expected("kepler_hosts", {'node="n1"': 1, 'node="n2"': 1}),
            ],
            id="rewrite",
        ),
        pytest.param(
            KeplerFlavour.LEGACY,
            [
                expected("host_total_watts", {"": 180}),
                # By the address that was scraped, without its port.
                expected("kepler_hosts", {'node="n1"': 1}),
            ],
            id="legacy",
        ),
    ],
)
def test_queries_give_what_is_worked_out_by_hand(prometheus_binaries, tmp_path, flavour, more):
    # The inventory's own result would count in itself as a rule.
    listed = [one for one in all_queries(expressions(flavour)) if one.name != "inventory"]
    written(tmp_path / "rules.json", rules(listed))
    case = {"interval": "1m", "input_series": DATA, "promql_expr_test": [*COMMON, *more]}
    tests = written(
        tmp_path / "tests.json",
        {"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": [case]},
    )

    promtool(prometheus_binaries, "test", "rules", tests)


@pytest.mark.parametrize("flavour", list(KeplerFlavour))
@pytest.mark.parametrize(
    "labels",
    [
        PrometheusLabels(),
        PrometheusLabels(
            kube_namespace="exported_namespace",
            kube_pod="exported_pod",
            serving_namespace="ns",
            serving_pod="pod_name",
        ),
    ],
    ids=["default", "renamed"],
)
def test_prometheus_accepts_every_query(prometheus_binaries, tmp_path, flavour, labels):
    path = written(tmp_path / "rules.json", rules(all_queries(expressions(flavour, labels))))

    promtool(prometheus_binaries, "check", "rules", path)


def test_names_are_unique():
    names = [one.name for one in all_queries(expressions())]

    assert len(names) == len(set(names))


def test_no_query_sums_over_keplers_zones():
    for flavour in (KeplerFlavour.REWRITE, KeplerFlavour.NONE):
        for one in all_queries(expressions(flavour)):
            if one.name != "inventory":
                parts = one.promql.split("kepler_")[1:]
                assert all('zone="package"' in part.split("}")[0] for part in parts), one.name


@pytest.mark.parametrize(
    ("names", "flavour"),
    [
        ({"kepler_pod_cpu_watts"}, KeplerFlavour.REWRITE),
        ({"kepler_container_package_joules_total"}, KeplerFlavour.LEGACY),
        ({"kepler_node_package_joules_total", "kepler_node_cpu_watts"}, KeplerFlavour.REWRITE),
        ({"DCGM_FI_DEV_POWER_USAGE"}, KeplerFlavour.NONE),
    ],
)
def test_kepler_is_told_by_its_metrics(names, flavour):
    assert flavour_of(names) is flavour


def test_every_query_is_documented():
    text = (ROOT / "docs" / "prometheus.md").read_text()

    for one in (inventory(), *all_queries(expressions())):
        assert f"| `{one.name}` | {one.unit} | {one.why} |" in text, one.name


def test_every_query_of_the_documentation_exists():
    text = (ROOT / "docs" / "prometheus.md").read_text()
    table = text.split("| query | unit | what and why |")[1].split("\n\n")[0]
    documented = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}

    assert documented == {one.name for one in all_queries(expressions())}
