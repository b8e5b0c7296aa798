"""The command line ``powercap``: finds its sub-commands, and turns mistakes into one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

import typer

from powercap_planner.cli import fit, plan, serve, solve, verify
from powercap_planner.errors import PowercapPlannerError
from powercap_solver.errors import PowercapSolverError

MISTAKE = 2
"""Exit code of a mistake in arguments or files."""
GROUP = "powercap.commands"
"""Entry points that add sub-commands: functions with typer's annotations."""


_OWN: dict[str, Callable[..., None]] = {
    "plan": plan.command,
    "solve": solve.command,
    "verify": verify.command,
    "fit": fit.command,
    "serve": serve.command,
}


def make_app(*, asked: str | None = None) -> typer.Typer:
    """Return the application with all sub-commands that are installed.

    Args:
        asked: the sub-command that will run, where that is known. When it is one of our own,
            those of other parts are not even imported: that would take longer than the command.
    """
    app = typer.Typer(
        name="powercap",
        help="Serve as many LLM tokens as possible under a power cap.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for name, function in _OWN.items():
        app.command(name)(function)
    if asked not in _OWN:
        for found in sorted(entry_points(group=GROUP), key=lambda one: one.name):
            app.command(found.name)(_loaded(found))
    return app


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # Its warnings of retries say at length what our error says in one line.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        make_app(asked=next(iter(sys.argv[1:]), None))()
    except (PowercapPlannerError, PowercapSolverError) as error:
        sys.stderr.write(f"powercap: {' '.join(str(error).split())}\n")
        sys.exit(MISTAKE)


def _loaded(found: EntryPoint) -> Callable[..., None]:
    """Return the function of an entry point; one that cannot be imported says so when called."""
    try:
        function: Callable[..., None] = found.load()
    except ImportError as error:
        missing = str(error)

        def unavailable() -> None:
            raise PowercapPlannerError(f"{found.name} is not available: {missing}")

        unavailable.__doc__ = "Not available in this installation."
        return unavailable
    return function
