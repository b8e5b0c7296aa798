"""``powercap serve``: the planner as a process, the same as ``powercap-planner``."""

from powercap_planner.server import serve as command

__all__ = ["command"]
