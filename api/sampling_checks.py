"""What the values of SamplingParams' fields may be: each is checked, and returned in the form in which it is kept."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ParameterError
from .structured.outputs import StructuredOutputs

MAX_STOP_STRINGS = 64
MAX_STOP_LENGTH = 1024  # characters
MAX_CHOICES = 128
MAX_ID_DIGITS = 20  # of a token id that is written as a string

Check = Callable[[str, Any], Any]


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integer(low: int, high: float = math.inf, *, allowed: str = "") -> Check:
    bounds = f"of at least {low}" if high == math.inf else f"from {low} to {high}"

    def normal(name: str, value: Any) -> Any:
        if not (_is_integer(value) and low <= value <= high):
            raise ParameterError(name, value, allowed or f"an integer {bounds}")
        return value

    return normal


def _number(low: float, high: float, *, above: bool = False) -> Check:
    start = f"above {low:g}" if above else f"of at least {low:g}"
    allowed = f"a number {start}" + ("" if high == math.inf else f" and at most {high:g}")

    def normal(name: str, value: Any) -> Any:
        # Compared, not math.isfinite: that raises for an integer which no float can hold.
        good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        if not (good and low <= value <= high and not (above and value == low)):
            raise ParameterError(name, value, allowed)
        return value

    return normal


def _optional(normal: Check) -> Check:
    return lambda name, value: None if value is None else normal(name, value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ParameterError(name, value, "true or false")
    return value


def _top_k(name: str, value: Any) -> Any:
    return 0 if value == -1 else _integer(0, allowed="-1 or 0 (off), or an integer of at least 1")(name, value)


def _strings(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    items = (value,) if isinstance(value, str) else value
    good = isinstance(items, list | tuple) and all(isinstance(item, str) and item for item in items)
    if not good:
        raise ParameterError(name, value, "a string, or a list of strings, none of them empty")
    return tuple(items)  # type: ignore[arg-type]


def _stops(name: str, value: object) -> tuple[str, ...]:
    stops = _strings(name, value)
    if len(stops) > MAX_STOP_STRINGS:
        raise ParameterError(name, len(stops), f"at most {MAX_STOP_STRINGS} strings")
    for text in stops:
        if len(text) > MAX_STOP_LENGTH:
            raise ParameterError(name, text, f"strings of at most {MAX_STOP_LENGTH} characters")
    return stops


def _ids(name: str, value: object) -> tuple[int, ...]:
    good = isinstance(value, list | tuple | set | frozenset | range)
    if not good or not all(_is_integer(item) and item >= 0 for item in value):  # type: ignore[attr-defined]
        raise ParameterError(name, value, "a list of token ids")
    return tuple(value)  # type: ignore[arg-type]


def _some_ids(name: str, value: object) -> tuple[int, ...]:
    ids = _ids(name, value)
    if not ids:
        raise ParameterError(name, [], "null, or at least one token id")
    return ids


def _biases(name: str, value: object) -> dict[int, float]:
    if not value:
        return {}
    if not isinstance(value, Mapping):
        raise ParameterError(name, value, "an object from token ids to numbers")
    biases: dict[int, float] = {}
    for key, bias in value.items():  # JSON has string keys only
        is_id = _is_integer(key) or (isinstance(key, str) and key.isdecimal() and len(key) <= MAX_ID_DIGITS)
        if not is_id or int(key) < 0:
            raise ParameterError(name, key, "token ids as keys")
        _BIAS(name, bias)
        biases[int(key)] = float(bias)
    return biases


_BIAS = _number(-100, 100)
_COUNT = _optional(_integer(-1, allowed="null (off), -1 (the whole vocabulary) or at least 0"))
CHECKS: Mapping[str, Check] = {
    "max_tokens": _optional(_integer(0)),
    "min_tokens": _integer(0),
    "temperature": _number(0, math.inf),
    "top_k": _top_k,
    "top_p": _number(0, 1, above=True),
    "min_p": _number(0, 1),
    "seed": _optional(_integer(-(2**63), 2**64 - 1, allowed="an integer of 64 bits, or null")),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "repetition_penalty": _number(0, math.inf, above=True),
    "logit_bias": _biases,
    "allowed_token_ids": _optional(_some_ids),
    "bad_words": _strings,
    "stop": _stops,
    "stop_token_ids": lambda name, value: _ids(name, value or ()),
    "include_stop_str_in_output": _flag,
    "ignore_eos": _flag,
    "n": _integer(1, MAX_CHOICES),
    "logprobs": _COUNT,
    "prompt_logprobs": _COUNT,
    "echo": _flag,
    "skip_special_tokens": _flag,
    "shown_special_tokens": lambda name, value: _ids(name, value or ()),
    "structured_outputs": lambda name, value: StructuredOutputs.of(value),
}
"""What returns a field's value as it is kept, or raises ParameterError."""
