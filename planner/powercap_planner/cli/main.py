"""The command line ``powercap``: finds its sub-commands, and turns mistakes into one line."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

import typer

from powercap_planner.errors import PowercapPlannerError
from powercap_solver.errors import PowercapSolverError

MISTAKE = 2
"""Exit code of a mistake in arguments or files."""
GROUP = "powercap.commands"
"""Entry points that add sub-commands: functions with typer's annotations."""


_OWN = ("plan", "solve", "verify", "fit", "serve")
"""Modules beside this one, each with a function ``command``."""


def make_app(*, asked: str | None = None) -> typer.Typer:
    """Return the application with all sub-commands that are installed.

    Args:
        asked: the sub-command that will run, where that is known: the others are not even
            imported, which would take longer than the command.
    """
    app = typer.Typer(
        name="powercap",
        help="Serve as many LLM tokens as possible under a power cap.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    # Without a callback typer takes a single command for the whole program.
    app.callback()(_no_common_options)
    others = sorted(entry_points(group=GROUP), key=lambda one: one.name)
    loaders: dict[str | None, Callable[[], Callable[..., None]]] = {
        name: partial(_own, name) for name in _OWN
    }
    loaders |= {found.name: partial(_loaded, found) for found in others}
    wanted = loaders if asked not in loaders else {asked: loaders[asked]}
    for name, load in wanted.items():
        function = load()
        app.command(name, help=_help(function))(function)
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


def _help(function: Callable[..., None]) -> str:
    """Return a command's docstring for the screen, with its examples line by line."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    # A line of "\b" alone keeps click from filling the paragraph below it.
    return "\n\n".join(
        f"\b\n{text}" if any(line.startswith(" ") for line in text.splitlines()) else text
        for text in paragraphs
    )


def _no_common_options() -> None:
    """Serve as many LLM tokens as possible under a power cap."""


def _own(name: str) -> Callable[..., None]:
    function: Callable[..., None] = import_module(f"powercap_planner.cli.{name}").command
    return function


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
