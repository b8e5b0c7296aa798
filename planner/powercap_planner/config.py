"""The planner's configuration: one typed tree; flags over environment over file over defaults.

The file is YAML with the names below; a nested name joins with an underscore in the environment
(``POWERCAP_PROMETHEUS_URL`` sets ``prometheus: {url: …}``). An unknown name in the file is an
error, an unknown variable is none of ours.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from powercap_planner.errors import InputFileError

ENVIRONMENT_PREFIX = "POWERCAP_"
_Config = TypeVar("_Config")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusLabels:
    """Names of labels that depend on how the cluster scrapes."""

    kube_namespace: str = "namespace"
    """Of kube-state-metrics; ``exported_namespace`` when scraped without honorLabels."""
    kube_pod: str = "pod"
    kube_node: str = "node"
    serving_namespace: str = "namespace"
    """Of the inference servers' own metrics."""
    serving_pod: str = "pod"
    gpu_uuid: str = "UUID"
    gpu_model: str = "modelName"
    kepler_zone: str = "package"
    """The one RAPL zone that counts: zones overlap and are never summed."""
    gpu_resource: str = "nvidia_com_gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusConfig:
    """How to ask Prometheus."""

    url: str = ""
    """For example ``http://prometheus.monitoring:9090``; empty: not used."""
    timeout_seconds: float = 10.0
    """Of each query, at the server too, s."""
    bearer_token_file: str = ""
    """Read again for each query: projected tokens rotate."""
    ca_file: str = ""
    """Roots to trust with https; empty: the system's."""
    rate_window_seconds: float = 120.0
    """Least window of rates and means: at least four scrape intervals, s."""
    power_window_seconds: float = 60.0
    """Least window of the measured total, s."""
    stale_after_seconds: float = 180.0
    """Older power samples are not used, s."""
    remember_seconds: float = 86400.0
    """A GPU or host that falls silent is expected for so long unless its node is gone, s."""
    remember_maximum_seconds: float = 86400.0 * 30
    """The user's maximum of a request that states none is the highest that the autoscaler had
    within this time, s: clients write lower ones."""
    assumed_host_watts_per_node: float | None = None
    """Charged for each host with GPUs that Kepler does not report, whatever it does, W; without
    any Kepler (cloud VMs) it must be stated, else 800 W."""
    labels: PrometheusLabels = field(default_factory=PrometheusLabels)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridConfig:
    """Price and carbon intensity of electricity."""

    zone: str = ""
    """Default zone of requests that name none."""
    price_per_mwh: float | None = None
    """A constant price; None with no file: price does not count."""
    currency: str = "EUR"
    carbon_g_per_kwh: float | None = None
    """A constant carbon intensity; None with no file: carbon does not count."""
    price_file: str = ""
    """CSV of prices, used instead of the constant."""
    carbon_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """All that ``powercap serve`` and ``powercap-planner`` take."""

    listen: str = "0.0.0.0:50051"
    """``host:port``; port 0 takes a free one."""
    observations: str = ""
    """Observation file to replay instead of Prometheus; read again when it changes."""
    observations_clock: str = "system"
    """``file``: now is the file's last time, however old it is; ``system``: the real now."""
    history_seconds: float = 86400.0 * 2
    """History read for curves and forecasts, s."""
    step_seconds: float = 300.0
    """Width of one window of the history, s."""
    refresh_seconds: float = 30.0
    """Observe again this often, s."""
    refit_seconds: float = 600.0
    """Fit the curves again this often, s."""
    stale_after_seconds: float = 300.0
    """An older snapshot is no longer planned with, s."""
    record: str = ""
    """Folder to keep the problem and plan files of the newest answers in; empty: not kept."""
    tls_certificate: str = ""
    """PEM file of the server; with ``tls_key``, else plaintext."""
    tls_key: str = ""
    tls_client_ca: str = ""
    """Roots of client certificates: given, every client must have one."""
    prometheus: PrometheusConfig = field(default_factory=PrometheusConfig)
    grid: GridConfig = field(default_factory=GridConfig)

    def __post_init__(self) -> None:
        """Check what a type cannot say.

        Raises:
            InputFileError: naming the field, its value and what is accepted.
        """
        for name in ("history", "step", "refresh", "refit", "stale_after"):
            _require_positive(f"{name}_seconds", getattr(self, f"{name}_seconds"))
        for name in (
            "timeout",
            "rate_window",
            "power_window",
            "stale_after",
            "remember",
            "remember_maximum",
        ):
            value = getattr(self.prometheus, f"{name}_seconds")
            _require_positive(f"prometheus.{name}_seconds", value)
        if self.step_seconds != int(self.step_seconds):
            raise InputFileError(f"step_seconds: is {self.step_seconds}; accepted: whole seconds")
        if self.history_seconds < 2 * self.step_seconds:
            raise InputFileError(
                f"history_seconds: is {self.history_seconds}; accepted: at least two steps "
                f"({2 * self.step_seconds})"
            )
        if self.observations_clock not in ("system", "file"):
            raise InputFileError(
                f"observations_clock: is {self.observations_clock!r}; accepted: system, file"
            )
        if bool(self.observations) == bool(self.prometheus.url):
            given = "both are" if self.observations else "none is"
            raise InputFileError(
                f"prometheus.url, observations: {given} given; accepted: exactly one of them"
            )
        url = self.prometheus.url
        if url and not url.startswith(("http://", "https://")):
            raise InputFileError(
                f"prometheus.url: is {url!r}; accepted: an address that begins with http:// or "
                "https://"
            )
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise InputFileError("tls_certificate, tls_key: accepted: both or neither")
        if self.tls_client_ca and not self.tls_key:
            raise InputFileError("tls_client_ca: accepted: only with tls_certificate and tls_key")


def load(
    *,
    file: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, object],
) -> ServeConfig:
    """Return the configuration of all layers.

    Args:
        file: YAML file, or None.
        environment: usually ``os.environ``.
        flags: dotted name to value; None is "not given".

    Raises:
        InputFileError: naming the layer, the field, its value and what is accepted.
    """
    tree: dict[str, Any] = {} if file is None else _read(file)
    for dotted, kind in _leaves(ServeConfig):
        variable = ENVIRONMENT_PREFIX + dotted.replace(".", "_").upper()
        if variable in environment:
            _put(tree, dotted, _from_text(environment[variable], kind=kind, where=variable))
    for dotted, value in flags.items():
        if value is not None:
            _put(tree, dotted, value)
    return _build(ServeConfig, tree, where="" if file is None else f"{file}: ")


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise InputFileError(f"{file}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputFileError(f"{file}: not YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputFileError(f"{file}: holds a {type(tree).__name__}; accepted: names and values")
    return tree


def _leaves(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(kind)
    for one in fields(kind):
        if is_dataclass(hints[one.name]):
            yield from _leaves(hints[one.name], f"{prefix}{one.name}.")
        else:
            yield prefix + one.name, hints[one.name]


def _put(tree: dict[str, Any], dotted: str, value: object) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        child = tree.setdefault(parent, {})
        if not isinstance(child, dict):
            raise InputFileError(f"{parent}: is {child!r}; accepted: a mapping")
        tree = child
    tree[last] = value


def _build(kind: type[_Config], tree: Mapping[str, Any], *, where: str) -> _Config:
    hints = typing.get_type_hints(kind)
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    for name in tree:
        if name not in known:
            raise InputFileError(f"{where}{name}: is unknown; accepted: {', '.join(known)}")
    values: dict[str, Any] = {}
    for name, one in known.items():
        if name not in tree:
            assert one.default is not MISSING or one.default_factory is not MISSING
        elif is_dataclass(hints[name]):
            if not isinstance(tree[name], dict):
                raise InputFileError(f"{where}{name}: is {tree[name]!r}; accepted: a mapping")
            values[name] = _build(hints[name], tree[name], where=f"{where}{name}.")
        else:
            values[name] = _checked(tree[name], kind=hints[name], where=f"{where}{name}")
    return kind(**values)


def _checked(value: object, *, kind: Any, where: str) -> object:
    accepts = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in accepts:
        return None
    if float in accepts and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
        raise InputFileError(f"{where}: is {value}; accepted: a finite number")
    if str in accepts and isinstance(value, str | Path):
        return str(value)
    accepted = "a number" if float in accepts else "text"
    raise InputFileError(f"{where}: is {value!r}; accepted: {accepted}")


def _from_text(text: str, *, kind: Any, where: str) -> object:
    if kind is str:
        return text
    try:
        return float(text)
    except ValueError as error:
        raise InputFileError(f"{where}: is {text!r}; accepted: a number") from error


def _require_positive(name: str, value: float) -> None:
    if not value > 0:
        raise InputFileError(f"{name}: is {value}; accepted: more than 0")
