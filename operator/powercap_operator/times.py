"""Times as Kubernetes writes them: RFC 3339, UTC."""

from __future__ import annotations

import datetime


def to_text(moment: datetime.datetime) -> str:
    """Write an aware time with milliseconds: an outage is told apart from the second it fell in."""
    utc = moment.astimezone(datetime.UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_text(text: object) -> datetime.datetime | None:
    """Read a time; None for what is missing or is no time."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
