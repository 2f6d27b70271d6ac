"""Bytes that are nearly HTTP: good requests, damaged at random. The server answers each in time, or closes.

They carry a key, so that what is behind the gate reads them too.
"""

from __future__ import annotations

import random
import re
import socket
import time
from collections import Counter
from dataclasses import dataclass, field

PATIENCE = 10.0  # seconds; the server that is fuzzed gives a head one second
BODY = b'{"prompt": "Once upon a time", "max_tokens": 2, "temperature": 0}'
SEEDS = (
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n",
    b"POST /generate HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
)
PIECES = (
    b"\r\n", b"\n", b"\0", b" ", b":", b"\xff", b"%", b"%00", b"..", b"HTTP/1.1", b"HTTP/0.9", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: -1\r\n", b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    b"x" * 70_000, b"x: y\r\n" * 300, b"ffffffffffffffff\r\n", b"{" * 5000, b"[" * 5000,
)  # fmt: skip


@dataclass(slots=True)
class Protocol:
    """What came of it."""

    seed: int
    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)  # "closed" without an answer, too
    failures: list[str] = field(default_factory=list)  # 5xx, or no end in time
    slowest: float = 0.0  # seconds


def damaged(rng: random.Random, key: str = "") -> bytes:
    """Return a request with one to four damages."""
    content = bytearray(rng.choice(SEEDS))
    if key:
        content[:] = content.replace(b"Host: x\r\n", b"Host: x\r\nAuthorization: Bearer %b\r\n" % key.encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content) + 1)
        match rng.randrange(5):
            case 0:
                content[at:at] = rng.choice(PIECES)
            case 1:
                del content[at : at + rng.randint(1, 40)]
            case 2:
                content[at : at + 1] = rng.randbytes(1)
            case 3:
                del content[at:]
            case _:
                content[at:at] = content[at : at + rng.randint(1, 200)]
    return bytes(content)


def fuzz_protocol(host: str, port: int, *, count: int, seconds: float, seed: int, key: str = "") -> Protocol:
    """Send damaged requests until so many were sent, or the time is over."""
    rng = random.Random(seed)
    found = Protocol(seed)
    end = time.monotonic() + seconds
    while found.sent < count and time.monotonic() < end:
        content = damaged(rng, key)
        started = time.monotonic()
        answer = _exchange(host, port, content)
        found.slowest = max(found.slowest, time.monotonic() - started)
        found.sent += 1
        told = re.findall(rb"HTTP/1\.1 (\d{3}) ", answer or b"")
        status = "no end" if answer is None else told[0].decode() if told else "closed"
        found.statuses[status] += 1
        if answer is None or any(each.startswith(b"5") for each in told):
            found.failures.append(f"{status}: {content[:200]!r}")
    return found


def _exchange(host: str, port: int, content: bytes) -> bytes | None:
    """Return the answer up to the server's close; None when it does not come in time."""
    parts: list[bytes] = []
    with socket.create_connection((host, port), timeout=PATIENCE) as connection:
        try:
            connection.sendall(content)
            while part := connection.recv(65536):
                parts.append(part)
        except TimeoutError:
            return None
        except (ConnectionResetError, BrokenPipeError):
            pass
    return b"".join(parts)
