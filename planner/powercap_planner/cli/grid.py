"""Price and carbon as users give them: a constant, or a CSV file read at a time."""

from __future__ import annotations

from pathlib import Path

from powercap_planner.errors import InputFileError, RequestError
from powercap_planner.grid.files import FileCarbonProvider, FilePriceProvider
from powercap_planner.grid.series import CarbonProvider, ConstantProvider, PriceProvider
from powercap_planner.grid.weight import GridConditions, read_conditions

PRICE_UNIT = "per MWh"
CARBON_UNIT = "gCO2eq/kWh"


def number_or_path(text: str | None, *, option: str, low: float) -> float | Path | None:
    """Return the constant or the file that an option means.

    Raises:
        RequestError: when it is neither.
    """
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        path = Path(text)
        if path.is_file():
            return path
        raise RequestError(
            option, f"is {text!r}; accepted: a number, or a CSV file that exists"
        ) from None
    if not (low <= value < float("inf")):
        raise RequestError(option, f"is {text}; accepted: a finite number of {low:g} or more")
    return value


def conditions(
    *,
    price: float | Path | None,
    carbon: float | Path | None,
    zone: str,
    at_seconds: float | None,
) -> GridConditions:
    """Return price and carbon at a moment.

    Raises:
        InputFileError: when a file is malformed or holds no such zone.
        RequestError: when a file is given without a moment to read it at.
    """
    if at_seconds is None:
        for option, source in (("price", price), ("carbon", carbon)):
            if isinstance(source, Path):
                raise RequestError("at", f"is missing; --{option} {source} is read at a time")
    return read_conditions(
        price=_price_provider(price, zone),
        carbon=_carbon_provider(carbon, zone),
        zone=zone,
        now_seconds=at_seconds or 0.0,
    )


def _price_provider(source: float | Path | None, zone: str) -> PriceProvider | None:
    if isinstance(source, Path):
        provider = FilePriceProvider(source)
        _check_zone(source, provider.zones, zone)
        return provider
    return None if source is None else ConstantProvider(source, unit=PRICE_UNIT)


def _carbon_provider(source: float | Path | None, zone: str) -> CarbonProvider | None:
    if isinstance(source, Path):
        provider = FileCarbonProvider(source)
        _check_zone(source, provider.zones, zone)
        return provider
    return None if source is None else ConstantProvider(source, unit=CARBON_UNIT)


def _check_zone(path: Path, zones: tuple[str, ...], zone: str) -> None:
    if zone in zones or (not zone and len(zones) == 1):
        return
    shown = f"has no zone {zone!r}" if zone else "has several zones, --zone is missing"
    raise InputFileError(f"{path}: {shown}; accepted: {', '.join(zones)}")
