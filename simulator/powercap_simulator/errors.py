"""Errors of the simulator.

PowercapSimulatorError
├── ScenarioError         a scenario, curve or trace breaks its rules; names field and value
├── WriteError            emulated history could not be handed to a server or file
└── PlannerProcessError   the planner could not be started, or did not answer
"""


class PowercapSimulatorError(Exception):
    """Root of everything the simulator raises for a reason its user can act on."""


class ScenarioError(PowercapSimulatorError, ValueError):
    """A scenario, a curve or a trace cannot be used."""


class WriteError(PowercapSimulatorError, RuntimeError):
    """Emulated history was refused where it was sent."""


class PlannerProcessError(PowercapSimulatorError, RuntimeError):
    """The planner's own process ended, or never listened."""
