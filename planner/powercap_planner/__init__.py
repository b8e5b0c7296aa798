"""Observations into curves and forecasts, these into a planning problem, its solution explained.

Here belong the sources of metrics and grid data, the models, the assembly of the problem, the
gRPC service and the CLI. Not here: Kubernetes, and the optimisation itself (``powercap_solver``).
"""
