"""Plays KEDA, the HPA and the kubelet between a real API server and the emulated cluster.

Towards the emulated cluster: a ScaledObject's minimum, maximum and pause annotation. Towards the
API server: the HPA that KEDA would keep, and each Deployment's replicas, terminating ones included
until they are gone. The Deployment controller of the real controller manager makes the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.types import PatchType

ScaledObject = create_namespaced_resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")

UNSET_MAXIMUM = 100
"""KEDA's default of ``maxReplicaCount``."""


class EmulatedCluster(Protocol):
    """What is needed of the emulated cluster."""

    def set_max_replicas(self, key: str, replicas: int) -> None: ...

    def set_min_replicas(self, key: str, replicas: int) -> None: ...

    def set_paused(self, key: str, *, is_paused: bool, replicas: int | None = None) -> None: ...


class PlayedKeda(threading.Thread):
    """Carries values both ways until ``close``; an error of its own is kept and raised there."""

    def __init__(
        self,
        client: Client,
        *,
        cluster: EmulatedCluster,
        lock: AbstractContextManager[Any],
        present: Callable[[str], int],
        interval_seconds: float = 0.5,
    ) -> None:
        super().__init__(name="played-keda", daemon=True)
        self._client = client
        self._cluster = cluster
        self._lock = lock
        self._present = present
        self._interval_seconds = interval_seconds
        self._closing = threading.Event()
        self._limits: dict[str, tuple[int, int]] = {}
        self._error: BaseException | None = None

    def run(self) -> None:
        """Carry values until closed."""
        while not self._closing.is_set():
            try:
                self._carry()
            except ApiError as error:
                if error.status.code not in (404, 409):
                    self._error = error
                    return
            except BaseException as error:
                self._error = error
                return
            self._closing.wait(self._interval_seconds)

    def close(self) -> None:
        """Stop, and raise what went wrong meanwhile."""
        self._closing.set()
        self.join(30)
        if self._error is not None:
            raise self._error

    def _carry(self) -> None:
        for scaled_object in self._client.list(ScaledObject, namespace="*"):
            spec = scaled_object.spec
            namespace = scaled_object.metadata.namespace
            workload = spec["scaleTargetRef"]["name"]
            key = f"{namespace}/{workload}"
            limits = (spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", UNSET_MAXIMUM))
            self._set_limits(key, limits)
            self._write_hpa(namespace, scaled_object.metadata.name, workload, limits)
            self._write_replicas(namespace, workload, key)

    def _set_limits(self, key: str, limits: tuple[int, int]) -> None:
        if self._limits.get(key) == limits:
            return
        minimum, maximum = limits
        with self._lock:
            self._cluster.set_min_replicas(key, 0)
            self._cluster.set_max_replicas(key, maximum)
            self._cluster.set_min_replicas(key, minimum)
        self._limits[key] = limits

    def _write_hpa(self, namespace: str, name: str, workload: str, limits: tuple[int, int]) -> None:
        spec = {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload},
            "minReplicas": max(1, limits[0]),
            "maxReplicas": limits[1],
        }
        hpa_name = f"keda-hpa-{name}"
        try:
            hpa = self._client.get(HorizontalPodAutoscaler, hpa_name, namespace=namespace)
        except ApiError as error:
            if error.status.code != 404:
                raise
            body = {"metadata": {"name": hpa_name, "namespace": namespace}, "spec": spec}
            self._client.create(HorizontalPodAutoscaler.from_dict(body))
            status = {"status": {"hpaName": hpa_name}}
            self._client.patch(
                ScaledObject.Status, name, status, namespace=namespace, patch_type=PatchType.MERGE
            )
            return
        if (hpa.spec.minReplicas, hpa.spec.maxReplicas) != (
            spec["minReplicas"],
            spec["maxReplicas"],
        ):
            self._client.patch(
                HorizontalPodAutoscaler,
                hpa_name,
                {"spec": spec},
                namespace=namespace,
                patch_type=PatchType.MERGE,
            )

    def _write_replicas(self, namespace: str, workload: str, key: str) -> None:
        with self._lock:
            present = self._present(key)
        deployment = self._client.get(Deployment, workload, namespace=namespace)
        if deployment.spec.replicas != present:
            self._client.patch(
                Deployment,
                workload,
                {"spec": {"replicas": present}},
                namespace=namespace,
                patch_type=PatchType.MERGE,
            )
