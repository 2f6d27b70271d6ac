"""Chain: the filters of one text, one behind the other, with the tokens that the text is made of.

A token leaves when all of its text has left unchanged. One whose text was changed, even in part, never leaves: its id
or its log-probability would tell what the label hides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...core.types import TokenLogprobs
from .filters import Block, Edit, Filter, Finding

_PIECE = 4096
"""Characters of a long text: an expression holds the interpreter's lock for as long as it searches."""


class Token(NamedTuple):
    """A token and the characters [start, stop) of the text that it stands for; none for a special one."""

    token_id: int
    logprobs: TokenLogprobs | None
    start: int
    stop: int


class Passed(NamedTuple):
    """What came through all filters."""

    text: str
    tokens: list[Token]
    block: Block | None


class Chain:
    """Feed it a text in pieces."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._stages = [_Stage(one) for one in filters]
        self.findings: list[Finding] = []  # so far
        self.changed = False  # whether any text was

    def feed(self, text: str, tokens: list[Token], *, final: bool) -> Passed:
        """Take a piece, the last one if `final`. After a block nothing more comes, so that later filters flush."""
        block = None
        for stage in self._stages:
            text, tokens, ended = stage.step(text, tokens, final or block is not None, self.findings)
            block = ended or block
            self.changed = self.changed or stage.changed
        return Passed(text, tokens, block)

    def whole(self, text: str) -> Passed:
        """Take a text that is all there: piece by piece, so that other threads get their turn."""
        parts: list[str] = []
        for start in range(0, len(text), _PIECE):
            passed = self.feed(text[start : start + _PIECE], [], final=start + _PIECE >= len(text))
            parts.append(passed.text)
            if passed.block is not None:
                return Passed("".join(parts), [], passed.block)
        return Passed("".join(parts), [], None)


class _Stage:
    """One filter, and the tokens whose text it has not released."""

    def __init__(self, one: Filter) -> None:
        self._filter = one
        self._tokens: list[Token] = []
        self._done = 0  # characters of the input that were released, or took part in an edit
        self._edits: list[Edit] = []  # that a waiting token may lie in or after
        self._shift = 0  # by which text moved that comes after all earlier edits
        self.changed = False

    def step(
        self, text: str, tokens: list[Token], final: bool, findings: list[Finding]
    ) -> tuple[str, list[Token], Block | None]:
        """Pass a piece through the filter."""
        parts: list[str] = []
        block = None
        for last in (False, True):
            if (last and not final) or (not last and not text) or block is not None:
                continue
            release = self._filter.close() if last else self._filter.feed(text)
            parts.append(release.text)
            findings += release.findings
            block = release.block
            self._done += len(release.text)
            for edit in release.edits:
                self._done += edit.stop - edit.start - edit.size
                self._edits.append(edit)
                self.changed = True
        return "".join(parts), self._pass(tokens) if tokens or self._tokens else [], block

    def _pass(self, tokens: list[Token]) -> list[Token]:
        """Return the tokens whose text is out, but for those that it no longer is the text of."""
        self._tokens += tokens
        passed = []
        count = 0
        for token in self._tokens:
            if token.stop > self._done:
                break
            count += 1
            while self._edits and self._edits[0].stop <= token.start:
                edit = self._edits.pop(0)
                self._shift += edit.size - (edit.stop - edit.start)
            if not self._edits or self._edits[0].start >= token.stop:
                passed.append(token._replace(start=token.start + self._shift, stop=token.stop + self._shift))
        del self._tokens[:count]
        return passed
