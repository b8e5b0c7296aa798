"""A site described in a YAML file, planned offline from measured curves.

The form is documented in docs/offline-what-if.md. Paths in the file are relative to it and may
hold variables of the environment.
"""

from __future__ import annotations

import csv
import math
import os
from dataclasses import replace
from pathlib import Path

import yaml

from powercap_planner.curves.nameplate import find_gpu
from powercap_planner.curves.table import (
    UPPER_MARGIN_FRACTION,
    MeasuredCurve,
    model_from_curve,
    read_curves,
)
from powercap_planner.errors import InputFileError
from powercap_planner.forecast.load import LoadForecast
from powercap_planner.grid.weight import GridConditions
from powercap_planner.inputs import PlanningInputs, PlanningSettings, TargetInputs
from powercap_planner.observations import ReplicaRule
from powercap_planner.outcome import TargetStatus
from powercap_planner.request import CapSpec, ObjectiveKind, ObjectiveSpec
from powercap_planner.sources.fields import Fields
from powercap_planner.units import utc_seconds

_SITE = frozenset(
    {
        "at",
        "cap",
        "carbon",
        "deployments",
        "gpus",
        "host_idle_watts",
        "objective",
        "price",
        "target_utilisation_fraction",
        "unmanaged_watts",
        "upper_margin_fraction",
        "zone",
    }
)
_CAP = frozenset({"watts", "window_seconds", "overhead_factor", "fixed_overhead_watts"})
_OBJECTIVE = frozenset(
    {
        "kind",
        "price_weight",
        "carbon_weight",
        "served_share_fraction",
        "stability_tolerance_fraction",
    }
)
_GPU = frozenset({"count", "parked_watts", "idle_watts"})
_LOAD = frozenset({"file", "column", "scale", "at_seconds"})
_DEPLOYMENT = frozenset(
    {
        "allowed_replicas",
        "curve",
        "load",
        "max_replicas",
        "min_replicas",
        "min_served_fraction",
        "name",
        "namespace",
        "priority",
        "replicas",
        "weight",
    }
)


class _Loader(yaml.SafeLoader):
    """YAML without its own times: ``at`` stays the text the user wrote."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class declares it so
        first: [one for one in resolvers if one[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class Site:
    """A site file, checked; ``inputs`` turns it into what a plan follows from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fields = _load_yaml(path)
        self._fields.refuse_unknown(_SITE)

    @property
    def cap_watts(self) -> float | None:
        """The site's own cap, W; None when it states none."""
        if not self._fields.has("cap"):
            return None
        return self._fields.child("cap").number("watts", above=0)

    @property
    def zone(self) -> str:
        """Grid zone, empty when none is stated."""
        return self._fields.text_or("zone", "")

    @property
    def at_seconds(self) -> float | None:
        """Moment of the plan, Unix time; None when none is stated."""
        if not self._fields.has("at"):
            return None
        text = self._fields.text("at")
        try:
            return utc_seconds(text)
        except ValueError as error:
            raise self._fields.error(
                "at", f"is {text!r}; accepted: a time like '2023-06-01T18:00:00Z'"
            ) from error

    def grid_source(self, key: str) -> float | Path | None:
        """Return the constant or the file of ``price`` or ``carbon``; None when not stated."""
        if not self._fields.has(key):
            return None
        try:
            return self._fields.number(key)
        except InputFileError:
            return self._file(self._fields, key)

    def inputs(
        self, *, curves_path: Path, cap_watts: float, grid: GridConditions
    ) -> PlanningInputs:
        """Return what the plan of this site follows from.

        Args:
            curves_path: CSV file of measured curves.
            cap_watts: the cap that holds, W.
            grid: price and carbon at the moment of the plan.

        Raises:
            InputFileError: naming the field of the site file, or line and column of a CSV file.
        """
        curves = read_curves(curves_path)
        fields = self._fields
        gpus = {
            name: _GpuPool(fields.child("gpus").child(name)) for name in fields.child("gpus").names
        }
        targets = tuple(
            self._target(one, curves, gpus, curves_path) for one in fields.children("deployments")
        )
        keys = [one.key for one in targets]
        if not keys or len(set(keys)) != len(keys):
            raise fields.error("deployments", "is empty or names one twice; accepted: each once")
        base = fields.number("host_idle_watts", low=0)
        base += sum(pool.count * pool.parked_watts(name) for name, pool in gpus.items())
        cap = fields.child("cap") if fields.has("cap") else Fields({}, path="cap")
        cap.refuse_unknown(_CAP)
        utilisation = fields.number_or(
            "target_utilisation_fraction",
            PlanningSettings().target_utilisation_fraction,
            above=0,
        )
        return PlanningInputs(
            targets=targets,
            cap=CapSpec(
                watts=cap_watts,
                window_seconds=cap.number_or("window_seconds", 60.0, above=0),
                overhead_factor=cap.number_or("overhead_factor", 1.0, low=1),
                fixed_overhead_watts=cap.number_or("fixed_overhead_watts", 0.0, low=0),
            ),
            objective=self._objective(),
            base_watts=base,
            unmanaged_watts=fields.number_or("unmanaged_watts", 0.0, low=0),
            grid=grid,
            settings=PlanningSettings(target_utilisation_fraction=utilisation),
            findings=(
                *grid.findings,
                *(
                    replace(finding, deployment=one.key)
                    for one in targets
                    for finding in one.model.findings
                ),
            ),
        )

    def _objective(self) -> ObjectiveSpec:
        if not self._fields.has("objective"):
            return ObjectiveSpec()
        fields = self._fields.child("objective")
        fields.refuse_unknown(_OBJECTIVE)
        default = ObjectiveSpec()
        share = None
        if fields.has("served_share_fraction"):
            share = fields.number("served_share_fraction", low=0)
        return ObjectiveSpec(
            kind=ObjectiveKind(fields.choice("kind", tuple(ObjectiveKind)))
            if fields.has("kind")
            else default.kind,
            price_weight=fields.number_or("price_weight", default.price_weight, low=0),
            carbon_weight=fields.number_or("carbon_weight", default.carbon_weight, low=0),
            served_share_fraction=share,
            stability_tolerance_fraction=fields.number_or(
                "stability_tolerance_fraction", default.stability_tolerance_fraction, low=0
            ),
        )

    def _target(
        self,
        fields: Fields,
        curves: dict[str, MeasuredCurve],
        gpus: dict[str, _GpuPool],
        curves_path: Path,
    ) -> TargetInputs:
        fields.refuse_unknown(_DEPLOYMENT)
        curve = curves.get(fields.text("curve"))
        if curve is None:
            raise fields.error(
                "curve", f"is {fields.text('curve')!r}; accepted: a curve_id of {curves_path}"
            )
        pool = gpus.get(curve.gpu_type)
        if pool is None:
            raise fields.error(
                "curve", f"runs on {curve.gpu_type}, which gpus does not hold ({', '.join(gpus)})"
            )
        maximum = fields.whole("max_replicas", low=1)
        minimum = fields.whole_or_none("min_replicas")
        minimum = 1 if minimum is None else minimum
        if minimum > maximum:
            raise fields.error(
                "max_replicas", f"is {maximum}; accepted: min_replicas ({minimum}) or more"
            )
        rule = ReplicaRule.CEILING
        if fields.has("replicas"):
            rule = ReplicaRule(fields.choice("replicas", tuple(ReplicaRule)))
        share = fields.number_or("min_served_fraction", 0.0, low=0)
        if share > 1:
            raise fields.error("min_served_fraction", f"is {share:g}; accepted: 0 to 1")
        return TargetInputs(
            namespace=fields.text_or("namespace", "default"),
            name=fields.text("name"),
            status=TargetStatus.PLANNED,
            note="",
            model=model_from_curve(
                curve,
                parked_gpu_watts=pool.parked_watts(curve.gpu_type),
                idle_gpu_watts=pool.idle_watts,
                upper_margin_fraction=self._fields.number_or(
                    "upper_margin_fraction", UPPER_MARGIN_FRACTION, low=0
                ),
            ),
            forecast=self._load(fields),
            replica_rule=rule,
            min_replicas=max(minimum, 1) if rule is ReplicaRule.CEILING else minimum,
            running_min_replicas=minimum,
            max_replicas=maximum,
            weight=fields.number_or("weight", 1.0, above=0),
            priority=fields.whole_or_none("priority", low=-(2**31)) or 0,
            min_served_fraction=share,
            allowed_replicas=fields.whole_or_none("allowed_replicas"),
            present_replicas=None,
        )

    def _load(self, fields: Fields) -> LoadForecast:
        try:
            return LoadForecast.point(fields.number("load", low=0), method="stated")
        except InputFileError:
            if not fields.is_object("load"):
                raise
        load = fields.child("load")
        load.refuse_unknown(_LOAD)
        value = _trace_value(
            self._file(load, "file"), load.text("column"), load.number("at_seconds", low=0)
        )
        return LoadForecast.point(value * load.number_or("scale", 1.0, low=0), method="trace")

    def _file(self, fields: Fields, key: str) -> Path:
        """Return a path, relative to the site file; $NAME is taken from the environment."""
        text = os.path.expandvars(fields.text(key))
        if "$" in text:
            raise fields.error(key, f"is {text!r}; the variable in it is not set")
        return self.path.parent / text


class _GpuPool:
    def __init__(self, fields: Fields) -> None:
        fields.refuse_unknown(_GPU)
        self._fields = fields
        self.count = fields.whole("count")
        self.idle_watts = fields.number("idle_watts", low=0) if fields.has("idle_watts") else None

    def parked_watts(self, name: str) -> float:
        if self._fields.has("parked_watts"):
            return self._fields.number("parked_watts", low=0)
        gpu = find_gpu(name)
        if gpu is None:
            raise self._fields.error(
                "parked_watts", f"is missing, and GPU type {name} is not in the table"
            )
        return gpu.parked_watts


def _load_yaml(path: Path) -> Fields:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputFileError(f"{path}: cannot be read: {reason}") from error
    except yaml.YAMLError as error:
        at = getattr(error, "problem_mark", None)
        where = f"line {at.line + 1}, column {at.column + 1}" if at else "somewhere"
        raise InputFileError(f"{path}: {where}: not YAML") from error
    try:
        return Fields(document)
    except InputFileError as error:
        raise InputFileError(f"{path}: {error}") from error


def _trace_value(path: Path, column: str, at_seconds: float) -> float:
    """Return the value of the window of a load trace (column ``time_s``) that holds a time."""
    found: tuple[float, str] | None = None
    line = 0
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for name in ("time_s", column):
                if name not in (reader.fieldnames or ()):
                    raise InputFileError(f"{path}: line 1: column {name} is missing")
            for row in reader:
                at = f"{path}: line {reader.line_num}, column"
                time = _cell(row["time_s"], f"{at} time_s")
                if found and time == found[0]:
                    raise InputFileError(f"{at} time_s: {time:g} occurs twice; accepted: once")
                if time <= at_seconds and (found is None or time > found[0]):
                    found, line = (time, row[column]), reader.line_num
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputFileError(f"{path}: cannot be read: {reason}") from error
    except csv.Error as error:
        raise InputFileError(f"{path}: line {reader.line_num}: not CSV: {error}") from error
    if found is None:
        raise InputFileError(f"{path}: has no row at or before {at_seconds:g} s")
    return _cell(found[1], f"{path}: line {line}, column {column}")


def _cell(text: str | None, at: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputFileError(f"{at}: is {text!r}; accepted: a number of 0 or more")
    return value
