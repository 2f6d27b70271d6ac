"""`isotoken chat` at a terminal: a prompt, an answer that Ctrl-C ends, and a way out."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

TIMEOUT = 120  # seconds; a limit for a hung command, not for a slow one
START = """
import fcntl, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C comes from the terminal, as it does to a user
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may have it ignored
from isotoken.api.cli import main
sys.exit(main())
"""


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        environment: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, *arguments],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=environment,
        )  # fmt: skip
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read_until(self, text: str) -> str:
        """Return what comes up to and including `text`."""
        seen = b""
        while text.encode() not in seen:
            ready, _, _ = select.select([self._master], [], [], TIMEOUT)
            assert ready, f"nothing came but {seen!r}"
            seen += os.read(self._master, 1)
        return seen.decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    found = Terminal("chat", "--backend", "reference", "--max-tokens", "1900", "--ignore-eos")
    yield found
    found.close()


def test_a_conversation_at_a_terminal(terminal: Terminal) -> None:
    greeting = terminal.read_until("\n> ")
    assert "isotoken-small on reference (cpu, float32). /reset starts over" in greeting
    terminal.type("Tell me a story\n")
    terminal.read_until("\r\n")  # what was typed
    assert terminal.read_until(" ")  # the answer has begun
    terminal.type("\x03")
    rest = terminal.read_until("\n> ")  # and is over long before its 1900 tokens
    assert len(rest.split()) < 1000
    terminal.type("/quit\n")
    assert terminal.process.wait(TIMEOUT) == 0
