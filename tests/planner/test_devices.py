"""Which GPUs and hosts nobody reports, told from what three exporters name."""

from __future__ import annotations

import pytest

from powercap_planner.sources.devices import compare, short_name
from powercap_planner.sources.prometheus_api import Series


def by_node(**counts: int) -> tuple[Series, ...]:
    return tuple(
        Series(labels={"node": name.replace("_", ".")}, points=((0.0, float(count)),))
        for name, count in counts.items()
    )


def test_gpus_of_a_node_that_nobody_reports_are_unreported():
    found = compare(
        gpu_hosts=by_node(a=8), kube_gpus=by_node(a=8, b=4), kepler_hosts=by_node(a=1, b=1)
    )

    assert found.unreported_gpus == {"b": 4}
    assert found.gpu_hosts == ("a", "b")
    assert found.hosts_without_kepler == ()


def test_hosts_with_gpus_need_kepler_and_hosts_without_do_not_stand_in():
    found = compare(
        gpu_hosts=by_node(a=8, b=8), kube_gpus=(), kepler_hosts=by_node(a=1, control=1, web=1)
    )

    assert found.hosts_without_kepler == ("b",)


def test_names_are_compared_without_domain():
    found = compare(
        gpu_hosts=by_node(a_rack_example=8), kube_gpus=by_node(A=8), kepler_hosts=by_node(a=1)
    )

    assert found.unreported_count == 0
    assert found.hosts_without_kepler == ()


@pytest.mark.parametrize(
    ("counted", "missing"),
    [
        pytest.param({"a": 8, "b": 8}, 4, id="some missing"),
        pytest.param({"a": 8, "b": 4}, 0, id="all there"),
        pytest.param({"a": 24}, 0, id="shared"),
    ],
)
def test_names_of_two_kinds_are_compared_by_their_sums(counted, missing):
    found = compare(
        gpu_hosts=by_node(x=8, y=4), kube_gpus=by_node(**counted), kepler_hosts=by_node(p=1, q=1)
    )

    assert found.unreported_count == missing


def test_kepler_hosts_of_other_names_are_counted():
    found = compare(gpu_hosts=by_node(a=8, b=8, c=8), kube_gpus=(), kepler_hosts=by_node(x=1, y=1))

    assert len(found.hosts_without_kepler) == 1


def test_addresses_are_no_domains():
    assert short_name("10.0.0.7") != short_name("10.0.0.8")
    assert short_name("fe80::1") == "fe80::1"
