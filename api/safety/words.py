"""WordMatcher: finds listed words and phrases, in time that does not grow with the list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from .spans import Found, Kind

_WORD = re.compile(r"(?<!\w)\w+")
_GAP = 3
"""Characters that are no word's, at most, between two words of a phrase."""

_END = ""  # a key of the tree that is no word: a phrase ends here


class WordMatcher:
    """Searches for whole words, whatever their case. A phrase's words may have any few other characters between."""

    def __init__(self, phrases: Iterable[str], kind: Kind) -> None:
        """Prepare. Raises ValueError for a phrase without a word."""
        self._tree: dict[str, Any] = {}
        self._beginnings: set[str] = set()  # of all their words
        self._kind = kind
        for phrase in phrases:
            self._add(phrase)

    def search(self, text: str, start: int) -> Found | None:
        """Return the first phrase, the longest that begins with its word."""
        for word in _WORD.finditer(text, start):
            if word.group().casefold() not in self._tree:
                continue
            stop = 0
            for node, end in self._walk(text, word.start()):
                if _END in node:
                    stop = end
            if stop:
                return Found(word.start(), word.start(), stop, self._kind)
        return None

    def live(self, text: str, start: int) -> int:
        """Return where the first phrase may begin that is not complete, or may go on."""
        for word in _WORD.finditer(text, start):
            if word.end() == len(text):
                return word.start() if word.group().casefold() in self._beginnings else len(text)
            if word.group().casefold() in self._tree and self._goes_on(text, word.start()):
                return word.start()
        return len(text)

    def _goes_on(self, text: str, start: int) -> bool:
        """Whether the end of the text cuts off a phrase that begins here."""
        node, end = self._tree, start
        for reached, stop in self._walk(text, start):
            node, end = reached, stop
            if end == len(text):
                return True  # its last word may get longer
        rest = text[end:]
        if not any(key != _END for key in node):
            return False
        if len(rest) <= _GAP and not _WORD.search(rest):
            return True
        last = _WORD.search(text, end)
        near = last is not None and last.end() == len(text) and last.start() - end <= _GAP
        return near and last is not None and any(key.startswith(last.group().casefold()) for key in node)

    def _walk(self, text: str, start: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Follow the tree along the text's words: yield each node with where its word ends."""
        node, end = self._tree, start
        for word in _WORD.finditer(text, start):
            following = node.get(word.group().casefold())
            if following is None or (end > start and word.start() - end > _GAP):
                return
            node, end = following, word.end()
            yield node, end

    def _add(self, phrase: str) -> None:
        words = [word.casefold() for word in _WORD.findall(phrase)]
        if not words:
            raise ValueError(f"words = {phrase!r} is not allowed: it holds no word")
        node = self._tree
        for word in words:
            self._beginnings.update(word[:size] for size in range(1, len(word) + 1))
            node = node.setdefault(word, {})
        node[_END] = {}
