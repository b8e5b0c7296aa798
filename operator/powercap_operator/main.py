"""The console script ``powercap-operator``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import kopf

from powercap_operator.errors import SettingsError
from powercap_operator.handlers import build_registry
from powercap_operator.kube import require_configuration
from powercap_operator.settings import parse_arguments, require_liveness_port


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the operator until it is told to end."""
    own = parse_arguments(arguments)
    try:
        require_configuration()
        require_liveness_port(own)
    except SettingsError as error:
        sys.stderr.write(f"powercap-operator: error: {error}\n")
        raise SystemExit(2) from None
    logging.basicConfig(
        level=own.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # One line per request and per handler says nothing that the operator does not say itself.
    for noisy in ("httpx", "httpx2", "httpcore", "kopf.objects", "kopf.activities"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(own.log_level)))
    kopf.run(
        registry=build_registry(own),
        standalone=True,
        clusterwide=True,
        liveness_endpoint=own.liveness,
    )


if __name__ == "__main__":
    main()
