"""Stop strings: found at the character that completes one, whatever the pieces that the text comes in."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Lets text through, but for what may yet become part of a stop string."""

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        self._stops = [(stop, _borders(stop)) for stop in stops]
        self._matched = [0] * len(stops)  # how much of each stop string the text so far ends with
        self._openers = frozenset(stop[0] for stop in stops)
        self._include = include
        self._held = ""  # the longest of those ends

    def feed(self, text: str, *, armed: bool = True) -> tuple[str, str | None]:
        """Return the text that may be shown, and the stop string that ended it.

        The one that is complete first ends the text; of several complete at once, the longest. Not armed, a complete
        stop string passes as plain text.
        """
        if not self._held and self._openers.isdisjoint(text):
            return text, None
        known = self._held + text
        for position in range(len(self._held), len(known)):
            found = self._advance(known[position])
            if found and armed:
                end = position + 1
                self._held = ""
                return known[: end if self._include else end - len(found)], found
        keep = len(known) - max(self._matched)
        self._held = known[keep:]
        return known[:keep], None

    def flush(self) -> str:
        """Return the text still held: the end has come, and it became no stop string."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> str:
        """Take one character. Returns the longest stop string that it completes, or an empty one."""
        found = ""
        for i, (stop, borders) in enumerate(self._stops):
            size = self._matched[i]
            while size and stop[size] != character:
                size = borders[size]
            size += stop[size] == character
            if size == len(stop):
                found = max(found, stop, key=len)
                size = borders[size]
            self._matched[i] = size
        return found


def _borders(stop: str) -> list[int]:
    """Return for each length how long the longest proper prefix is that also ends there (Knuth, Morris and Pratt)."""
    borders = [0, 0]
    for character in stop[1:]:
        size = borders[-1]
        while size and stop[size] != character:
            size = borders[size]
        borders.append(size + (stop[size] == character))
    return borders
