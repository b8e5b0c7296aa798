"""What validation of the problem and its parts shares: shapes, ranges, and how they are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from powercap_solver.arrays import BoolArray
from powercap_solver.errors import ProblemError


def check_arrays(
    part: Any,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    path: str = "",
    may_be_infinite: frozenset[str] = frozenset(),
    may_be_unknown: frozenset[str] = frozenset(),
) -> None:
    """Check shape and finiteness of every array of a part and make the arrays read-only.

    Args:
        part: a dataclass.
        shapes: of each array field.
        path: what stands before the field's name in a message.
        may_be_infinite: fields where infinity says "no limit".
        may_be_unknown: fields where NaN says "not known".

    Raises:
        ProblemError: naming the field.
    """
    for field in fields(part):
        value = getattr(part, field.name)
        if not isinstance(value, np.ndarray):
            continue
        shape = shapes[field.name]
        if value.shape != shape:
            raise ProblemError(f"{path}{field.name} has shape {value.shape}, expected {shape}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            if field.name not in may_be_unknown and np.isnan(value).any():
                raise ProblemError(f"{path}{field.name} holds a value that is not finite")
            if field.name not in may_be_infinite and np.isinf(value).any():
                raise ProblemError(f"{path}{field.name} holds a value that is not finite")
        value.setflags(write=False)


def require(part: Any, name: str, ok: BoolArray, accepted: str, *, path: str = "") -> None:
    """Refuse a part where ``ok`` is False, naming the first such entry of field ``name``.

    Raises:
        ProblemError: naming the field, the value and what would be accepted.
    """
    if ok.all():
        return
    index = tuple(int(i) for i in np.argwhere(~ok)[0])
    value = np.asarray(getattr(part, name))
    shown = value[index] if value.shape == ok.shape else value[index[0]]
    raise ProblemError(f"{path}{name}{list(index)} is {shown}; accepted: {accepted}")


def check_unique(names: tuple[str, ...], label: str) -> None:
    """Refuse names that occur twice.

    Raises:
        ProblemError: naming the first.
    """
    if len(set(names)) != len(names):
        twice = next(value for value in names if names.count(value) > 1)
        raise ProblemError(f"{label} holds {twice!r} twice; names must be unique")
