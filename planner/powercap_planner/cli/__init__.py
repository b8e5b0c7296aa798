"""The command line ``powercap``: one module per sub-command, thin faces of the planner."""
