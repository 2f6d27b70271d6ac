"""What the server and the process that tries out grammars tell each other."""

from __future__ import annotations

from typing import IO

import msgspec

HEADER_BYTES = 4


class Setup(msgspec.Struct, frozen=True, array_like=True):
    """First frame in: for which model, and what a trial may cost."""

    model: str
    compiler: str  # its name among the grammar compilers
    vocab_size: int
    eos_token_ids: frozenset[int]
    cpu_s: int
    timeout_s: float
    memory_mb: int
    warm_up: str  # a grammar that is known to be harmless


class Trial(msgspec.Struct, frozen=True, array_like=True):
    """A grammar to try out."""

    id: int
    grammar: str


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """What became of it."""

    id: int
    error: str = ""  # empty: it is fine
    final: bool = True  # False: another time it may turn out differently


def pack(message: msgspec.Struct) -> bytes:
    """Return a frame: the body's length in 4 bytes, big-endian, and the body."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def read_frame(source: IO[bytes]) -> bytes | None:
    """Return a frame's body; None when the other side is gone. Waits for a frame that has begun."""
    header = _read(source, HEADER_BYTES)
    return None if header is None else _read(source, int.from_bytes(header, "big"))


def _read(source: IO[bytes], size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        piece = source.read(size - len(parts))
        if not piece:
            return None
        parts += piece
    return bytes(parts)
