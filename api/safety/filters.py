"""What a filter is: text goes in piece by piece, and out comes what no later piece can make it take back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

Action = Literal["redact", "block", "flag"]
"""What is done about something found: put a label in its place, end the text before it, or only count it."""


class Edit(NamedTuple):
    """Characters [start, stop) of a filter's input, counted from the text's beginning, became `size` characters."""

    start: int
    stop: int
    size: int


class Finding(NamedTuple):
    """Something that a filter looked for. Never holds the text itself: findings are counted and logged."""

    kind: str  # such as "email", or the name of a block list
    action: Action


@dataclass(frozen=True, slots=True)
class Block:
    """Why a text ends here. Nothing after it is released."""

    reason: str  # for the client; must not hold the text that was found
    finish_reason: str = "content_filter"
    stop_reason: str | None = None


@dataclass(slots=True)
class Release:
    """What a filter lets out: text that stands, whatever comes after it."""

    text: str = ""
    edits: Sequence[Edit] = ()  # where the text is not the input's, in order
    findings: Sequence[Finding] = ()
    block: Block | None = None


class Filter(Protocol):
    """Looks at one text. Made anew for each text, used by one thread, does no input or output.

    However a text is cut into pieces, the released texts in a row must be the same: a filter that may still change or
    withdraw the end of what it was given holds that end back, and releases it with a later piece or when it is closed.
    """

    def feed(self, text: str) -> Release:
        """Take the next piece of text, and release what is certain. Not called after a block."""
        ...

    def close(self) -> Release:
        """The text is complete: release what was held back."""
        ...


MakeFilter = Callable[[], Filter]
"""Makes the filter of one text."""


class Classifier(Protocol):
    """Judges texts, for /v1/moderations and the `moderation` filter. Called from several threads."""

    name: str  # answers carry it as their model
    categories: Sequence[str]  # those that it judges

    def classify(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Return for each text a score from 0 to 1 for each of `categories`; 0.5 and above is a yes."""
        ...


@dataclass(frozen=True, slots=True)
class FilterContext:
    """What the factory of a filter may use besides its options."""

    side: Literal["prompts", "outputs"]
    classifier: Callable[[str], Classifier]  # by name; raises PluginError for one that is not there


FilterFactory = Callable[[Mapping[str, Any], FilterContext], MakeFilter]
"""Checks the options once, at start-up. Raises ValueError (pydantic's ValidationError is one) for wrong ones."""
