"""Errors of the planner.

PowercapPlannerError
├── RequestError        the request is malformed; names the field by path
├── InputFileError      a file is malformed; names the file, the line or field, what is accepted
├── DataMissingError    nothing usable is measured for what was asked
└── SourceError         a metrics or grid source could not be read
"""


class PowercapPlannerError(Exception):
    """Root of everything the planner raises for a reason its user can act on."""


class RequestError(PowercapPlannerError, ValueError):
    """A request breaks its rules.

    ``field`` is the path in the request's own words, for example ``deployments[2].weight``.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class InputFileError(PowercapPlannerError, ValueError):
    """A file given by the user cannot be used."""


class DataMissingError(PowercapPlannerError, RuntimeError):
    """No usable measurement: planning would be guessing."""


class SourceError(PowercapPlannerError, RuntimeError):
    """A source did not answer, or answered something unusable."""
