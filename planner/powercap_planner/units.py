"""Units met at the edges, turned into the project's own: currency/MWh, gCO2eq/kWh, UTC seconds.

Only adapters call these; inside, every name carries its unit.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

GRAMS_PER_POUND = 453.59237
"""Avoirdupois pound, exact by definition."""

_PRICE = re.compile(r"price_(?P<currency>[a-z]{3})_per_(?P<energy>mwh|kwh)")
_CARBON = re.compile(
    r"(?P<signal>carbon_intensity(?:_[a-z]+)?|marginal_carbon)_(?P<unit>(?:g|kg|lb)_per_(?:kwh|mwh))"
)
_PER_MWH = {"mwh": 1.0, "kwh": 1000.0}
_TO_G_PER_KWH = {
    "g_per_kwh": 1.0,
    "kg_per_mwh": 1.0,
    "kg_per_kwh": 1000.0,
    "g_per_mwh": 0.001,
    "lb_per_mwh": GRAMS_PER_POUND / 1000.0,
    "lb_per_kwh": GRAMS_PER_POUND,
}


def price_unit(column: str) -> tuple[str, float] | None:
    """Return currency and the factor to currency/MWh of a column name, None if it is not known.

    For example ``price_eur_per_kwh`` is EUR and 1000.
    """
    match = _PRICE.fullmatch(column)
    return (match["currency"].upper(), _PER_MWH[match["energy"]]) if match else None


def carbon_unit(column: str) -> tuple[str, float] | None:
    """Return signal and the factor to gCO2eq/kWh of a column name, None if it is not known.

    The signal is ``marginal`` or ``average``: the two are never compared.
    """
    match = _CARBON.fullmatch(column)
    if not match:
        return None
    signal = "marginal" if match["signal"] == "marginal_carbon" else "average"
    return signal, _TO_G_PER_KWH[match["unit"]]


def utc_seconds(text: str) -> float:
    """Return the Unix time of an ISO 8601 text; without an offset it is UTC.

    Raises:
        ValueError: when the text is no time.
    """
    moment = datetime.fromisoformat(text.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def utc_text(seconds: float) -> str:
    """Return a Unix time as ISO 8601 in UTC, whole seconds."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
