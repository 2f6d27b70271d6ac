"""Typed reading of config.json: a wrong or missing field is an error that names it, its value and what was expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from .types import CheckpointError

T = TypeVar("T")
D = TypeVar("D")
P = TypeVar("P")


class _Required:
    """Stands for "there is no default": the field must be in the file."""


REQUIRED: Final = _Required()
LARGEST: Final = 2**31 - 1  # of whole numbers, here and in a batch


class Fields:
    """A JSON object read field by field. A field that is null counts as absent, save in the `optional_*` readers."""

    def __init__(self, values: Mapping[str, Any], prefix: str = "") -> None:
        self.values = values
        self.prefix = prefix

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def error(self, name: str, expected: str) -> CheckpointError:
        """Describe what is wrong with one field."""
        if self.values.get(name) is None:
            return CheckpointError(f"config field {self.prefix}{name!r} is missing: expected {expected}")
        return CheckpointError(f"config field {self.prefix}{name!r} is {self.values[name]!r}: expected {expected}")

    def integer(
        self, name: str, default: int | _Required = REQUIRED, *, minimum: int = 1, maximum: int = LARGEST
    ) -> int:
        """Read a whole number."""
        return self._read(name, default, f"a whole number from {minimum} to {maximum}", _whole(minimum, maximum))

    def optional_integer(self, name: str, default: int | None, *, minimum: int = 1) -> int | None:
        """Read a whole number where null means "none" and absence the default."""
        return (
            None
            if self._is_null(name)
            else self._read(name, default, f"null or a whole number >= {minimum}", _whole(minimum))
        )

    def number(self, name: str, default: float | _Required = REQUIRED, *, minimum: float | None = None) -> float:
        """Read a finite number above 0, or of at least `minimum`."""
        expected = "a number above 0" if minimum is None else f"a number of at least {minimum}"
        return self._read(name, default, expected, _real(minimum))

    def optional_number(self, name: str, default: float | None = None) -> float | None:
        """Read a finite number above 0 where null means "none" and absence the default."""
        return None if self._is_null(name) else self._read(name, default, "null or a number above 0", _real(None))

    def flag(self, name: str, default: bool | _Required = REQUIRED) -> bool:
        """Read true or false."""
        return self._read(name, default, "true or false", lambda value: value if isinstance(value, bool) else None)

    def choice(self, name: str, table: Mapping[str, T], default: T | _Required = REQUIRED) -> T:
        """Read a name and translate it by the table."""
        expected = f"one of {', '.join(sorted(table))}"
        return self._read(name, default, expected, lambda value: table.get(value) if isinstance(value, str) else None)

    def numbers(self, name: str, length: int) -> tuple[float, ...]:
        """Read a list of that many numbers above 0."""
        return tuple(self._sequence(name, length, f"a list of {length} numbers above 0", _real(None)))

    def integers(self, name: str, *, minimum_length: int = 0) -> tuple[int, ...]:
        """Read a list of whole numbers; an absent one is empty."""
        values = self.values.get(name)
        length = len(values) if isinstance(values, Sequence) else 0
        expected = f"a list of at least {minimum_length} whole numbers"
        if values is None and not minimum_length:
            return ()
        if length < minimum_length:
            raise self.error(name, expected)
        return tuple(self._sequence(name, length, expected, _whole(0)))

    def choices(self, name: str, length: int, allowed: Sequence[str]) -> tuple[str, ...]:
        """Read a list of that many names, each one of `allowed`."""
        expected = f"a list of {length} names out of {', '.join(allowed)}"
        return tuple(self._sequence(name, length, expected, lambda value: value if value in allowed else None))

    def object(self, name: str) -> Fields:
        """Read a nested JSON object."""
        value = self._read(name, REQUIRED, "a JSON object", lambda value: value if isinstance(value, Mapping) else None)
        return Fields(value, f"{self.prefix}{name}.")

    def _is_null(self, name: str) -> bool:
        return name in self.values and self.values[name] is None

    def _read(self, name: str, default: D | _Required, expected: str, parse: Callable[[Any], P | None]) -> D | P:
        value = self.values.get(name)
        if value is None and not isinstance(default, _Required):
            return default
        parsed = None if value is None else parse(value)
        if parsed is None:
            raise self.error(name, expected)
        return parsed

    def _sequence(self, name: str, length: int, expected: str, parse: Callable[[Any], T | None]) -> list[T]:
        values = self.values.get(name)
        if not isinstance(values, list | tuple) or len(values) != length:
            raise self.error(name, expected)
        parsed = [item for item in map(parse, values) if item is not None]
        if len(parsed) != length:
            raise self.error(name, expected)
        return parsed


def _whole(minimum: int, maximum: int = LARGEST) -> Callable[[Any], int | None]:
    def parse(value: Any) -> int | None:
        return value if type(value) is int and minimum <= value <= maximum else None

    return parse


def _real(minimum: float | None) -> Callable[[Any], float | None]:
    def parse(value: Any) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return float(value) if (value > 0 if minimum is None else value >= minimum) else None

    return parse
