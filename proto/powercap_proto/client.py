"""The Planner client, sync and aio: a deadline on every call, errors of one small tree.

``PlannerClient`` for the CLI and scripts, ``AsyncPlannerClient`` for event loops; both are
context managers over one channel. Nothing is retried here: a caller has a cycle of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from powercap_proto.errors import (
    PlannerError,
    PlannerNotReady,
    PlannerRefused,
    PlannerUnavailable,
)
from powercap_proto.v1 import planner_pb2, planner_pb2_grpc

__all__ = [
    "AsyncPlannerClient",
    "PlannerClient",
    "PlannerError",
    "PlannerNotReady",
    "PlannerRefused",
    "PlannerUnavailable",
    "TlsFiles",
]

DEFAULT_TIMEOUT_SECONDS = 20.0
"""Shorter than the operator's 60 s cycle: a late plan is worth less than the next one."""

# gRPC doubles its reconnect delay up to two minutes by default: a restarted planner would be
# missed for two cycles.
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5000),
)
_DETAILS_KEY = "grpc-status-details-bin"
_ERRORS: dict[grpc.StatusCode, type[PlannerError]] = {
    grpc.StatusCode.UNAVAILABLE: PlannerUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: PlannerUnavailable,
    grpc.StatusCode.INVALID_ARGUMENT: PlannerRefused,
    grpc.StatusCode.FAILED_PRECONDITION: PlannerNotReady,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of a TLS channel; certificate and key only for mutual TLS."""

    ca: Path | None = None
    """Roots to trust; None takes gRPC's own."""
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            ValueError: one of certificate and key is given without the other.
            OSError: a file cannot be read.
        """
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key: give both for mutual TLS, or neither")
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca),
            private_key=_read(self.key),
            certificate_chain=_read(self.certificate),
        )


class PlannerClient:
    """Calls the planner and waits.

    Args:
        target: ``host:port``, or any gRPC target.
        timeout_seconds: deadline of each call unless the call brings its own, s.
        tls: files of a TLS channel; None is plaintext.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        tls: TlsFiles | None = None,
    ) -> None:
        self.target = target
        self.timeout_seconds = _checked(timeout_seconds)
        self._channel = (
            grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
            if tls is None
            else grpc.secure_channel(target, tls.credentials(), options=_CHANNEL_OPTIONS)
        )
        self._stub = planner_pb2_grpc.PlannerStub(self._channel)

    def calculate_optimal_replicas(
        self,
        request: planner_pb2.CalculateOptimalReplicasRequest,
        *,
        timeout_seconds: float | None = None,
    ) -> planner_pb2.CalculateOptimalReplicasResponse:
        """Ask for a plan.

        Raises:
            PlannerError: no answer; see its subclasses.
        """
        try:
            return self._stub.CalculateOptimalReplicas(
                request, timeout=timeout_seconds or self.timeout_seconds
            )
        except grpc.RpcError as error:
            raise _sync_error(error, self.target) from error

    def get_status(
        self,
        request: planner_pb2.GetStatusRequest | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> planner_pb2.GetStatusResponse:
        """Ask what is measured against each cap; without a request: of the cluster.

        Raises:
            PlannerError: no answer; see its subclasses.
        """
        try:
            return self._stub.GetStatus(
                request or planner_pb2.GetStatusRequest(),
                timeout=timeout_seconds or self.timeout_seconds,
            )
        except grpc.RpcError as error:
            raise _sync_error(error, self.target) from error

    def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncPlannerClient:
    """Calls the planner from an event loop; make it inside the loop that uses it.

    Args:
        target: ``host:port``, or any gRPC target.
        timeout_seconds: deadline of each call unless the call brings its own, s.
        tls: files of a TLS channel; None is plaintext.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        tls: TlsFiles | None = None,
    ) -> None:
        self.target = target
        self.timeout_seconds = _checked(timeout_seconds)
        self._channel = (
            grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
            if tls is None
            else grpc.aio.secure_channel(target, tls.credentials(), options=_CHANNEL_OPTIONS)
        )
        self._stub = planner_pb2_grpc.PlannerStub(self._channel)

    async def calculate_optimal_replicas(
        self,
        request: planner_pb2.CalculateOptimalReplicasRequest,
        *,
        timeout_seconds: float | None = None,
    ) -> planner_pb2.CalculateOptimalReplicasResponse:
        """Ask for a plan.

        Raises:
            PlannerError: no answer; see its subclasses.
        """
        try:
            return await self._stub.CalculateOptimalReplicas(
                request, timeout=timeout_seconds or self.timeout_seconds
            )
        except grpc.aio.AioRpcError as error:
            raise _aio_error(error, self.target) from error

    async def get_status(
        self,
        request: planner_pb2.GetStatusRequest | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> planner_pb2.GetStatusResponse:
        """Ask what is measured against each cap; without a request: of the cluster.

        Raises:
            PlannerError: no answer; see its subclasses.
        """
        try:
            return await self._stub.GetStatus(
                request or planner_pb2.GetStatusRequest(),
                timeout=timeout_seconds or self.timeout_seconds,
            )
        except grpc.aio.AioRpcError as error:
            raise _aio_error(error, self.target) from error

    async def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _checked(timeout_seconds: float) -> float:
    if not 0 < timeout_seconds < float("inf"):
        raise ValueError(f"timeout_seconds is {timeout_seconds}; accepted: more than 0, finite")
    return timeout_seconds


def _read(path: Path | None) -> bytes | None:
    return None if path is None else Path(os.path.expanduser(path)).read_bytes()


def _sync_error(error: grpc.RpcError, target: str) -> PlannerError:
    # The stubs type RpcError bare; what a stub raises is also a Call.
    call: Any = error
    return _translated(call.code(), call.details(), call.trailing_metadata(), target)


def _aio_error(error: grpc.aio.AioRpcError, target: str) -> PlannerError:
    metadata = [(str(key), value) for key, value in error.trailing_metadata()]
    return _translated(error.code(), error.details(), metadata, target)


def _translated(
    status: grpc.StatusCode,
    details: str | None,
    metadata: Sequence[tuple[str, str | bytes]] | None,
    target: str,
) -> PlannerError:
    message = f"planner {target}: {details or 'no details'}"
    kind = _ERRORS.get(status, PlannerError)
    return kind(status, message, field=_field(metadata or ()))


def _field(metadata: Sequence[tuple[str, str | bytes]]) -> str:
    """Return the first field named by a ``google.rpc.BadRequest``, or an empty string."""
    for key, value in metadata:
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            details = status_pb2.Status.FromString(value).details
        except DecodeError:
            continue
        for detail in details:
            bad = error_details_pb2.BadRequest()
            if detail.Unpack(bad) and bad.field_violations:
                return str(bad.field_violations[0].field)
    return ""
