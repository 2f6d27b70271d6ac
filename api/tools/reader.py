"""Reader: text that comes in pieces, read as if it were all there, and given back where it turns out to be no call."""

from __future__ import annotations

import json
from collections.abc import Collection, Generator

from .events import Arguments, CallOpened, Content, Event

Steps = Generator[None, None, None]
"""A routine that yields whenever it needs more text."""

Text = Generator[None, None, str]

BLANKS = " \t\r\n"
MAX_REREAD = 100_000
"""Characters of one answer that are read again after what was no call. Behind that, all of it is content: an answer may
be made of beginnings of calls, each of which would be read to the end.
"""

_CLOSING = {"{": "}", "[": "]"}


class NoCall(Exception):
    """What is being read is no call: it is content, from where it began."""


class Reader:
    """What the routines of all formats read with. `text[at:]` is not read yet; a call that fails is read again."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names  # of the functions that may be called
        self._text = ""
        self._at = 0
        self._num_reread = 0
        self._ended = False
        self._events: list[Event] = []
        self._blank = ""  # white space that is held back
        self._has_shown = False
        self._after_call = False
        self._num_calls = 0
        self._told_from: int | None = None  # arguments are being read, and were told up to here

    # --- for routines ---------------------------------------------------------------------------

    def peek(self) -> Text:
        """Return the next character, or "" at the end."""
        while self._at >= len(self._text):
            if self._ended:
                return ""
            self._tell_arguments()
            yield
        return self._text[self._at]

    def take(self) -> Text:
        """Return the next character and step over it. Raises NoCall at the end."""
        character = yield from self.peek()
        if not character:
            raise NoCall
        self._at += 1
        return character

    def skip_blanks(self) -> Text:
        """Step over white space and return what comes next."""
        while (character := (yield from self.peek())) and character in BLANKS:
            self._at += 1
        return character

    def starts_with(self, text: str) -> Generator[None, None, bool]:
        """Step over `text` if it comes next; else stay."""
        while len(self._text) - self._at < len(text):
            if self._ended or not text.startswith(self._text[self._at :]):
                return False
            self._tell_arguments()
            yield
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def expect(self, text: str) -> Steps:
        """Step over `text`. Raises NoCall where it does not come next."""
        if not (yield from self.starts_with(text)):
            raise NoCall

    def until(self, *marks: str) -> Generator[None, None, tuple[str, str]]:
        """Return the text before the first of some marks, and that mark; step over both. Raises NoCall at the end."""
        start = self._at
        while True:
            found = [(place, mark) for mark in marks if (place := self._text.find(mark, start)) >= 0]
            if found:
                place, mark = min(found, key=lambda pair: (pair[0], -len(pair[1])))
                if self._ended or place + max(map(len, marks)) <= len(self._text):  # none of the others may begin there
                    self._at = place + len(mark)
                    return self._text[start:place], mark
            if self._ended:
                self._num_reread += len(self._text) - start
                raise NoCall
            yield

    def content_until(self, *marks: str) -> Generator[None, None, str]:
        """Show text up to the first of some marks, which is returned and stepped over; "" at the end."""
        while True:
            rest = self._text[self._at :]
            if self._num_reread > MAX_REREAD:
                marks = ()
            found = [(place, mark) for mark in marks if (place := rest.find(mark)) >= 0]
            if found:
                place, mark = min(found)
                self.show(rest[:place])
                self._at += place + len(mark)
                return mark
            kept = 0 if self._ended else _num_held(rest, marks)
            self.show(rest[: len(rest) - kept])
            self._text, self._at = rest[len(rest) - kept :], 0
            if self._ended:
                return ""
            yield

    def show(self, text: str) -> None:
        """Show content. White space is held until something follows it; beside a call it only parts content."""
        bare = text.lstrip(BLANKS)
        if self._after_call:
            self._blank = self._blank or text[: len(text) - len(bare)]
            text = bare
            if not text:
                return
            if not self._has_shown:
                self._blank = ""
        self._after_call = False
        text = self._blank + text
        shown = text.rstrip(BLANKS)
        self._blank = text[len(shown) :]
        if shown:
            self._has_shown = True
            self._events.append(Content(shown))

    # --- calls ----------------------------------------------------------------------------------

    @property
    def place(self) -> int:
        """Where the next character is, to come back to."""
        return self._at

    def give_back(self, place: int) -> None:
        """Read on from an earlier place."""
        self._num_reread += self._at - place
        self._at = place

    def json_call(self, *argument_keys: str) -> Steps:
        """Read an object with a "name" and, under one of the keys, arguments. Raises NoCall before the name is told.

        Whatever goes wrong behind that ends the call where it stands: what was told cannot be taken back.
        """
        index, place = self._num_calls, self._at
        try:
            yield from self._members(argument_keys)
        except NoCall:
            if self._num_calls == index:
                self._told_from = None
                self.give_back(place)
                raise
            self._tell_arguments()
        self._told_from = None

    def arguments_of(self, name: str) -> Steps:
        """Read the arguments of a call whose name has been read already. Raises NoCall for an unknown name."""
        self.open_call(name)
        try:
            yield from self._arguments(told=True)
        except NoCall:
            self._tell_arguments()
        self._told_from = None

    def open_call(self, name: str) -> None:
        """Tell that a call begins. Raises NoCall for a function that is not there."""
        if name not in self._names:
            raise NoCall
        self._after_call = True
        self._events.append(CallOpened(self._num_calls, name))
        self._num_calls += 1

    def _members(self, argument_keys: Collection[str]) -> Steps:
        """Read `{"name": ..., "arguments": ...}`, in any order, with any other members."""
        yield from self.skip_blanks()
        yield from self.expect("{")
        name, arguments = "", None  # the latter may stand before the name
        while True:
            yield from self.skip_blanks()
            key = yield from self._string()
            yield from self.skip_blanks()
            yield from self.expect(":")
            yield from self.skip_blanks()
            if key == "name" and not name:
                name = yield from self._string()
                self.open_call(name)
                self._tell(arguments or "")
            elif key in argument_keys and arguments is None:
                arguments = yield from self._arguments(told=bool(name))
            else:
                yield from self._value()
            if (yield from self.skip_blanks()) != ",":
                break
            self._at += 1
        yield from self.expect("}")
        if not name:
            raise NoCall
        if not arguments:
            self._tell("{}")

    def _arguments(self, *, told: bool) -> Text:
        """Read a value: an object, told as it comes if `told`, or a string that holds one. Returns it."""
        start = self._at
        if (yield from self.peek()) == '"':
            text = yield from self._string()
            if told:
                self._tell(text)
            return text
        self._told_from = start if told else None
        yield from self._value()
        self._tell_arguments()
        self._told_from = None
        return self._text[start : self._at]

    def _value(self) -> Steps:
        """Step over a JSON value, whose brackets and quotes must match."""
        closing: list[str] = []
        while True:
            character = yield from self.peek()
            if character == '"':
                yield from self._string()
            elif character in _CLOSING and character:
                closing.append(_CLOSING[character])
                self._at += 1
            elif closing and character == closing[-1]:
                closing.pop()
                self._at += 1
            elif not character or character in "]}":
                raise NoCall
            elif closing:
                self._at += 1
            else:
                yield from self._scalar()
            if not closing:
                return

    def _scalar(self) -> Steps:
        """Step over a number, true, false or null."""
        start = self._at
        while (character := (yield from self.peek())) and (character.isalnum() or character in "+-."):
            self._at += 1
        if self._at == start:
            raise NoCall

    def _string(self) -> Text:
        """Read a JSON string and return what it means."""
        start = self._at
        yield from self.expect('"')
        while (character := (yield from self.take())) != '"':
            if character == "\\":
                yield from self.take()
        try:
            value = str(json.loads(self._text[start : self._at], strict=False))
        except ValueError as error:
            raise NoCall from error
        return value.encode("utf-8", "replace").decode()  # halves of characters cannot be sent

    def _tell_arguments(self) -> None:
        """Tell what was read of the arguments since this was last done."""
        if self._told_from is not None:
            self._tell(self._text[self._told_from : self._at])
            self._told_from = self._at

    def _tell(self, text: str) -> None:
        if text:
            self._events.append(Arguments(self._num_calls - 1, text))


def _num_held(text: str, marks: Collection[str]) -> int:
    """How many characters at the end of a text may be the beginning of a mark."""
    most = max((len(mark) for mark in marks), default=1) - 1
    for count in range(min(most, len(text)), 0, -1):
        if any(mark.startswith(text[len(text) - count :]) for mark in marks):
            return count
    return 0
