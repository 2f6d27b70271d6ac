"""The envelope of a streamed answer, encoded once: a chunk costs a join of bytes."""

from __future__ import annotations

from typing import Any

from .sse import encode


class Chunks:
    """Makes the chunks of one stream. Every chunk has the same id, so its head is the same bytes."""

    def __init__(self, envelope: dict[str, Any], *, usage_key: bool) -> None:
        self._head = b"data: " + encode(envelope)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if usage_key else b"]}\n\n"

    def raw(self, choice: bytes, usage: dict[str, Any] | None = None) -> bytes:
        """Frame a choice that is JSON already."""
        if usage is not None:
            return self._head + choice + b'],"usage":' + encode(usage) + b"}\n\n"
        return self._head + choice + self._tail

    def choice(self, choice: dict[str, Any], usage: dict[str, Any] | None = None) -> bytes:
        """Frame a choice."""
        return self.raw(encode(choice), usage)

    def usage(self, usage: dict[str, Any]) -> bytes:
        """Return the last chunk, which has no choices."""
        return self.raw(b"", usage)
