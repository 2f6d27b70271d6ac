"""What the two OpenAI routes do alike: submit what a request asks for, and answer it whole or streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from typing import Any, Protocol

from litestar.types import ASGIApp, Receive, Scope

from ..text import SamplingParams
from .disconnect import UntilDisconnect
from .errors import failure_of
from .exchange import Exchange
from .generation import Choice, Generation, Prompt
from .json_answer import JsonAnswer
from .requests import RequestContext
from .schemas import SamplingFields
from .served import ServedModel
from .service import Service
from .sse import DONE, EventStream, encode, event


class Form(Protocol):
    """Writes one request's answer."""

    def answer(self, choices: list[Choice]) -> dict[str, Any]:
        """Return the whole answer."""
        ...

    def events(self) -> AsyncGenerator[bytes]:
        """Yield the stream's events."""
        ...


def submit(
    service: Service,
    exchange: Exchange,
    model: ServedModel,
    data: SamplingFields,
    context: RequestContext,
    prompts: list[Prompt],
    params: SamplingParams,
) -> Awaitable[Generation]:
    """Hand a request to the engine."""
    return service.submit(
        exchange,
        model,
        prompts,
        params,
        request_id=context.id,
        priority=data.priority,
        deadline=context.deadline,
        cache_salt=data.cache_salt,
        whole=not data.stream,
    )


async def respond(
    service: Service, scope: Scope, receive: Receive, form: Form, generation: Generation, *, stream: bool
) -> ASGIApp:
    """Return the response; a client that leaves before a whole answer is there ends the generation."""
    if stream:
        return EventStream(
            form.events(),
            error_event=lambda error: event(failure_of(error).openai()) + DONE,
            slow_reader_timeout=service.settings.slow_reader_timeout,
        )
    try:
        with UntilDisconnect(scope, receive):
            choices = await generation.collect()
    finally:
        await generation.aclose()
    return JsonAnswer(encode(form.answer(choices)))
