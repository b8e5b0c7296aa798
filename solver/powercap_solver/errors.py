"""Errors of the solver.

PowercapSolverError
├── ProblemError    the problem breaks its own rules; the message names the field
├── FileFormatError a problem or plan file cannot be read; the message names the field
└── SolverError     a back end failed in a way that is not an answer
"""


class PowercapSolverError(Exception):
    """Root of everything the solver raises."""


class ProblemError(PowercapSolverError, ValueError):
    """The problem is malformed: a shape, a sign or a missing value."""


class FileFormatError(PowercapSolverError, ValueError):
    """A problem or plan file does not follow the documented form."""


class SolverError(PowercapSolverError, RuntimeError):
    """A back end failed: neither a solution nor a proof came out of it."""
