"""ScaledObjects and the workloads behind them: Kubernetes' dicts become typed values here.

A ScaledObject without ``maxReplicaCount`` runs at KEDA's default, which is kept apart from the
same number written by hand: what the user left unset is restored as unset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from powercap_operator.errors import ScaledObjectError

KEDA_DEFAULT_MAX_REPLICAS = 100
"""What KEDA takes for an unset ``maxReplicaCount``."""

PAUSED_ANNOTATION = "autoscaling.keda.sh/paused"
PAUSED_REPLICAS_ANNOTATION = "autoscaling.keda.sh/paused-replicas"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledObject:
    """What the operator needs of one ScaledObject, as it was read."""

    namespace: str
    name: str
    uid: str = ""
    resource_version: str
    labels: Mapping[str, str] = field(default_factory=dict)
    min_replicas: int = 0
    max_replicas: int | None = None
    """None: unset, which KEDA reads as its default."""
    target_kind: str = "Deployment"
    target_api_version: str = "apps/v1"
    target_name: str
    owner: str | None = None
    """``Kind/name`` of the controller that owns it and would revert a patch."""
    pause: str | None = None
    """The annotation that pauses it."""
    hpa_name: str

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return (self.namespace, self.name)

    @property
    def effective_max_replicas(self) -> int:
        """The maximum in force at KEDA."""
        return effective_max(self.max_replicas)

    @property
    def is_deployment(self) -> bool:
        """Tell whether it scales a Deployment, the one kind whose replicas are read."""
        return self.target_kind == "Deployment" and self.target_api_version.startswith("apps/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Replicas of one Deployment, as observed."""

    namespace: str
    name: str
    requested: int
    """Asked of the Deployment now."""
    present: int
    """Pending, ready and terminating, or about to be created."""
    is_terminating_known: bool = True
    """False: the server does not count terminating pods; they are missing from ``present``."""
    pod_labels: Mapping[str, str] = field(default_factory=dict)


def effective_max(max_replicas: int | None) -> int:
    """Return the maximum that KEDA enforces for a ``maxReplicaCount``, set or unset."""
    return KEDA_DEFAULT_MAX_REPLICAS if max_replicas is None else max_replicas


def parse_scaled_object(item: Mapping[str, Any]) -> ScaledObject:
    """Read one ScaledObject.

    Raises:
        ScaledObjectError: naming the field that is missing or of the wrong kind.
    """
    metadata, spec = item["metadata"], item.get("spec") or {}
    reference = spec.get("scaleTargetRef") or {}
    if not reference.get("name"):
        raise ScaledObjectError("spec.scaleTargetRef.name", "is missing")
    annotations = metadata.get("annotations") or {}
    name = str(metadata["name"])
    status = item.get("status") or {}
    return ScaledObject(
        namespace=str(metadata["namespace"]),
        name=name,
        uid=str(metadata.get("uid") or ""),
        resource_version=str(metadata.get("resourceVersion") or ""),
        labels=dict(metadata.get("labels") or {}),
        min_replicas=_count(spec, "minReplicaCount") or 0,
        max_replicas=_count(spec, "maxReplicaCount"),
        target_kind=str(reference.get("kind") or "Deployment"),
        target_api_version=str(reference.get("apiVersion") or "apps/v1"),
        target_name=str(reference["name"]),
        owner=_controller(metadata),
        pause=_pause(annotations),
        hpa_name=str(status.get("hpaName") or _configured_hpa_name(spec) or f"keda-hpa-{name}"),
    )


def parse_deployment(item: Mapping[str, Any]) -> Workload:
    """Read one Deployment's replicas."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    requested = spec.get("replicas")
    requested = 1 if requested is None else int(requested)
    terminating = status.get("terminatingReplicas")
    # `replicas` leaves out terminating pods, which still draw power until they are gone.
    existing = max(int(status.get("replicas") or 0), int(status.get("readyReplicas") or 0))
    return Workload(
        namespace=str(metadata["namespace"]),
        name=str(metadata["name"]),
        requested=requested,
        present=max(requested, existing + int(terminating or 0)),
        is_terminating_known=terminating is not None,
        pod_labels=dict((spec.get("selector") or {}).get("matchLabels") or {}),
    )


def parse_hpa_max(item: Mapping[str, Any]) -> int:
    """Read an autoscaler's maximum."""
    return int(item["spec"]["maxReplicas"])


def _count(spec: Mapping[str, Any], key: str) -> int | None:
    value = spec.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ScaledObjectError(f"spec.{key}", f"is {value!r}; accepted: a whole number, 0 or more")
    return value


def _controller(metadata: Mapping[str, Any]) -> str | None:
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            return f"{reference.get('kind')}/{reference.get('name')}"
    return None


def _pause(annotations: Mapping[str, str]) -> str | None:
    # `paused: "false"` does not pause; `paused-replicas` pauses with any number.
    if PAUSED_REPLICAS_ANNOTATION in annotations:
        return PAUSED_REPLICAS_ANNOTATION
    if str(annotations.get(PAUSED_ANNOTATION, "false")).lower() != "false":
        return PAUSED_ANNOTATION
    return None


def _configured_hpa_name(spec: Mapping[str, Any]) -> str | None:
    advanced = spec.get("advanced") or {}
    config = advanced.get("horizontalPodAutoscalerConfig") or {}
    name = config.get("name")
    return str(name) if name else None
