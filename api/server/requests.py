"""What an HTTP request brings besides its body: its id, and how long its client will wait."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from itertools import count

from litestar.types import Scope

from ..safety.log_privacy import is_secret
from .schemas import SamplingFields

MAX_ID_LENGTH = 128

_PROCESS = secrets.token_hex(12)  # ids of several processes do not meet
_NUMBERS = count()


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Facts about one HTTP request."""

    id: str  # of the answer
    deadline: float | None = None  # seconds that the client will wait


def context_of(scope: Scope, prefix: str, data: SamplingFields | None = None) -> RequestContext:
    """Return them. The answer's id is the client's where its body has a decent one, else that of the HTTP request."""
    given = data.request_id if data is not None else ""
    identity = given if is_decent(given) else exchange_id(scope)
    streamed = data is not None and data.stream
    return RequestContext(prefix + identity, None if streamed else _patience(scope))


def exchange_id(scope: Scope) -> str:
    """Return the id that the answer's x-request-id carries: the client's own if it is a decent one."""
    return str(scope["state"]["exchange"].id)


def new_request_id(given: str | None) -> str:
    """Return the client's id where it can be echoed, else a new one."""
    return given if given is not None and is_decent(given) else f"{_PROCESS}{next(_NUMBERS):08x}"


def is_decent(given: str) -> bool:
    """Whether a client's id may stand in headers and log lines. One that looks like a key may not."""
    return 0 < len(given) <= MAX_ID_LENGTH and given.isascii() and given.isprintable() and not is_secret(given)


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header's value. Names are in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return None


def _patience(scope: Scope) -> float | None:
    """Return after how many seconds without an answer the client hangs up; openai's library says so."""
    given = header(scope, b"x-stainless-read-timeout")
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        return None
    return seconds if 0 < seconds < 1e6 else None
