"""What every metrics source offers, whatever it reads."""

from __future__ import annotations

from typing import Protocol

from powercap_planner.observations import ClusterObservation, Reading


class MetricsSource(Protocol):
    """Delivers observations of one cluster; a source that fails raises, it never says 0."""

    @property
    def name(self) -> str:
        """Name for logs, status and findings, for example ``prometheus``."""

    def observe(
        self, *, now_seconds: float, history_seconds: float, step_seconds: float
    ) -> ClusterObservation:
        """Return the history that ends at a moment.

        Args:
            now_seconds: end of the history, Unix time, s.
            history_seconds: length of the history, s.
            step_seconds: width of one window, s.

        Raises:
            SourceError: when the source cannot be reached or answers something unusable.
        """

    def measure(self, *, now_seconds: float, window_seconds: float) -> Reading | None:
        """Return the cluster's mean watts over the window that ends now, None if not measured.

        Raises:
            SourceError: when the source cannot be reached.
        """
