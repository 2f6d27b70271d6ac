"""Parsers: how each family of models writes tool calls, as routines that read text while it comes."""

from __future__ import annotations

from collections.abc import Collection

from .events import Content, Event
from .reader import NoCall, Reader, Steps

KEYS = ("arguments", "parameters")


class Parser(Reader):
    """Feed it an answer's text in any pieces; what it finds does not depend on them. Nothing but markup is lost.

    What is no call of a function that is offered is content, markup included. A call that breaks off in its arguments
    keeps what came of them.
    """

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(names)
        self._routine = self.read()
        self._is_done = False

    def read(self) -> Steps:
        """The format's routine: ends with the text."""
        raise NotImplementedError

    def feed(self, text: str) -> list[Event]:
        """Return what more text brings."""
        self._text += text
        return self._run()

    def finish(self) -> list[Event]:
        """Return what was held back, once there is no more."""
        self._ended = True
        events = self._run()
        if self._blank and not self._after_call:
            events.append(Content(self._blank))
        return events

    @property
    def num_calls(self) -> int:
        """Calls that were found."""
        return self._num_calls

    def _run(self) -> list[Event]:
        if not self._is_done:
            self._is_done = next(self._routine, self) is self
        events, self._events = self._events, []
        return events

    def attempt(self, routine: Steps, start: int) -> Steps:
        """Read calls; where there are none, what stands from `start` up to here is content."""
        place, before = self.place, self.num_calls
        try:
            yield from routine
        except NoCall:
            if self.num_calls == before:
                self.give_back(place)
                self.show(self._text[start:place])


class Hermes(Parser):
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, any number of them anywhere: Hermes, Qwen, ..."""

    def read(self) -> Steps:
        """Read content and calls."""
        while mark := (yield from self.content_until("<tool_call>")):
            yield from self.attempt(self._call(), self.place - len(mark))

    def _call(self) -> Steps:
        yield from self.json_call(*KEYS)
        place = self.place
        yield from self.skip_blanks()
        if not (yield from self.starts_with("</tool_call>")):
            self.give_back(place)


class Llama(Parser):
    """`{"name": ..., "parameters": {...}}` at the start of the answer or behind `<|python_tag|>`; several by ";"."""

    MARK = "<|python_tag|>"

    def read(self) -> Steps:
        """Read calls, then content, in which a mark may bring more calls."""
        place = self.place
        if (yield from self.skip_blanks()) == "{":
            yield from self.attempt(self._calls(), place)
        else:
            self.give_back(place)
        while mark := (yield from self.content_until(self.MARK)):
            yield from self.attempt(self._calls(), self.place - len(mark))

    def _calls(self) -> Steps:
        while True:
            yield from self.json_call("parameters", "arguments")
            place = self.place
            yield from self.skip_blanks()
            if (yield from self.starts_with(";")):
                yield from self.skip_blanks()
                yield from self.starts_with(self.MARK)
            if (yield from self.skip_blanks()) != "{":
                self.give_back(place)
                return


class Mistral(Parser):
    """`[TOOL_CALLS]` before a list of objects, or, in newer models, before each `name[ARGS]{...}`."""

    MARK = "[TOOL_CALLS]"

    def read(self) -> Steps:
        """Read content and calls."""
        while mark := (yield from self.content_until(self.MARK)):
            yield from self.attempt(self._calls(), self.place - len(mark))

    def _calls(self) -> Steps:
        if (yield from self.skip_blanks()) != "[":
            name, mark = yield from self.until("[CALL_ID]", "[ARGS]", "{")
            if mark == "[CALL_ID]":
                _, mark = yield from self.until("[ARGS]", "{")
            if mark == "{":
                self.give_back(self.place - 1)
            yield from self.skip_blanks()
            yield from self.arguments_of(name.strip())
            return
        yield from self.expect("[")
        while True:
            yield from self.json_call(*KEYS)
            place = self.place
            yield from self.skip_blanks()
            if (yield from self.starts_with("]")):
                return
            if not (yield from self.starts_with(",")):
                self.give_back(place)
                return


class DeepSeek(Parser):
    """Calls between marks of their own, each a name and a JSON object, which older models fence."""

    OPENING, CLOSING = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
    CALL, SEPARATOR, END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"

    def read(self) -> Steps:
        """Read content and calls."""
        while mark := (yield from self.content_until(self.OPENING, self.CALL)):
            start = self.place - len(mark)
            if mark == self.OPENING:
                yield from self.skip_blanks()
                if not (yield from self.starts_with(self.CALL)):
                    self.show(self._text[start : self.place])
                    continue
            yield from self.attempt(self._call(), start)

    def _call(self) -> Steps:
        name, _ = yield from self.until(self.SEPARATOR)
        fenced = name.strip() == "function"
        if fenced:
            name, _ = yield from self.until("\n")
            yield from self.skip_blanks()
            yield from self.expect("```json")
        yield from self.skip_blanks()
        yield from self.arguments_of(name.strip())
        place = self.place
        yield from self.skip_blanks()
        if fenced and (yield from self.starts_with("```")):
            yield from self.skip_blanks()
        if not (yield from self.starts_with(self.END)):
            self.give_back(place)
            return
        place = self.place
        yield from self.skip_blanks()
        if not (yield from self.starts_with(self.CLOSING)):
            self.give_back(place)
