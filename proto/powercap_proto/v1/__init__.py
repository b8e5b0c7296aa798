"""Package powercap.planner.v1, compatible with the prototype in bytes and JSON."""
