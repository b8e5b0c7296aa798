"""Power and capacity curves: watts and latency of one replica over its load."""
