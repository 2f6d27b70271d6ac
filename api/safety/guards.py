"""Guards: prompts that are too long, and outputs that go round in circles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from .filters import Block, Filter, FilterContext, Finding, MakeFilter, Release


class LengthOptions(BaseModel, extra="forbid"):
    """How long a text may be."""

    max_characters: int = Field(ge=1, description="Of one message or prompt, or of one answer.")


def length(options: Mapping[str, Any], context: FilterContext) -> MakeFilter:
    """Return what makes filters of long texts. Raises ValueError for options that are wrong."""
    limit = LengthOptions(**options).max_characters
    ended = "content_filter" if context.side == "prompts" else "length"
    return lambda: LengthGuard(limit, ended)


class LengthGuard:
    """Lets so many characters through, and no more."""

    def __init__(self, limit: int, finish_reason: str) -> None:
        self._limit = limit
        self._room = limit
        self._finish_reason = finish_reason

    def feed(self, text: str) -> Release:
        """Take a piece."""
        if len(text) <= self._room:
            self._room -= len(text)
            return Release(text)
        reason = f"it has more than {self._limit} characters"
        block = Block(reason, self._finish_reason, "max_characters")
        return Release(text[: self._room], findings=(Finding("length", "block"),), block=block)

    def close(self) -> Release:
        """Nothing was held back."""
        return Release()


class RepetitionOptions(BaseModel, extra="forbid"):
    """What counts as going round in circles: so many repeats in a row of the same so many characters, or fewer."""

    min_repeats: int = Field(default=12, ge=3)
    max_period: int = Field(default=200, ge=1, le=2000, description="Characters of what is repeated.")
    min_characters: int = Field(default=400, ge=20, description="Of all repeats together: a ruled line is no loop.")


def repetition(options: Mapping[str, Any], context: FilterContext) -> MakeFilter:
    """Return what makes guards against loops. Raises ValueError for options that are wrong."""
    asked = RepetitionOptions(**options)

    def make() -> Filter:
        return RepetitionGuard(asked)

    return make


class RepetitionGuard:
    """Ends a text that only repeats itself. Holds nothing back: what is repeated has been seen already.

    It looks at places that depend on the text alone (each _STRIDE characters), so that pieces make no difference.
    """

    _STRIDE = 32

    def __init__(self, options: RepetitionOptions) -> None:
        self._options = options
        self._window = max(options.max_period * options.min_repeats, options.min_characters)
        self._text = ""
        self._until_look = self._STRIDE

    def feed(self, text: str) -> Release:
        """Take a piece."""
        start = 0
        while len(text) - start >= self._until_look:
            stop = start + self._until_look
            self._text = (self._text + text[start:stop])[-self._window :]
            start, self._until_look = stop, self._STRIDE
            if self._is_loop():
                block = Block("it repeated itself over and over", "length", "repetition")
                return Release(text[:stop], findings=(Finding("repetition", "block"),), block=block)
        self._text += text[start:]
        self._until_look -= len(text) - start
        return Release(text)

    def close(self) -> Release:
        """Nothing was held back."""
        return Release()

    def _is_loop(self) -> bool:
        """Whether the text ends with enough repeats. A repeat shows where the last characters occurred before."""
        text, options = self._text, self._options
        if len(text) < options.min_characters:
            return False
        probe = text[-8:]
        place = len(text) - 8
        while (place := text.rfind(probe, 0, place + 7)) >= 0:
            period = len(text) - 8 - place
            if period > options.max_period:
                return False
            size = max(period * options.min_repeats, options.min_characters)
            if size <= len(text) and text[-size:-period] == text[-size + period :]:
                return True
        return False
