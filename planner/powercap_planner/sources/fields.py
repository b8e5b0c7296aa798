"""Fields of a parsed JSON or YAML document, read with their path for the error message.

Used where documents of users enter: everything wrong with them becomes one ``InputFileError``
that names the field, the value and what is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from powercap_planner.errors import InputFileError
from powercap_planner.observations import FloatArray

_KINDS: dict[type, str] = {
    bool: "true or false",
    dict: "an object",
    int: "a whole number",
    list: "a list",
    str: "a text",
}


class Fields:
    """One object of a document; every read checks type and range."""

    def __init__(self, value: object, *, path: str = "") -> None:
        if not isinstance(value, Mapping):
            raise InputFileError(f"{path or 'document'}: is {_shown(value)}; accepted: an object")
        self._value: Mapping[str, Any] = value
        self.path = path

    def refuse_unknown(self, known: frozenset[str]) -> None:
        """Refuse a field that nobody reads: most likely it is misspelt.

        Raises:
            InputFileError: naming the field and the accepted ones.
        """
        for key in self._value:
            if key not in known:
                accepted = ", ".join(sorted(known))
                raise InputFileError(f"{self._at(str(key))}: is not known; accepted: {accepted}")

    def has(self, key: str) -> bool:
        """Tell whether the field is there and not null."""
        return self._value.get(key) is not None

    def is_object(self, key: str) -> bool:
        """Tell whether the field holds an object."""
        return isinstance(self._value.get(key), Mapping)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields that are there."""
        return tuple(str(key) for key in self._value)

    def text(self, key: str) -> str:
        """Return a text that is not empty."""
        value = self._typed(key, str)
        if not value:
            raise self.error(key, "is empty; accepted: a text")
        return str(value)

    def text_or(self, key: str, default: str) -> str:
        """Return a text, the default when the field is missing."""
        return str(self._typed(key, str)) if self.has(key) else default

    def choice(self, key: str, accepted: Sequence[str]) -> str:
        """Return a text that is one of the accepted ones."""
        value = self.text(key)
        if value not in accepted:
            raise self.error(key, f"is {value!r}; accepted: {' or '.join(accepted)}")
        return value

    def number(self, key: str, *, low: float = -math.inf, above: float = -math.inf) -> float:
        """Return a finite number that is at least ``low`` and more than ``above``."""
        return self._number(self._required(key), self._at(key), low=low, above=above)

    def number_or(
        self, key: str, default: float, *, low: float = -math.inf, above: float = -math.inf
    ) -> float:
        """Return a number as ``number`` does, the default when the field is missing."""
        return self.number(key, low=low, above=above) if self.has(key) else default

    def whole(self, key: str, *, low: int = 0) -> int:
        """Return a whole number that is at least ``low``."""
        value = int(self._typed(key, int))
        if value < low:
            raise self.error(key, f"is {value}; accepted: {low} or more")
        return value

    def whole_or_none(self, key: str, *, low: int = 0) -> int | None:
        """Return a whole number, None when the field is missing or null."""
        return self.whole(key, low=low) if self.has(key) else None

    def child(self, key: str) -> Fields:
        """Return the object in a field."""
        return Fields(self._required(key), path=self._at(key))

    def children(self, key: str) -> Iterator[Fields]:
        """Yield the objects of a list."""
        for index, value in enumerate(self._typed(key, list)):
            yield Fields(value, path=f"{self._at(key)}[{index}]")

    def numbers_by_name(self, key: str, *, low: float = 0.0) -> dict[str, float]:
        """Return an object whose values are numbers of at least ``low``."""
        return {
            str(name): self._number(value, f"{self._at(key)}.{name}", low=low)
            for name, value in self._typed(key, dict).items()
        }

    def series(self, key: str, *, length: int | None = None, low: float | None = 0.0) -> FloatArray:
        """Return float64[length]; null is NaN, and no entry may be below ``low``."""
        values = self._typed(key, list)
        if length is not None and len(values) != length:
            raise self.error(key, f"holds {len(values)} values; accepted: {length}, one per time")
        floor = -math.inf if low is None else low
        return np.array(
            [
                math.nan
                if value is None
                else self._number(value, f"{self._at(key)}[{index}]", low=floor)
                for index, value in enumerate(values)
            ],
            dtype=np.float64,
        )

    def error(self, key: str, message: str) -> InputFileError:
        """Return an error that names a field of this object."""
        return InputFileError(f"{self._at(key)}: {message}")

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _required(self, key: str) -> Any:
        if key not in self._value:
            raise self.error(key, "is missing")
        return self._value[key]

    def _typed(self, key: str, kind: type) -> Any:
        value = self._required(key)
        # bool is an int in Python: true must not pass as 1.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, f"is {_shown(value)}; accepted: {_KINDS[kind]}")
        return value

    @staticmethod
    def _number(
        value: object, path: str, *, low: float = -math.inf, above: float = -math.inf
    ) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InputFileError(f"{path}: is {_shown(value)}; accepted: a number")
        if not math.isfinite(value):
            raise InputFileError(f"{path}: is {value}; accepted: a finite number")
        if value < low:
            raise InputFileError(f"{path}: is {value:g}; accepted: {low:g} or more")
        if value <= above:
            raise InputFileError(f"{path}: is {value:g}; accepted: more than {above:g}")
        return float(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
