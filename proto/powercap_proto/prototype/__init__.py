"""The published prototype, verbatim and frozen; kept so that its clients work unchanged."""
