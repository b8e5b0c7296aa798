"""Errors of the Planner client.

PlannerError                root: any call that brought no answer, with its gRPC status
├── PlannerUnavailable      UNAVAILABLE, DEADLINE_EXCEEDED: try again later
├── PlannerRefused          INVALID_ARGUMENT: the request is wrong; ``field`` names where
└── PlannerNotReady         FAILED_PRECONDITION: metrics are missing, nothing can be planned
"""

from __future__ import annotations

import grpc


class PlannerError(Exception):
    """A call to the planner failed.

    Attributes:
        status: the gRPC status code.
        field: path of the request field the planner refused, empty when it named none.
    """

    def __init__(self, status: grpc.StatusCode, message: str, *, field: str = "") -> None:
        super().__init__(f"{status.name}: {message}")
        self.status = status
        self.message = message
        self.field = field


class PlannerUnavailable(PlannerError):  # noqa: N818 (named for the state)
    """No planner answered in time, or it has no fresh metrics."""


class PlannerRefused(PlannerError):  # noqa: N818 (named for the state)
    """The planner does not accept the request."""


class PlannerNotReady(PlannerError):  # noqa: N818 (named for the state)
    """The planner lacks the measurements to plan with."""
