"""Price and carbon from CSV files.

Columns: ``timestamp_utc`` (start of the interval; ``data_timestamp_utc`` in polled files),
``zone`` or ``balancing_area``, and one value column whose name says its unit:
``price_<currency>_per_mwh`` or ``_per_kwh``; ``carbon_intensity[_lca|_direct]_g_per_kwh`` or
``marginal_carbon_g_per_kwh`` (also ``kg_per_mwh``, ``lb_per_mwh``). An empty cell is a missing
hour. A time that occurs twice keeps its last row.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from powercap_planner.errors import InputFileError, SourceError
from powercap_planner.grid.series import GridSeries
from powercap_planner.units import carbon_unit, price_unit, utc_seconds

_TIME_COLUMNS = ("timestamp_utc", "data_timestamp_utc")
_ZONE_COLUMNS = ("zone", "balancing_area")
_CARBON_PREFERENCE = ("carbon_intensity_g", "carbon_intensity_lca", "carbon_intensity_direct")


class _FileProvider:
    """The series of one file by zone, read once."""

    def __init__(
        self,
        path: Path,
        *,
        prefix: tuple[str, ...],
        unit_of: Callable[[str], tuple[str, float] | None],
        unit_text: Callable[[str], str],
    ) -> None:
        self._path = path
        self._series = _read(path, prefix=prefix, unit_of=unit_of, unit_text=unit_text)

    @property
    def name(self) -> str:
        """``file <path>``."""
        return f"file {self._path}"

    @property
    def zones(self) -> tuple[str, ...]:
        """Zones of the file."""
        return tuple(sorted(self._series))

    def _span(self, zone: str, start_seconds: float, end_seconds: float) -> GridSeries:
        """Return the rows of a zone within a span; the only zone when none is named."""
        chosen = zone or (self.zones[0] if len(self._series) == 1 else "")
        if chosen not in self._series:
            raise SourceError(
                f"{self._path}: has no zone {zone!r}; accepted: {', '.join(self.zones)}"
            )
        series = self._series[chosen]
        time = series.time_seconds
        kept = (time > start_seconds - series.step_seconds) & (time <= end_seconds)
        return GridSeries(
            zone=chosen,
            unit=series.unit,
            source=self.name,
            time_seconds=time[kept],
            values=series.values[kept],
            step_seconds=series.step_seconds,
        )


class FilePriceProvider(_FileProvider):
    """Prices from a CSV file."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path, prefix=("price",), unit_of=price_unit, unit_text=lambda unit: f"{unit}/MWh"
        )

    def prices(self, *, zone: str, start_seconds: float, end_seconds: float) -> GridSeries:
        """Return prices per MWh of a span."""
        return self._span(zone, start_seconds, end_seconds)


class FileCarbonProvider(_FileProvider):
    """Carbon intensities from a CSV file; life-cycle values where the file has several."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            prefix=("carbon_intensity", "marginal_carbon"),
            unit_of=carbon_unit,
            unit_text=lambda signal: f"gCO2eq/kWh ({signal})",
        )

    def intensities(self, *, zone: str, start_seconds: float, end_seconds: float) -> GridSeries:
        """Return gCO2eq/kWh of a span."""
        return self._span(zone, start_seconds, end_seconds)


def _read(
    path: Path,
    *,
    prefix: tuple[str, ...],
    unit_of: Callable[[str], tuple[str, float] | None],
    unit_text: Callable[[str], str],
) -> dict[str, GridSeries]:
    points: dict[str, dict[float, float]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or ()
            time_column = _one_of(columns, _TIME_COLUMNS, path)
            zone_column = _one_of(columns, _ZONE_COLUMNS, path)
            value_column = _value_column(columns, prefix, unit_of, path)
            unit, factor = unit_of(value_column) or ("", math.nan)
            for row in reader:
                at = f"{path}: line {reader.line_num}, column"
                time = _time(row[time_column], f"{at} {time_column}")
                value = factor * _value(row[value_column], f"{at} {value_column}")
                points.setdefault(row[zone_column], {})[time] = value
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputFileError(f"{path}: cannot be read: {reason}") from error
    except csv.Error as error:
        raise InputFileError(f"{path}: line {reader.line_num}: not CSV: {error}") from error
    if not points:
        raise InputFileError(f"{path}: holds no row")
    return {
        zone: _series(zone, by_time, unit_text(unit), str(path)) for zone, by_time in points.items()
    }


def _series(zone: str, by_time: dict[float, float], unit: str, source: str) -> GridSeries:
    times = np.array(sorted(by_time))
    return GridSeries(
        zone=zone,
        unit=unit,
        source=source,
        time_seconds=times,
        values=np.array([by_time[time] for time in times]),
        step_seconds=float(np.median(np.diff(times))) if times.size > 1 else 3600.0,
    )


def _one_of(columns: Sequence[str], names: tuple[str, ...], path: Path) -> str:
    for name in names:
        if name in columns:
            return name
    raise InputFileError(f"{path}: line 1: column {' or '.join(names)} is missing")


def _value_column(
    columns: Sequence[str],
    prefix: tuple[str, ...],
    unit_of: Callable[[str], tuple[str, float] | None],
    path: Path,
) -> str:
    candidates = [column for column in columns if column.startswith(prefix)]
    known = [column for column in candidates if unit_of(column)]
    if not candidates:
        raise InputFileError(f"{path}: line 1: no column begins with {' or '.join(prefix)}")
    if not known:
        raise InputFileError(
            f"{path}: line 1: column {candidates[0]} has a unit that is not known; accepted: "
            "price_<currency>_per_mwh or _per_kwh, carbon_intensity_g_per_kwh, "
            "marginal_carbon_g_per_kwh, the same in kg_per_mwh or lb_per_mwh"
        )
    preferred = (name for start in _CARBON_PREFERENCE for name in known if name.startswith(start))
    return next(preferred, known[0])


def _time(text: str | None, at: str) -> float:
    try:
        return utc_seconds(text or "")
    except ValueError as error:
        raise InputFileError(
            f"{at}: is {text!r}; accepted: a time like 2023-06-01T18:00:00Z"
        ) from error


def _value(text: str | None, at: str) -> float:
    if text is None:
        raise InputFileError(f"{at}: is missing; the line is too short")
    if not text.strip():
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise InputFileError(f"{at}: is {text!r}; accepted: a number, or empty when missing")
    return value
