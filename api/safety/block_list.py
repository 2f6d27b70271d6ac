"""The filter `block_list`: words, phrases and regular expressions that an operator does not want to see."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from .extras import needed
from .filters import Action, Filter, FilterContext, MakeFilter
from .patterns import expression
from .spans import Found, Kind, Matcher, RegexMatcher, Rule, SpanFilter

MAX_PATTERN_LENGTH = 1000
MAX_MEMORY = 8 << 20
"""Bytes that RE2 may take for one list's expressions."""


class BlockListOptions(BaseModel, extra="forbid"):
    """What is on the list."""

    name: str = Field(default="block_list", description="In metrics and in answers, instead of what was found.")
    action: Action = "block"
    words: tuple[str, ...] = Field(default=(), description="Words and phrases, whatever their case.")
    file: Path | None = Field(default=None, description="More of them, one a line; # begins a comment.")
    patterns: tuple[str, ...] = Field(default=(), description="Regular expressions that RE2 knows.")
    longest: int = Field(default=100, ge=1, le=500, description="What *, + and {2,} in patterns mean at most.")
    label: str = "[REMOVED]"


def block_list(options: Mapping[str, Any], context: FilterContext) -> MakeFilter:
    """Return what makes filters of a list. Raises ValueError for wrong options, and for files that are not there."""
    asked = BlockListOptions(**options)
    kind = Kind(asked.name, asked.action, asked.label, f"it holds something of the list {asked.name!r}")
    matchers: list[Matcher] = []
    if words := [*asked.words, *_lines(asked.file)]:
        from .words import WordMatcher  # noqa: PLC0415

        matchers.append(WordMatcher(words, kind))
    if asked.patterns:
        matchers.append(_regex_matcher(asked, kind))
    if not matchers:
        raise ValueError(f"the list {asked.name!r} is empty: give words, a file or patterns")
    matcher = matchers[0] if len(matchers) == 1 else _Either(*matchers)

    def make() -> Filter:
        return SpanFilter(matcher)

    return make


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"file = {str(file)!r} cannot be read: {error.strerror}") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _regex_matcher(asked: BlockListOptions, kind: Kind) -> Matcher:
    """Compile with RE2, whose time grows with the text alone, however hostile the pattern or the text."""
    re2 = needed("re2", "google-re2", "patterns of block lists")
    options = re2.Options()
    options.max_mem, options.log_errors = MAX_MEMORY, False

    def compiler(source: str) -> re.Pattern[str]:
        try:
            compiled: re.Pattern[str] = re2.compile(source, options)
        except re2.error as error:
            raise ValueError(f"patterns of the list {asked.name!r}: RE2 refuses them: {_words(error)}") from error
        return compiled

    for pattern in asked.patterns:
        if len(pattern) > MAX_PATTERN_LENGTH:
            raise ValueError(f"a pattern of {len(pattern)} characters is not allowed: at most {MAX_PATTERN_LENGTH}")
        compiler(pattern)  # what RE2 does not know is refused in its words
    rules = [Rule(kind, *expression(pattern, longest=asked.longest)) for pattern in asked.patterns]
    return RegexMatcher(rules, compiler, end=r"\z")


def _words(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)


class _Either:
    """Two matchers: what comes first counts."""

    def __init__(self, one: Matcher, other: Matcher) -> None:
        self._one, self._other = one, other

    def search(self, text: str, start: int) -> Found | None:
        found = [hit for hit in (self._one.search(text, start), self._other.search(text, start)) if hit is not None]
        return min(found, key=lambda hit: hit.origin, default=None)

    def live(self, text: str, start: int) -> int:
        return min(self._one.live(text, start), self._other.live(text, start))
