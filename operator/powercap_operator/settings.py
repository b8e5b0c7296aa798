"""Settings of the operator's process: command line over environment over defaults."""

from __future__ import annotations

import argparse
import math
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import kopf

from powercap_operator.errors import SettingsError

DOMAIN = "powercap.dev"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LAST_PORT = 65535
ALL_ADDRESSES = "0.0.0.0"

_UNSAID = object()


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
    liveness_port: int = 8080
    """Port where the probe of the last cycle answers (POWERCAP_LIVENESS_PORT); 0: none.
    Default: 8080."""
    log_level: str = "INFO"
    """Level of the log. Default: INFO."""

    @property
    def liveness(self) -> str | None:
        """Where the probe of the last cycle answers; None: nowhere."""
        if not self.liveness_port:
            return None
        return f"http://{ALL_ADDRESSES}:{self.liveness_port}/healthz"


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
    options = _Options(parser, environment)
    options.add(
        "--planner",
        "POWERCAP_PLANNER",
        _address,
        "powercap-planner:50051",
        metavar="HOST:PORT",
        help="the planner's address (environment: POWERCAP_PLANNER; default: %(default)s)",
    )
    options.add(
        "--planner-timeout",
        "POWERCAP_PLANNER_TIMEOUT",
        _seconds,
        20.0,
        metavar="SECONDS",
        help="deadline of each call to the planner (default: %(default)s)",
    )
    options.add(
        "--kube-timeout",
        "POWERCAP_KUBE_TIMEOUT",
        _seconds,
        10.0,
        metavar="SECONDS",
        help="time limit of each call to the Kubernetes API (default: %(default)s)",
    )
    options.add(
        "--settle",
        "POWERCAP_SETTLE",
        _seconds,
        60.0,
        metavar="SECONDS",
        help="time from a lowering until its pods are gone and scraped (default: %(default)s)",
    )
    options.add(
        "--interval",
        "POWERCAP_INTERVAL",
        _seconds,
        None,
        metavar="SECONDS",
        help="run every PowerCap at this interval instead of its own",
    )
    options.add(
        "--liveness-port",
        "POWERCAP_LIVENESS_PORT",
        _port_or_none,
        8080,
        metavar="PORT",
        help="port of /healthz, which fails when cycles stop; 0: none (default: %(default)s)",
    )
    options.add(
        "--log-level",
        "POWERCAP_LOG_LEVEL",
        _log_level,
        "INFO",
        metavar=f"{{{','.join(LOG_LEVELS)}}}",
        help="level of the log (default: %(default)s)",
    )
    given = options.read(arguments)
    return OperatorSettings(
        planner=given.planner,
        planner_timeout_seconds=given.planner_timeout,
        kube_timeout_seconds=given.kube_timeout,
        settle_seconds=given.settle,
        interval_seconds=given.interval,
        liveness_port=given.liveness_port,
        log_level=given.log_level,
    )


class _Options:
    """Options that a variable of the environment may set; a refusal names which of the two."""

    def __init__(self, parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
        self._parser = parser
        self._environment = environment
        self._options: dict[str, tuple[str, Callable[[str], object], object]] = {}

    def add(
        self,
        flag: str,
        variable: str,
        convert: Callable[[str], object],
        default: object,
        *,
        metavar: str,
        help: str,  # noqa: A002 (argparse's own word)
    ) -> None:
        action = self._parser.add_argument(
            flag, type=convert, default=default, metavar=metavar, help=help
        )
        self._options[action.dest] = (variable, convert, default)

    def read(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        unsaid = argparse.Namespace(**dict.fromkeys(self._options, _UNSAID))
        given = self._parser.parse_args(arguments, unsaid)
        for name, (variable, convert, default) in self._options.items():
            # A bad variable that the command line overrules does no harm.
            if getattr(given, name) is not _UNSAID:
                continue
            text = self._environment.get(variable)
            try:
                setattr(given, name, default if text is None else convert(text))
            except argparse.ArgumentTypeError as error:
                self._parser.error(f"{variable} {error}")
        return given


def require_liveness_port(own: OperatorSettings) -> None:
    """Make sure that the probe can be answered, while a message can still say so.

    Raises:
        SettingsError: the port is taken or not this process's to take.
    """
    if not own.liveness_port:
        return
    try:
        with socket.socket() as probe:
            # As the server that follows: a port of a process that just ended is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((ALL_ADDRESSES, own.liveness_port))
    except OSError as error:
        raise SettingsError(
            "POWERCAP_LIVENESS_PORT",
            f"is {own.liveness_port}: {error.strerror}; accepted: a free port, or 0",
        ) from error


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
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise _refusal(text, "seconds, more than 0")
    return value


def _port_or_none(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= LAST_PORT):
        raise _refusal(text, f"0 to {LAST_PORT}")
    return int(text)


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and 0 < int(port) <= LAST_PORT
    if not host or not is_port or any(letter.isspace() for letter in text):
        raise _refusal(text, f"host:port, with a port from 1 to {LAST_PORT}")
    return text


def _log_level(text: str) -> str:
    if text not in LOG_LEVELS:
        raise _refusal(text, ", ".join(LOG_LEVELS))
    return text


def _refusal(text: str, accepted: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"is {text!r}; accepted: {accepted}")
