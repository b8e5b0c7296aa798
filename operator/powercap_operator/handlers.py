"""kopf's handlers: thin, on the operator's own resource only.

ScaledObjects and Deployments get neither finalizers nor annotations: they are read and patched
through ``kube``.
"""

from __future__ import annotations

import datetime
from typing import Any

import kopf

from powercap_operator.control import Control
from powercap_operator.cycle import Services
from powercap_operator.kube import GROUP, PLURAL, VERSION, Kube
from powercap_operator.settings import OperatorSettings, configure_kopf
from powercap_proto.client import AsyncPlannerClient

RESTORE_RETRY_SECONDS = 10.0


def build_registry(own: OperatorSettings) -> kopf.OperatorRegistry:
    """Return the handlers of one operator process."""
    registry = kopf.OperatorRegistry()
    controls: list[Control] = []
    closing: list[Any] = []

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure_kopf(settings)
        kube = Kube.connect(timeout_seconds=own.kube_timeout_seconds)
        planner = AsyncPlannerClient(own.planner, timeout_seconds=own.planner_timeout_seconds)
        closing.extend((kube, planner))
        services = Services(
            kube=kube,
            planner=planner,
            clock=lambda: datetime.datetime.now(datetime.UTC),
            settle_seconds=own.settle_seconds,
            interval_seconds=own.interval_seconds,
        )
        controls.append(Control(services))

    @kopf.on.cleanup(registry=registry)
    async def end(**_: Any) -> None:
        for client in closing:
            await client.close()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        # Reads KUBECONFIG at call time; kopf's own choice reads it when a client is imported.
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.daemon(GROUP, VERSION, PLURAL, registry=registry, cancellation_timeout=5.0)
    async def govern(name: str, uid: str, stopped: Any, **_: Any) -> None:
        await controls[0].run(name, uid, stopped)

    @kopf.on.update(GROUP, VERSION, PLURAL, field="spec", registry=registry)
    async def replan(uid: str, **_: Any) -> None:
        controls[0].wake(uid)

    @kopf.on.delete(GROUP, VERSION, PLURAL, registry=registry)
    async def give_back(name: str, uid: str, **_: Any) -> None:
        if not await controls[0].release(name, uid):
            raise kopf.TemporaryError("not all maxima restored", delay=RESTORE_RETRY_SECONDS)

    @kopf.on.probe(id="last_cycle", registry=registry)
    async def probe(**_: Any) -> dict[str, float]:
        if controls and (stale := controls[0].stale_loops()):
            # Only this exception turns into HTTP 500; any other leaves the request hanging.
            raise kopf.PermanentError(f"no cycle for too long: {', '.join(stale)}")
        age = controls[0].seconds_since_last_turn() if controls else 0.0
        return {"seconds_since_last_turn": round(age, 1)}

    return registry
