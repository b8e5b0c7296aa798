"""Stdout for what a command prints itself, whatever a back end writes to it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def only_ours_on_stdout() -> Iterator[None]:
    """Send to stderr what is written to stdout inside, by Python, C code or child processes."""
    # None where a program starts with its standard output closed.
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:
        # No standard output at all: nothing to protect.
        yield
        return
    try:
        _point_stdout_at_stderr()
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        # What C code has buffered would appear on the real stdout later, at the latest at exit.
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def _point_stdout_at_stderr() -> None:
    try:
        os.dup2(2, 1)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
