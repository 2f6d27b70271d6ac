"""Regular expressions for texts that come in pieces: for each, a second one that finds what may yet become a match.

The second expression matches the beginnings of matches: it is made from the first one's parse tree, and asked about
the end of what has come so far. Everything before its leftmost match is certain. Repetitions without an end are taken
as at most `longest`, so that both are finite and no more than a known number of characters is ever held back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as c  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

CONTEXT = 1
"""Characters before a match that it may look at."""

_CATEGORIES = {
    c.CATEGORY_DIGIT: r"\d",
    c.CATEGORY_NOT_DIGIT: r"\D",
    c.CATEGORY_SPACE: r"\s",
    c.CATEGORY_NOT_SPACE: r"\S",
    c.CATEGORY_WORD: r"\w",
    c.CATEGORY_NOT_WORD: r"\W",
}
_ANCHORS = {c.AT_BOUNDARY: r"\b", c.AT_NON_BOUNDARY: r"\B"}
_HARMLESS = re.IGNORECASE | re.UNICODE


class Expression(NamedTuple):
    """A regular expression in two sources, and how many characters a match has at most."""

    source: str
    live: str  # matches the beginnings of its matches that need more text to be decided
    max_width: int


class _Part(NamedTuple):
    source: str
    live: str | None  # None: decided without any further character


def expression(pattern: str, *, longest: int = 100, ignore_case: bool = False) -> Expression:
    """Return a pattern's two sources. Raises ValueError for what cannot be done in pieces, or in linear time."""
    try:
        tree = parser.parse(pattern, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise ValueError(f"the pattern {pattern!r} is no regular expression: {error}") from error
    if tree.state.flags & ~_HARMLESS:
        raise ValueError(f"the pattern {pattern!r} has flags besides i")
    whole = _Writer(pattern, longest).sequence(tree)
    flags = "(?i)" if tree.state.flags & re.IGNORECASE else ""
    width = parser.parse(flags + whole.source).getwidth()
    if not width[0]:
        raise ValueError(f"the pattern {pattern!r} matches nothing at all, too")
    scoped = "(?i:{})" if flags else "(?:{})"
    return Expression(scoped.format(whole.source), scoped.format(whole.live or "(?:)"), int(width[1]) + CONTEXT)


class _Writer:
    """Writes a parse tree as source, in the dialect that re and RE2 share, each part with its beginnings."""

    def __init__(self, pattern: str, longest: int) -> None:
        self._pattern = pattern
        self._longest = longest

    def sequence(self, items: Iterable[tuple[Any, Any]]) -> _Part:
        parts = [self._part(*item) for item in items]
        live: str | None = None
        for part in reversed(parts):
            later = None if live is None else part.source + live
            found = [option for option in (part.live, later) if option is not None]
            live = f"(?:{'|'.join(found)})" if found else None
        return _Part("".join(part.source for part in parts), live)

    def _part(self, kind: Any, value: Any) -> _Part:
        if kind in (c.LITERAL, c.NOT_LITERAL, c.ANY, c.IN):
            return _Part(_character(kind, value), "")
        if kind is c.AT and value in _ANCHORS:
            return _Part(_ANCHORS[value], "")
        if kind is c.BRANCH:
            return self._branch([self.sequence(option) for option in value[1]])
        if kind is c.SUBPATTERN:
            return self._group(*value)
        if kind in (c.MAX_REPEAT, c.MIN_REPEAT, c.POSSESSIVE_REPEAT):
            return self._repeat(kind, *value)
        if kind in (c.ASSERT, c.ASSERT_NOT):
            return self._assertion(kind, *value)
        raise ValueError(f"the pattern {self._pattern!r} holds {str(kind).lower()}, which texts in pieces cannot have")

    def _branch(self, options: list[_Part]) -> _Part:
        live = [option.live for option in options if option.live is not None]
        return _Part(f"(?:{'|'.join(option.source for option in options)})", f"(?:{'|'.join(live)})" if live else None)

    def _group(self, number: int | None, add: int, remove: int, items: Any) -> _Part:
        if (add | remove) & ~re.IGNORECASE:
            raise ValueError(f"the pattern {self._pattern!r} has flags besides i")
        flags = "i" if add else "-i" if remove else ""
        inner = self.sequence(items)
        live = None if inner.live is None else f"(?{flags}:{inner.live})"
        return _Part(f"(?{flags}:{inner.source})", live)

    def _repeat(self, kind: Any, low: int, high: int, items: Any) -> _Part:
        high = max(low, self._longest) if high is c.MAXREPEAT else high
        inner = self.sequence(items)
        suffix = {c.MIN_REPEAT: "?", c.POSSESSIVE_REPEAT: "+"}.get(kind, "")
        source = f"(?:{inner.source}){{{low},{high}}}{suffix}"
        if inner.live is None or not high:
            return _Part(source, None)
        before = f"(?:{inner.source}){{0,{high - 1}}}" if high > 1 else ""
        return _Part(source, before + inner.live)

    def _assertion(self, kind: Any, direction: int, items: Any) -> _Part:
        inner = self.sequence(items).source
        sign = "=" if kind is c.ASSERT else "!"
        if parser.parse(inner).getwidth()[1] > 1:
            raise ValueError(f"the pattern {self._pattern!r} looks at more than one character around a match")
        return _Part(f"(?<{sign}{inner})", None) if direction < 0 else _Part(f"(?{sign}{inner})", "")


def _character(kind: Any, value: Any) -> str:
    if kind is c.ANY:
        return "."
    if kind is c.IN:
        return f"[{''.join(map(_member, value))}]"
    return _literal(value) if kind is c.LITERAL else f"[^{_literal(value)}]"


def _literal(code: int) -> str:
    character = chr(code)
    return character if character.isalnum() or code > 0x7F else f"\\x{code:02x}"


def _member(item: tuple[Any, Any]) -> str:
    kind, value = item
    if kind is c.NEGATE:
        return "^"
    if kind is c.LITERAL:
        return _literal(value)
    if kind is c.RANGE:
        return f"{_literal(value[0])}-{_literal(value[1])}"
    return _CATEGORIES[value]
