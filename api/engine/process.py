"""One life of the engine's process, from the side of the API's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys

from ...plugins.build import EngineConfig
from .messages import HEADER_BYTES, Configure, FromEngine, Message, Stop, pack, unpack_from_engine

READ_LIMIT = 2**22  # bytes buffered before reading pauses
EXIT_GRACE_S = 5.0  # between the end of the channel and SIGKILL


class EngineProcess:
    """A child process that serves one engine. It dies with this process, whatever happens to it."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._outgoing: list[bytes] = []  # written together at the end of this turn of the event loop

    @classmethod
    async def spawn(cls, config: EngineConfig) -> EngineProcess:
        """Start the process and tell it what to build."""
        ours, theirs = socket.socketpair()
        with theirs:
            # A fresh interpreter: a fork of this process would take its threads' locks along. A process group of its
            # own keeps the terminal's Ctrl-C from it; this process decides when it ends.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "isotoken.api.engine.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,
                process_group=0,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=READ_LIMIT)
        self = cls(process, reader, writer)
        self.send(Configure(config))
        return self

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Write a message soon, without waiting. To a process that is gone it is lost: `receive` will tell."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(pack(message))

    def _flush(self) -> None:
        frames, self._outgoing = self._outgoing, []
        if frames and not self._writer.is_closing():
            self._writer.write(b"".join(frames))

    async def receive(self) -> FromEngine | None:
        """Return the next message, None at the end of the process."""
        try:
            header = await self._reader.readexactly(HEADER_BYTES)
            body = await self._reader.readexactly(int.from_bytes(header, "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return unpack_from_engine(body)

    def kill(self) -> None:
        """End it at once; `receive` will tell."""
        if self._process.poll() is None:
            self._process.kill()

    async def ended(self) -> str:
        """Wait until it is gone, with force after some seconds, and say how it ended."""
        self._flush()
        self._writer.close()
        with contextlib.suppress(OSError):  # what could not be written any more is of no use
            await self._writer.wait_closed()
        try:
            code = await asyncio.to_thread(self._process.wait, EXIT_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = await asyncio.to_thread(self._process.wait)
        return _describe(code)

    async def stop(self) -> None:
        """Ask it to end and wait."""
        self.send(Stop())
        await self.ended()


def _describe(code: int) -> str:
    if code >= 0:
        return f"it exited with status {code}"
    name = signal.Signals(-code).name
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"it was ended by {name}{hint}"
