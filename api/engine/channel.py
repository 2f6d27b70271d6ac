"""The engine's end of the channel: messages over a Unix socket, without threads."""

from __future__ import annotations

import socket

from .messages import HEADER_BYTES, Message, ToEngine, pack, unpack_to_engine

CHUNK_BYTES = 2**18


class Channel:
    """Blocking and polled reads of whole messages, blocking writes."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(True)
        self._buffer = bytearray()

    def send(self, message: Message) -> None:
        """Write a message; waits while the reader is behind. Raises OSError when it is gone."""
        self._socket.sendall(pack(message))

    def receive(self, *, block: bool) -> list[ToEngine]:
        """Return the messages that are there; wait for one if `block`. Raises EOFError when the other end is gone."""
        while True:
            if messages := self._complete():
                return messages
            try:
                chunk = self._socket.recv(CHUNK_BYTES, 0 if block else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return []
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise EOFError("the API's process is gone")
            self._buffer += chunk

    def _complete(self) -> list[ToEngine]:
        """Take the complete frames off the buffer."""
        messages: list[ToEngine] = []
        start = 0
        while len(self._buffer) - start >= HEADER_BYTES:
            body = start + HEADER_BYTES
            end = body + int.from_bytes(self._buffer[start:body], "big")
            if len(self._buffer) < end:
                break
            messages.append(unpack_to_engine(self._buffer[body:end]))
            start = end
        del self._buffer[:start]
        return messages
