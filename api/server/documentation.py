"""What the OpenAPI pages say about answers."""

from __future__ import annotations

from litestar.openapi import ResponseSpec
from pydantic import BaseModel

from .openai_answers import ErrorResponse

_ERRORS = {
    400: "A field is wrong, or the context is too small for what is asked",
    404: "No such model or route",
    408: "The deadline passed",
    413: "The body is too large",
    429: "The queue is full: see retry-after",
    500: "The engine failed on this request",
    503: "The engine starts or drains",
}


def answers(
    model: type[BaseModel], *, error: type[BaseModel] = ErrorResponse, statuses: dict[int, str] | None = None
) -> dict[int, ResponseSpec]:
    """Return a route's `responses`: the good one and the bad ones."""
    good = {200: ResponseSpec(model, generate_examples=False, description="The answer; events when streamed")}
    bad = {
        status: ResponseSpec(error, generate_examples=False, description=description)
        for status, description in (_ERRORS if statuses is None else statuses).items()
    }
    return good | bad
