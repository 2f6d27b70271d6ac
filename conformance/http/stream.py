"""Stream: a streamed answer as it came, read leniently, with what is wrong with its form noted beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

DONE = "[DONE]"


@dataclass(slots=True)
class Stream:
    """The events of a stream, in order."""

    content_type: str
    events: list[dict[str, Any]] = field(default_factory=list)
    num_done: int = 0  # times that [DONE] came
    faults: list[str] = field(default_factory=list)

    def read(self, chunks: Iterable[bytes]) -> Stream:
        """Take in everything, and return self."""
        raw = b"".join(chunks)
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            self.faults.append(f"not UTF-8: {error}")
            text = raw.decode(errors="replace")
        text = text.replace("\r\n", "\n")
        blocks = text.split("\n\n")
        if blocks.pop():
            self.faults.append("the last event has no blank line after it")
        for block in blocks:
            self._take("\n".join(line for line in block.split("\n") if not line.startswith(":")))  # comments
        return self

    def _take(self, block: str) -> None:
        if not block:
            return
        if self.num_done:
            self.faults.append(f"after [DONE] came {block[:80]!r}")
        if not block.startswith("data:") or "\n" in block:
            self.faults.append(f"an event is not one line of data: {block[:80]!r}")
        for line in block.split("\n"):
            if line.startswith("data:"):
                self._event(line.removeprefix("data:").removeprefix(" "))

    def _event(self, data: str) -> None:
        if data == DONE:
            self.num_done += 1
            return
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if isinstance(event, dict):
            self.events.append(event)
        else:
            self.faults.append(f"an event is no JSON object: {data[:80]!r}")

    def choices(self, index: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the parts of one choice, or of all, in order."""
        for event in self.events:
            for choice in event.get("choices") or ():
                if index is None or choice.get("index") == index:
                    yield choice

    @property
    def indices(self) -> list[int]:
        """The choices there are."""
        return sorted({choice["index"] for choice in self.choices()})

    def text(self, index: int = 0) -> str:
        """Put the pieces of one choice together."""
        return "".join(map(piece_of, self.choices(index)))

    def finish_reason(self, index: int = 0) -> str | None:
        """The last reason that was given for a choice's end."""
        reasons = [choice.get("finish_reason") for choice in self.choices(index)]
        return next((reason for reason in reversed(reasons) if reason), None)


def piece_of(choice: dict[str, Any]) -> str:
    """The text of one part of a choice, of a completion or a chat."""
    return choice.get("text") or (choice.get("delta") or {}).get("content") or ""
