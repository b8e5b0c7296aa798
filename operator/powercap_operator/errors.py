"""Errors of the operator.

OperatorError
├── PolicyError       a PowerCap's spec breaks a rule; carries the field
├── ScaledObjectError a ScaledObject or Deployment cannot be read; carries the field
├── SettingsError     a setting of the process cannot be used; carries its variable
├── PlanError         the planner's answer cannot be trusted; nothing of it is used
└── ClusterError      the Kubernetes API did not do what it was asked
    ├── MissingError  the object is not there
    └── ConflictError the object was changed since it was read
"""


class OperatorError(Exception):
    """Root of everything the operator raises."""


class FieldError(OperatorError, ValueError):
    """A field holds what is not accepted; the message names it, its value and what is accepted."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


class PolicyError(FieldError):
    """A PowerCap's spec breaks a rule that its schema states too."""


class ScaledObjectError(FieldError):
    """A ScaledObject or its workload cannot be read."""


class SettingsError(FieldError):
    """A setting of the process cannot be used."""


class PlanError(OperatorError, ValueError):
    """The planner answered what cannot be trusted: a number missing, negative or not finite."""


class ClusterError(OperatorError):
    """The Kubernetes API refused, failed or did not answer in time."""


class MissingError(ClusterError):
    """The object is not there."""


class ConflictError(ClusterError):
    """The object was changed by someone else since it was read."""
