"""Failures as clients see them: one value for what went wrong, and its two bodies, OpenAI's and TGI's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import (
    ClientException,
    HTTPException,
    InternalServerException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.types import Receive, Scope, Send

from ..errors import EngineFailed, NoChatTemplate, NotReady, Overloaded, ParameterError
from .validation import explain

logger = logging.getLogger(__name__)

TGI_PATHS = frozenset({"/", "/generate", "/generate_stream", "/info"})
POLICY_CODES = frozenset({"content_policy_violation", "content_filter"})
REJECTIONS = frozenset({400, 401, 403, 404, 405, 413, 429, 503})  # the statuses of requests that were not taken on
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}
CODES = {
    401: "invalid_api_key",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "content_too_large",
    429: "rate_limit_exceeded",
    500: "internal_error",
    503: "not_ready",
}


LIMITS_BY_CODE = {"insufficient_quota": "budget"}
"""Which limit a request went past, where its error's code says so."""


class ApiError(Exception):
    """A request that cannot be answered, raised where it is found out."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        limit: str = "",
    ) -> None:
        super().__init__(message)
        code = code or CODES.get(status, "invalid_value")
        self.failure = Failure(status, message, param, code, headers, limit or LIMITS_BY_CODE.get(code, ""))


class ClientGone(Exception):
    """The client closed its connection before the answer was complete."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, in the words of HTTP."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    limit: str = ""  # that the request went past, for the metrics

    def openai(self) -> dict[str, Any]:
        """Return the body that OpenAI's clients read; all four keys are always there."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def tgi(self) -> dict[str, Any]:
        """Return the body that text-generation-inference's clients read."""
        kind = "content_filter" if self.code in POLICY_CODES else _TGI_TYPES.get(self.status, "validation")
        return {"error": self.message, "error_type": kind}

    @property
    def tgi_status(self) -> int:
        """The status that text-generation-inference would use."""
        return {400: 422, 500: 424}.get(self.status, self.status)


_TGI_TYPES = {404: "not_found", 408: "incomplete_generation", 429: "overloaded", 500: "generation", 503: "unhealthy"}


def failure_of(error: Exception) -> Failure:
    """Say in HTTP's words what an exception means to the client. Unknown ones are logged and told as a 500."""
    match error:
        case ApiError():
            failure = error.failure
        case ClientGone() | InternalServerException(detail="client disconnected prematurely"):  # for the metrics
            failure = Failure(499, "the client closed the connection", None, "client_closed_request")
        case NoChatTemplate():
            remedy = "use /v1/completions, or start the server with --chat-template FILE"
            message = f"the model {error.value!r} has no chat template: {remedy}"
            failure = Failure(400, message, error.field, "invalid_value")
        case ParameterError():
            failure = Failure(400, str(error), error.field, error.code)
        case Overloaded():
            failure = Failure(429, str(error), None, CODES[429], _retry_headers(error.retry_after), "queue")
        case NotReady():
            failure = Failure(503, str(error), None, CODES[503], _retry_headers(1.0))
        case EngineFailed():  # the same request would fail again: the client's library should not repeat it
            failure = Failure(500, str(error), None, "engine_error", (("x-should-retry", "false"),))
        case HTTPException() if not isinstance(error, InternalServerException):
            failure = _of_litestar(error)
        case UnicodeDecodeError():
            failure = Failure(400, f"the request body is not UTF-8: {error}", None, "invalid_json")
        case RecursionError():
            failure = Failure(400, "the request body is nested too deeply", None, "invalid_json")
        case _:
            # Not its repr: a UnicodeError's holds the whole text that was not to be written.
            logger.error("internal error: %s", type(error).__name__, exc_info=error)
            failure = Failure(500, "internal error", None, CODES[500])
    return failure


def _of_litestar(error: HTTPException) -> Failure:
    match error:
        case ValidationException():
            message, param = explain(error)
            return Failure(400, message, param, "invalid_value")
        case NotFoundException():
            return Failure(404, "no such route", None, CODES[404])
        case MethodNotAllowedException():
            return Failure(405, "this route does not take that method", None, CODES[405])
        case ClientException() if isinstance(error.__cause__, Exception) and error.status_code == 400:
            return Failure(400, f"the request body is not valid JSON: {_root(error)}", None, "invalid_json")
    if error.status_code == 413:
        return Failure(413, "the request body is too large", None, CODES[413])
    return Failure(error.status_code, error.detail, None, CODES.get(error.status_code))


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def _retry_headers(seconds: float) -> tuple[tuple[str, str], ...]:
    return (("retry-after", str(ceil(seconds))), ("retry-after-ms", str(ceil(seconds * 1000))))


def renamed(error: ParameterError, names: Mapping[str, str]) -> ApiError:
    """Tell a ParameterError in the words of a route that calls some fields otherwise: {its name: the route's}."""
    failure = failure_of(error)
    name = names.get(error.field, error.field)
    message = failure.message
    if message.startswith(error.field):
        message = name + message.removeprefix(error.field)
    told = ApiError(failure.status, message)
    told.failure = replace(failure, param=name, message=message)
    return told


def answer_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer with the error body that the route's clients read (Litestar's exception handler for everything)."""
    failure = failure_of(error)
    if failure.status in REJECTIONS:
        request.scope["state"]["rejection"] = failure  # for the metrics
    headers = dict(failure.headers)
    if isinstance(error, MethodNotAllowedException) and error.headers:
        headers.update(error.headers)  # Allow
    if request.scope["path"] in TGI_PATHS:
        status, body = failure.tgi_status, failure.tgi()
    else:
        status, body = failure.status, failure.openai()
    return Response(msgspec.json.encode(body), status_code=status, headers=headers, media_type="application/json")


async def send_error(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the error, from code that the framework does not run."""
    request: Request[Any, Any, Any] = Request(scope, receive, send)
    await answer_error(request, error).to_asgi_response(app=None, request=request)(scope, receive, send)
