"""SpanFilter: finds things in a text that comes in pieces, and holds back only what may yet become one of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .filters import Action, Block, Edit, Finding, Release
from .patterns import CONTEXT

_ESCAPE = re.compile(r"u[0-9a-fA-F]{4}|[bfnrtu]")


@dataclass(frozen=True, slots=True)
class Kind:
    """What is found, and what is done about it."""

    name: str
    action: Action
    label: str  # takes its place
    reason: str  # of a block, for the client


class Found(NamedTuple):
    """Something in a text: characters [start, stop) of it, found by a search that looked at `origin` and after."""

    origin: int
    start: int
    stop: int
    kind: Kind
    until: re.Pattern[str] | None = None  # what follows belongs to it, until a match of this ends
    until_width: int = 0  # of which a match has at most so many characters


class Matcher(Protocol):
    """Searches texts."""

    def search(self, text: str, start: int) -> Found | None:
        """Return the first thing that begins at `start` or later. The text may look at one character before."""
        ...

    def live(self, text: str, start: int) -> int:
        """Return where the first thing begins, at `start` or later, about which more text may decide; else the end."""
        ...


class SpanFilter:
    """Lets text through up to what may yet become a finding, and treats findings by their kind."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self._text = ""  # what is not decided yet, after CONTEXT characters that are
        self._base = 0  # where it begins in the whole text
        self._done = 0  # characters of it that are decided
        self._inside: Found | None = None  # something of which the end has not been seen

    def feed(self, text: str) -> Release:
        """Take a piece."""
        self._text += text
        return self._advance(final=False)

    def close(self) -> Release:
        """Decide about the rest."""
        return self._advance(final=True)

    def _advance(self, final: bool) -> Release:
        release, parts = Release(), []
        matcher, text = self._matcher, self._text
        while self._inside is None or self._swallow(release, final):
            found = matcher.search(text, self._done)
            certain = len(text) if final else matcher.live(text, self._done)
            if found is None or found.origin >= certain:
                parts.append(text[self._done : certain])
                self._done = certain
                break
            if found.kind.action == "block":
                parts.append(text[self._done : found.start])
                self._done = found.start
                _note(release, found.kind)
                release.block = Block(found.kind.reason)
                break
            self._treat(found, parts, release)
        keep = max(0, self._done - CONTEXT)
        self._text, self._base, self._done = text[keep:], self._base + keep, self._done - keep
        release.text = "".join(parts)
        return release

    def _treat(self, found: Found, parts: list[str], release: Release) -> None:
        """Put the label in its place, or leave it there and count it."""
        start = found.start
        if found.kind.action == "redact":
            start = _after_escape(self._text, start, found.stop)
            parts += self._text[self._done : start], found.kind.label
            self._edit(release, start, found.stop, len(found.kind.label))
            self._inside = found if found.until is not None else None
        else:
            parts.append(self._text[self._done : found.stop])
        _note(release, found.kind)
        self._done = found.stop

    def _swallow(self, release: Release, final: bool) -> bool:
        """Drop what belongs to what was found. Returns whether its end was seen."""
        found, text = self._inside, self._text
        assert found is not None and found.until is not None
        end = found.until.search(text, self._done)
        stop = end.end() if end else len(text) if final else max(self._done, len(text) - found.until_width)
        if stop > self._done:
            self._edit(release, self._done, stop, 0)
        self._done = stop
        if end or final:
            self._inside = None
        return self._inside is None

    def _edit(self, release: Release, start: int, stop: int, size: int) -> None:
        release.edits = [*release.edits, Edit(self._base + start, self._base + stop, size)]


def _note(release: Release, kind: Kind) -> None:
    release.findings = [*release.findings, Finding(kind.name, kind.action)]


def _after_escape(text: str, start: int, stop: int) -> int:
    r"""Leave the letter of a JSON escape (\n, \u00e9) alone: without it the arguments of a tool would be no JSON."""
    if start and text[start - 1] == "\\" and (escape := _ESCAPE.match(text, start, stop)):
        return escape.end()
    return start


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that a regular expression finds and a check confirms."""

    kind: Kind
    source: str
    live: str
    max_width: int
    check: Callable[[str], tuple[int, int] | None] | None = None  # which part of a match it is; None: all of it
    until: re.Pattern[str] | None = None
    until_width: int = 0


class RegexMatcher:
    """Searches with rules of which the first that holds at a place wins. `compiler` is re.compile or RE2's."""

    def __init__(self, rules: list[Rule], compiler: Callable[[str], re.Pattern[str]], end: str = r"\Z") -> None:
        self._rules = rules
        self._each = [compiler(rule.source) for rule in rules]
        self._any = compiler("|".join(f"({rule.source})" for rule in rules))
        self._live = compiler(f"(?:{'|'.join(rule.live for rule in rules)}){end}")
        self._max_width = max(rule.max_width for rule in rules)

    def search(self, text: str, start: int) -> Found | None:
        """Return the first thing that a rule finds and confirms."""
        while (match := self._any.search(text, start)) is not None:
            origin = match.start()
            first = (match.lastindex or 1) - 1
            found = self._confirmed(first, match, text)
            if found is not None:
                return found
            start = origin + 1
        return None

    def live(self, text: str, start: int) -> int:
        """Return where the first beginning of a match starts that the end of the text cuts off."""
        match = self._live.search(text, max(start, len(text) - self._max_width))
        return len(text) if match is None else match.start()

    def _confirmed(self, first: int, match: re.Match[str], text: str) -> Found | None:
        origin = match.start()
        for i in range(first, len(self._rules)):
            rule = self._rules[i]
            hit = match if i == first else self._each[i].match(text, origin)
            if hit is None:
                continue
            span = (0, hit.end() - origin) if rule.check is None else rule.check(hit.group())
            if span is not None:
                start, stop = origin + span[0], origin + span[1]
                return Found(origin, start, stop, rule.kind, rule.until, rule.until_width)
        return None
