"""What an HTTP request brings besides its body: its id, and how long its client will wait."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from litestar import Request

from .schemas import SamplingFields

MAX_ID_LENGTH = 128


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Facts about one HTTP request."""

    id: str  # of the answer
    deadline: float | None = None  # seconds that the client will wait


def context_of(request: Request[Any, Any, Any], prefix: str, data: SamplingFields | None = None) -> RequestContext:
    """Return them. The answer's id is the client's where its body has a decent one, else that of the HTTP request."""
    given = data.request_id if data is not None else ""
    identity = given if is_decent(given) else request_id(request)
    streamed = data is not None and data.stream
    return RequestContext(prefix + identity, None if streamed else _patience(request))


def request_id(request: Request[Any, Any, Any]) -> str:
    """Return the id that the answer's x-request-id carries: the client's own if it is a decent one."""
    state = request.scope["state"]
    if "request_id" not in state:
        state["request_id"] = new_request_id(request.headers.get("x-request-id"))
    return str(state["request_id"])


def new_request_id(given: str | None) -> str:
    """Return the client's id where it can be echoed, else a new one."""
    return given if given is not None and is_decent(given) else uuid.uuid4().hex


def is_decent(given: str) -> bool:
    """Whether a client's id may stand in headers and log lines."""
    return 0 < len(given) <= MAX_ID_LENGTH and given.isascii() and given.isprintable()


def _patience(request: Request[Any, Any, Any]) -> float | None:
    """Return after how many seconds without an answer the client hangs up; openai's library says so."""
    try:
        seconds = float(request.headers.get("x-stainless-read-timeout", ""))
    except ValueError:
        return None
    return seconds if 0 < seconds < 1e6 else None
