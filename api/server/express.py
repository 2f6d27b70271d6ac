"""The busy routes, past the framework's machinery: a body is read, decoded and checked once, then answered.

They are declared to the framework like any other route, which documents them, and would answer the same if it came to
that: at a price, in CPU time, above that of tokenizing a short prompt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send
from pydantic import ValidationError

from .errors import ApiError, ClientGone, send_error
from .schemas import RequestModel
from .service import Service
from .validation import explain_problems

M = TypeVar("M", bound=RequestModel)
Answer = Callable[[Scope, Receive, M, Service], Awaitable[ASGIApp]]


class Express(Generic[M]):
    """One route: POST with a JSON body of a given shape."""

    def __init__(self, path: str, model: type[M], answer: Answer[M], service: Service) -> None:
        self.path = path
        self._model = model
        self._answer = answer
        self._service = service
        self._max_bytes = service.settings.limits.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        scope["path_template"] = self.path
        try:
            data = decode(await read_body(scope, receive, self._max_bytes), self._model)
            response = await self._answer(scope, receive, data, self._service)
            await response(scope, receive, send)
        except Exception as error:
            if scope["state"].get("answered"):
                raise
            await send_error(error, scope, receive, send)


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """Return a request's body. Raises ApiError when it is too large, and ClientGone when it does not come whole."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > max_bytes:
            raise _too_large()
    message: Any = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return _checked(message.get("body", b""), max_bytes)
    parts, size = [], 0
    while message["type"] == "http.request":
        part = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise _too_large()
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
    raise ClientGone


def decode(body: bytes, model: type[M]) -> M:
    """Return a body as its model. Raises ApiError for what is no JSON, and for what is not allowed in it."""
    try:
        value = msgspec.json.decode(body or b"null")
    except msgspec.MsgspecError as error:
        raise ApiError(400, f"the request body is not valid JSON: {error}", code="invalid_json") from error
    try:
        return model.model_validate(value)
    except ValidationError as error:
        message, param = explain_problems(error.errors())
        raise ApiError(400, message, param=param, code="invalid_value") from error


def _checked(body: bytes, max_bytes: int) -> bytes:
    if len(body) > max_bytes:
        raise _too_large()
    return body


def _too_large() -> ApiError:
    return ApiError(413, "the request body is too large")
