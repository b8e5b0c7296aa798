"""Settings of the operator's process: command line over environment over defaults."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import kopf

DOMAIN = "powercap.dev"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """How this process runs; what a cap should do is the PowerCap's to say."""

    planner: str
    """``host:port`` of the planner (POWERCAP_PLANNER). Default: powercap-planner:50051."""
    planner_timeout_seconds: float = 20.0
    """Deadline of each call to the planner, s; shorter than a cycle. Default: 20."""
    kube_timeout_seconds: float = 10.0
    """Time limit of each call to the Kubernetes API, s. Default: 10."""
    settle_seconds: float = 60.0
    """From a lowering until its pods are gone and scraped, s. Default: 60."""
    interval_seconds: float | None = None
    """Overrides ``spec.intervalSeconds`` of every PowerCap, s. Default: none."""
    liveness: str | None = "http://0.0.0.0:8080/healthz"
    """Where the probe of the last cycle answers; None: nowhere. Default: port 8080."""
    log_level: str = "INFO"
    """Level of the log. Default: INFO."""


def parse_arguments(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ
) -> OperatorSettings:
    """Read the command line; ends the process with a message where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="powercap-operator",
        description="Keeps LLM inference under its power caps: asks the planner each cycle and "
        "writes maxReplicaCount of KEDA ScaledObjects as each PowerCap says.",
        epilog="The cluster is found through the pod's service account, or through KUBECONFIG.",
    )
    parser.add_argument(
        "--planner",
        metavar="HOST:PORT",
        default=environment.get("POWERCAP_PLANNER", "powercap-planner:50051"),
        help="the planner's address (environment: POWERCAP_PLANNER; default: %(default)s)",
    )
    parser.add_argument(
        "--planner-timeout",
        metavar="SECONDS",
        type=_seconds,
        default=_from(environment, "POWERCAP_PLANNER_TIMEOUT", 20.0),
        help="deadline of each call to the planner (default: %(default)s)",
    )
    parser.add_argument(
        "--kube-timeout",
        metavar="SECONDS",
        type=_seconds,
        default=_from(environment, "POWERCAP_KUBE_TIMEOUT", 10.0),
        help="time limit of each call to the Kubernetes API (default: %(default)s)",
    )
    parser.add_argument(
        "--settle",
        metavar="SECONDS",
        type=_seconds,
        default=_from(environment, "POWERCAP_SETTLE", 60.0),
        help="time from a lowering until its pods are gone and scraped (default: %(default)s)",
    )
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_seconds,
        default=_from(environment, "POWERCAP_INTERVAL", None),
        help="run every PowerCap at this interval instead of its own",
    )
    parser.add_argument(
        "--liveness-port",
        metavar="PORT",
        type=int,
        default=int(environment.get("POWERCAP_LIVENESS_PORT", "8080")),
        help="port of /healthz, which fails when cycles stop; 0: none (default: %(default)s)",
    )
    parser.add_argument(
        "--log-level",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        default=environment.get("POWERCAP_LOG_LEVEL", "INFO"),
        help="level of the log (default: %(default)s)",
    )
    given = parser.parse_args(arguments)
    return OperatorSettings(
        planner=given.planner,
        planner_timeout_seconds=given.planner_timeout,
        kube_timeout_seconds=given.kube_timeout,
        settle_seconds=given.settle,
        interval_seconds=given.interval,
        liveness=f"http://0.0.0.0:{given.liveness_port}/healthz" if given.liveness_port else None,
        log_level=given.log_level,
    )


def configure_kopf(settings: kopf.OperatorSettings) -> None:
    """Set what of kopf's defaults does not fit a control loop."""
    # Recreate and one replica keep it single; peering with equal priorities would freeze both.
    settings.peering.standalone = True
    settings.persistence.finalizer = f"{DOMAIN}/restore"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=DOMAIN)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(
        prefix=DOMAIN, key="last-handled-configuration"
    )
    settings.networking.request_timeout = 60.0
    settings.networking.connect_timeout = 10.0
    # Whole seconds: the API server refuses "600.0".
    settings.watching.server_timeout = 600
    settings.watching.connect_timeout = 10.0
    # The operator posts its own Events; kopf's would tell of every handler that succeeded.
    settings.posting.enabled = False
    settings.execution.default_backoff = 10.0


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} s; accepted: more than 0")
    return value


def _from(environment: Mapping[str, str], name: str, default: float | None) -> float | str | None:
    # argparse converts a text default like an argument, with the same refusal.
    return environment.get(name, default)
