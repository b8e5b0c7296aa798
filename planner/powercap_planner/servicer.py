"""The gRPC face of the service: messages in and out, errors into status codes, nothing else.

RequestError -> INVALID_ARGUMENT with google.rpc.BadRequest; DataMissingError ->
FAILED_PRECONDITION; a source or file that cannot be read -> UNAVAILABLE; anything else -> INTERNAL
with a reference into the log, never a traceback.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from powercap_planner.convert import (
    caps_from_status_request,
    request_from_message,
    response_from_outcome,
    response_from_status,
)
from powercap_planner.errors import DataMissingError, InputFileError, RequestError, SourceError
from powercap_planner.service import PlannerService
from powercap_planner.telemetry import event
from powercap_proto.v1 import planner_pb2 as pb

SERVICE_NAMES = ("powercap.planner.v1.Planner", "Planner")
"""The versioned name and the prototype's, answered by one servicer."""

_logger = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")
Context = grpc.aio.ServicerContext[Any, Any]


class PlannerServicer:
    """Answers the methods of the contract."""

    def __init__(self, service: PlannerService) -> None:
        self._service = service

    async def CalculateOptimalReplicas(  # noqa: N802 (the contract's name)
        self, message: pb.CalculateOptimalReplicasRequest, context: Context
    ) -> pb.CalculateOptimalReplicasResponse:
        """Plan."""
        return await _answered(self._plan(message, context.time_remaining), context)

    async def GetStatus(  # noqa: N802 (the contract's name)
        self, message: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """Tell what is measured."""
        return await _answered(self._status(message), context)

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return one generic handler for each service name."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "CalculateOptimalReplicas": grpc.unary_unary_rpc_method_handler(
                self.CalculateOptimalReplicas,
                request_deserializer=pb.CalculateOptimalReplicasRequest.FromString,
                response_serializer=pb.CalculateOptimalReplicasResponse.SerializeToString,
            ),
            "GetStatus": grpc.unary_unary_rpc_method_handler(
                self.GetStatus,
                request_deserializer=pb.GetStatusRequest.FromString,
                response_serializer=pb.GetStatusResponse.SerializeToString,
            ),
        }
        return tuple(grpc.method_handlers_generic_handler(name, methods) for name in SERVICE_NAMES)

    async def _plan(
        self,
        message: pb.CalculateOptimalReplicasRequest,
        time_left: Callable[[], float | None],
    ) -> pb.CalculateOptimalReplicasResponse:
        outcome = await self._service.plan(request_from_message(message), time_left=time_left)
        response = response_from_outcome(outcome)
        # Callers match answers by the names they sent, an unset namespace included.
        for answer, asked in zip(response.deployment_replicas, message.deployments, strict=True):
            answer.namespace = asked.namespace
        return response

    async def _status(self, message: pb.GetStatusRequest) -> pb.GetStatusResponse:
        return response_from_status(await self._service.status(caps_from_status_request(message)))


async def _answered(work: Awaitable[_Answer], context: Context) -> _Answer:
    try:
        return await work
    except RequestError as error:
        _logger.info("refused: %s", error, extra=event("refused", field=error.field))
        await _abort_naming_field(context, error)
    except DataMissingError as error:
        _logger.warning("not ready: %s", error, extra=event("not_ready"))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    except (SourceError, InputFileError) as error:
        _logger.warning("unavailable: %s", error, extra=event("unavailable"))
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
    except Exception:
        # The border to the caller: whatever broke is in the log, and the server lives on.
        reference = uuid.uuid4().hex[:8]
        _logger.exception("call failed, reference %s", reference, extra=event("call_broken"))
        await context.abort(
            grpc.StatusCode.INTERNAL, f"internal error, reference {reference} in the planner's log"
        )


async def _abort_naming_field(context: Context, error: RequestError) -> NoReturn:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=error.field, description=str(error)
    )
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=str(error))
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    rich = rpc_status.to_status(status)
    await context.abort(
        grpc.StatusCode.INVALID_ARGUMENT, rich.details, trailing_metadata=rich.trailing_metadata
    )
