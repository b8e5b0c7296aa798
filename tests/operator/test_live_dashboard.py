"""``kubectl get powercaps`` reads like a dashboard: the table that the API server makes."""

from __future__ import annotations

from typing import Any

import pytest
from lightkube import Client

pytestmark = pytest.mark.servers


def _table(client: Client, path: str) -> list[dict[str, Any]]:
    """Return the rows that kubectl would print, by column."""
    # lightkube asks for no tables; its connection, with its credentials, can.
    connection = client._client._client
    answer = connection.get(
        path, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    )
    answer.raise_for_status()
    table = answer.json()
    names = [column["name"] for column in table["columnDefinitions"]]
    return [dict(zip(names, row["cells"], strict=True)) for row in table["rows"]]


def test_the_table_tells_cap_charge_measure_and_reason(
    site: Any, planner: Any, start_operator: Any, kube_admin: Client
) -> None:
    site.add("chat", maximum=10)
    planner.allow("chat", 4)
    planner.measured_watts = 312.5
    start_operator()

    cap = site.cap(watts=1000)
    site.wait(lambda: site.condition(cap, "Ready").get("reason") == "PlanInForce", "settled")
    rows = _table(kube_admin, "/apis/powercap.dev/v1alpha1/powercaps")

    row = next(row for row in rows if row["Name"] == cap)
    assert (row["Cap"], row["Charged"], row["Measured"], row["Headroom"]) == (1000, 400, 312.5, 600)
    assert (row["Targets"], row["Rollout"]) == ("1/1", "Auto")
    assert (row["Ready"], row["Reason"], row["Held"]) == ("True", "PlanInForce", "True")
