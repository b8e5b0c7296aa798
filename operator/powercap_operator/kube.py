"""The edge to Kubernetes: reads and patches through lightkube, each with a time limit.

Nothing outside this module knows lightkube. Objects leave it as plain dicts; every write carries
the ``resourceVersion`` that was read, so that a change in between is a conflict, not a loss.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx2
import yaml
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ConfigError
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.models.core_v1 import EventSource, ObjectReference
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.core_v1 import Event as EventResource
from lightkube.resources.core_v1 import Pod
from lightkube.types import PatchType

from powercap_operator.errors import (
    ClusterError,
    ConflictError,
    MissingError,
    SettingsError,
)
from powercap_operator.events import COMPONENT, Event

GROUP = "powercap.dev"
VERSION = "v1alpha1"
PLURAL = "powercaps"

PowerCap = create_global_resource(GROUP, VERSION, "PowerCap", PLURAL)
ScaledObject = create_namespaced_resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")

Item = dict[str, Any]


def require_configuration() -> None:
    """Make sure that a cluster is configured, before anything retries on it for ever.

    Raises:
        SettingsError: neither a pod's service account nor ``KUBECONFIG`` names one.
    """
    try:
        KubeConfig.from_env().get()
    except (ConfigError, OSError, ValueError, yaml.YAMLError) as error:
        named = os.environ.get("KUBECONFIG", "unset")
        raise SettingsError(
            "KUBECONFIG",
            f"is {named!r}: {error}; accepted: a kubeconfig, or a pod's service account",
        ) from error


class Kube:
    """The calls that the operator makes.

    Args:
        client: lightkube's client; its timeouts are the calls' timeouts.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @classmethod
    def connect(cls, *, timeout_seconds: float) -> Kube:
        """Connect with the pod's service account, or with ``KUBECONFIG``."""
        timeout = httpx2.Timeout(timeout_seconds)
        return cls(AsyncClient(timeout=timeout, field_manager=COMPONENT))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def powercap(self, name: str) -> Item:
        """Return one PowerCap.

        Raises:
            MissingError: it is gone.
            ClusterError: it cannot be read.
        """
        with _translated(f"PowerCap {name}"):
            return _dict(await self._client.get(PowerCap, name))

    async def powercaps(self) -> list[Item]:
        """Return all PowerCaps."""
        with _translated("PowerCaps"):
            return [_dict(item) async for item in self._client.list(PowerCap)]

    async def scaled_objects(
        self, *, namespaces: Iterable[str], labels: Mapping[str, str]
    ) -> list[Item]:
        """Return the ScaledObjects of the namespaces (none: of all) that carry the labels."""
        found = []
        for namespace in tuple(namespaces) or ("*",):
            with _translated(f"ScaledObjects in {namespace}"):
                listed = self._client.list(ScaledObject, namespace=namespace, labels=dict(labels))
                found += [_dict(item) async for item in listed]
        return found

    async def scaled_object(self, namespace: str, name: str) -> Item:
        """Return one ScaledObject."""
        with _translated(f"ScaledObject {namespace}/{name}"):
            return _dict(await self._client.get(ScaledObject, name, namespace=namespace))

    async def deployments(self, namespaces: Iterable[str]) -> list[Item]:
        """Return the Deployments of the namespaces."""
        return await self._listed(Deployment, namespaces, "Deployments")

    async def autoscalers(self, namespaces: Iterable[str]) -> list[Item]:
        """Return the HorizontalPodAutoscalers of the namespaces."""
        return await self._listed(HorizontalPodAutoscaler, namespaces, "HorizontalPodAutoscalers")

    async def pods(self, namespace: str, labels: Mapping[str, str]) -> int:
        """Count the pods that carry the labels and have not ended, terminating ones included."""
        with _translated(f"Pods in {namespace}"):
            listed = self._client.list(Pod, namespace=namespace, labels=dict(labels))
            phases = [(_dict(pod).get("status") or {}).get("phase") async for pod in listed]
        return sum(phase not in ("Succeeded", "Failed") for phase in phases)

    async def patch_max_replicas(
        self, namespace: str, name: str, *, max_replicas: int | None, resource_version: str
    ) -> Item:
        """Write ``spec.maxReplicaCount``, or unset it, if nobody wrote the object since.

        Raises:
            ConflictError: someone did.
            ClusterError: it was refused, or the call failed.
        """
        body = {
            "metadata": {"resourceVersion": resource_version},
            "spec": {"maxReplicaCount": max_replicas},
        }
        with _translated(f"ScaledObject {namespace}/{name}"):
            return _dict(
                await self._client.patch(
                    ScaledObject, name, body, namespace=namespace, patch_type=PatchType.MERGE
                )
            )

    async def patch_status(
        self, name: str, *, status: Mapping[str, Any], resource_version: str
    ) -> Item:
        """Merge ``status`` into a PowerCap's, if nobody wrote it since.

        Raises:
            ConflictError: someone did.
            ClusterError: it was refused, or the call failed.
        """
        body = {"metadata": {"resourceVersion": resource_version}, "status": dict(status)}
        with _translated(f"PowerCap {name} status"):
            return _dict(
                await self._client.patch(PowerCap.Status, name, body, patch_type=PatchType.MERGE)
            )

    async def post_event(self, event: Event, *, now: datetime.datetime) -> None:
        """Create one Event; those of cluster-wide objects go to the namespace ``default``."""
        subject = event.subject
        namespace = subject.namespace or "default"
        reference = ObjectReference(
            apiVersion=subject.api_version,
            kind=subject.kind,
            name=subject.name,
            namespace=subject.namespace or None,
            uid=subject.uid or None,
        )
        body = EventResource(
            metadata=ObjectMeta(generateName=f"{subject.name[:200]}.", namespace=namespace),
            involvedObject=reference,
            type=event.type.value,
            reason=event.reason,
            message=event.message[:1024],
            source=EventSource(component=COMPONENT),
            reportingComponent=COMPONENT,
            firstTimestamp=now,
            lastTimestamp=now,
            count=1,
        )
        with _translated(f"Event on {subject.kind} {subject.name}"):
            await self._client.create(body)

    async def _listed(self, kind: type[Any], namespaces: Iterable[str], what: str) -> list[Item]:
        async def one(namespace: str) -> list[Item]:
            with _translated(f"{what} in {namespace}"):
                return [_dict(item) async for item in self._client.list(kind, namespace=namespace)]

        lists = await asyncio.gather(*(one(namespace) for namespace in sorted(set(namespaces))))
        return [item for items in lists for item in items]


def _dict(item: Any) -> Item:
    return dict(item.to_dict())


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except httpx2.HTTPStatusError as error:
        # lightkube's ApiError is one; a path the server does not know answers without a body.
        code = error.response.status_code
        message = f"{what}: {error}"
        if code == 404:
            raise MissingError(message) from error
        if code == 409:
            raise ConflictError(message) from error
        raise ClusterError(message) from error
    except httpx2.HTTPError as error:
        raise ClusterError(f"{what}: {str(error) or type(error).__name__}") from error
