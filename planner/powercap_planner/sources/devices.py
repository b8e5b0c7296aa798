"""Which GPUs and hosts exist, and which of them nobody reports: missing must not read as 0 W.

Three exporters name a cluster's hosts: dcgm-exporter those it runs on, Kepler those it measures,
kube-state-metrics the nodes that offer GPUs. Their names are compared without port and domain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from powercap_planner.observations import Finding
from powercap_planner.sources.prometheus_api import Series
from powercap_planner.sources.promql import GPU_WATTS_LIMIT

ASSUMED_HOST_WATTS = 800.0
"""Charged for a host with GPUs that Kepler does not report where nothing else is stated: two
sockets at their limit of 400 W."""
UNREPORTED_GPU = "unreported"
"""GPU type of those that no exporter names."""
_NAMED = 5
"""Names that a message lists."""
_ADDRESS = re.compile(r"[0-9.]+|.*:.*:.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """What exists against what is reported."""

    gpu_hosts: tuple[str, ...]
    """Hosts with GPUs, by dcgm-exporter or kube-state-metrics."""
    hosts_without_kepler: tuple[str, ...]
    """Of these, those that Kepler did not report within the time that they are remembered."""
    unreported_gpus: Mapping[str, int]
    """By node: GPUs that Kubernetes counts and dcgm-exporter does not report."""
    silent_gpus: tuple[Series, ...]
    """Watts of the GPUs that exist and have been silent for over an hour."""
    silent_hosts: tuple[Series, ...]

    @property
    def silent_gpu_watts(self) -> tuple[float, ...]:
        """The most each long silent GPU drew, W; one that reported what cannot be is left out."""
        watts = (one.points[0][1] for one in self.silent_gpus)
        return tuple(one for one in watts if 0 <= one <= GPU_WATTS_LIMIT)

    @property
    def silent_host_watts(self) -> tuple[float, ...]:
        """The most each long silent host drew, W."""
        return tuple(one.points[0][1] for one in self.silent_hosts)

    @property
    def unreported_count(self) -> int:
        """GPUs that dcgm-exporter does not report."""
        return sum(self.unreported_gpus.values())

    @property
    def unreported_text(self) -> str:
        """The nodes and their GPUs, for messages."""
        return _listed(f"{node}: {count}" for node, count in self.unreported_gpus.items())

    def host_finding(self, *, watts_per_host: float) -> Finding:
        """Return what to say of the hosts without Kepler."""
        message = (
            f"Kepler does not report {len(self.hosts_without_kepler)} of {len(self.gpu_hosts)} "
            f"hosts with GPUs ({_listed(self.hosts_without_kepler)}): {watts_per_host:g} W are "
            "assumed for each."
        )
        return Finding(reason="HostPowerAssumed", message=message)


def compare(
    *,
    gpu_hosts: tuple[Series, ...],
    kube_gpus: tuple[Series, ...],
    kepler_hosts: tuple[Series, ...],
    silent_gpus: tuple[Series, ...] = (),
    silent_hosts: tuple[Series, ...] = (),
) -> Devices:
    """Return what the answers of the queries with these names say together."""
    reported, counted = _by_node(gpu_hosts), _by_node(kube_gpus)
    for one in silent_gpus:
        node = short_name(one.labels.get("node", ""))
        reported[node] = reported.get(node, 0) + 1
    if counted and reported and not counted.keys() & reported.keys():
        # The names are of two kinds and cannot be joined: only their sums compare.
        missing = {"cluster": _missing(sum(counted.values()), sum(reported.values()))}
        hosts = set(counted if len(counted) > len(reported) else reported)
    else:
        missing = {node: _missing(count, reported.get(node, 0)) for node, count in counted.items()}
        hosts = {*counted, *reported}
    measured = {*_by_node(kepler_hosts), *_by_node(silent_hosts)}
    without = sorted(hosts - measured)
    if len(without) == len(hosts) and measured:
        # None of the names is the same: as many are missing as there are fewer.
        without = without[len(measured) :]
    return Devices(
        gpu_hosts=tuple(sorted(hosts)),
        hosts_without_kepler=tuple(without),
        unreported_gpus={node: count for node, count in sorted(missing.items()) if count},
        silent_gpus=silent_gpus,
        silent_hosts=silent_hosts,
    )


def short_name(node: str) -> str:
    """Return the name of a host without domain; an address stays as it is."""
    return node if _ADDRESS.fullmatch(node) else node.partition(".")[0].lower()


def _by_node(series: tuple[Series, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in series:
        node = short_name(one.labels.get("node", ""))
        counts[node] = max(counts.get(node, 0), round(one.points[0][1]))
    return counts


def _missing(counted: int, reported: int) -> int:
    # Kubernetes counts a shared GPU (time slicing, MIG) several times over: at least twice.
    is_shared = 0 < 2 * reported <= counted
    return 0 if is_shared else max(counted - reported, 0)


def _listed(names: Iterable[str]) -> str:
    all_names = list(names)
    more = f" and {len(all_names) - _NAMED} more" if len(all_names) > _NAMED else ""
    return ", ".join(all_names[:_NAMED]) + more
