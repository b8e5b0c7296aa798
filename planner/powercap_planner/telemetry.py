"""Structured logs: one JSON object per event and line."""

from __future__ import annotations

import json
import logging
import math
import sys
from datetime import UTC, datetime
from typing import Any, TextIO


def event(name: str, **fields: object) -> dict[str, Any]:
    """Return the ``extra`` of a log call that makes it an event with fields."""
    return {"event": name, "event_fields": fields}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; what is not finite becomes null."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if name := getattr(record, "event", None):
            fields["event"] = name
            fields.update(getattr(record, "event_fields", {}))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(_plain(fields), default=str, allow_nan=False)


def configure_logging(*, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send all logs of the process as JSON lines to a stream, standard error by default.

    Raises:
        ValueError: the level is unknown.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
