"""Metrics sources: where observations come from (Prometheus, files)."""
