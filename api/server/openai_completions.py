"""POST /v1/completions: whole, and streamed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from litestar import Request, post
from litestar.params import JSONBody
from litestar.types import ASGIApp, Receive, Scope

from ..engine import GenerationDelta
from ..errors import ParameterError
from .chunks import Chunks
from .documentation import answers
from .errors import ApiError, renamed
from .exchange import Exchange
from .generation import Choice, Generation, Prompt
from .logprobs import LegacyLogprobs, prompt_logprobs
from .openai_answers import CompletionResponse
from .openai_routes import respond, submit
from .openai_schemas import CompletionRequest
from .requests import RequestContext, context_of
from .sampling import completion_params
from .served import ServedModel
from .service import Served, Service
from .sse import DONE, encode
from .stages import Tweak
from .structured import vet


@post(
    "/v1/completions",
    status_code=200,
    tags=["OpenAI"],
    summary="Continue a prompt",
    responses=answers(CompletionResponse),
)
async def create_completion(
    request: Request[Any, Any, Any], data: JSONBody[CompletionRequest], service: Served
) -> ASGIApp:
    """Continue one or several prompts."""
    return await complete(request.scope, request.receive, data, service)


async def complete(scope: Scope, receive: Receive, data: CompletionRequest, service: Service) -> ASGIApp:
    """Submit what is asked for, and return its answer."""
    exchange = Exchange.of(scope)
    model = service.choose(data.model, exchange, data)
    if service.stages.filters is not None:
        await service.stages.filters.prompt(exchange, data)
    context = context_of(scope, "cmpl-", data)

    async def generate(model: ServedModel, tweak: Tweak) -> Generation:
        params = tweak(completion_params(data, model.default_params))
        if params.structured_outputs is not None:
            await vet(model, params, exchange)
        started = time.monotonic()
        prompts = await model.prompter.completion(data)
        exchange.timings["tokenize"] = time.monotonic() - started
        _check_together(data, prompts, params.n, model, service)
        return await submit(service, exchange, model, data, context, prompts, params)

    try:
        model, generation = await service.answer(exchange, model, data, generate)
    except ParameterError as error:
        raise renamed(error, {} if data.prompt_logprobs is not None else {"prompt_logprobs": "echo"}) from error
    form = CompletionForm(data, generation, context, model)
    return await respond(service, scope, receive, form, generation, stream=data.stream)


def _check_together(
    data: CompletionRequest, prompts: list[Prompt], n: int, model: ServedModel, service: Service
) -> None:
    """Refuse what no waiting would make possible: a 429 would be asked for again and again."""
    limits = service.settings.limits
    room = model.engine.info.max_num_seqs + limits.max_waiting_requests
    if len(prompts) * n > room:
        message = (
            f"{len(prompts)} prompts with n = {n} are more than the {room} answers that this server ever has in hand"
        )
        raise ApiError(400, message, param="prompt")
    num_tokens = 0 if len(prompts) == 1 else n * sum(len(prompt.token_ids) for prompt in prompts)
    if num_tokens > limits.max_waiting_prompt_tokens:
        message = (
            f"{len(prompts)} prompts with n = {n} have {num_tokens} tokens, and this server lets "
            f"{limits.max_waiting_prompt_tokens} wait: send them in several requests"
        )
        raise ApiError(400, message, param="prompt")
    if data.stream and data.echo and n > 1 and data.logprobs is not None:
        raise ApiError(400, "echo with logprobs is not available in a stream of several choices", param="echo")


class CompletionForm:
    """Writes one request's answer, whole or in chunks."""

    def __init__(
        self,
        data: CompletionRequest,
        generation: Generation,
        context: RequestContext,
        model: ServedModel,
    ) -> None:
        self._data = data
        self._generation = generation
        self._text = model.text
        self._wants_logprobs = data.logprobs is not None
        if not (self._wants_logprobs or data.return_token_ids):
            generation.text_only()
        self._leads = self._echoes() if data.echo else []
        self._started = [False] * generation.num_choices
        self._logprobs = (
            [
                LegacyLogprobs(
                    model.text,
                    as_ids=data.return_tokens_as_token_ids,
                    skip_special_tokens=data.skip_special_tokens,
                    echo=data.echo,
                )
                for _ in range(generation.num_choices)
            ]
            if self._wants_logprobs
            else []
        )
        self._envelope = {
            "id": context.id,
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.called(data.model),
            "system_fingerprint": model.fingerprint,
        }

    def answer(self, choices: list[Choice]) -> dict[str, Any]:
        """Return the whole answer."""
        return {
            **self._envelope,
            "choices": [self._choice(choice.index, choice, whole=True) for choice in choices],
            "usage": self._generation.usage(),
        }

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield the stream's events."""
        options = self._data.stream_options
        chunks = Chunks(self._envelope, usage_key=options.include_usage)
        plain = not (self._wants_logprobs or self._data.return_token_ids or self._data.echo)
        async with aclosing(self._generation), aclosing(self._generation.deltas()) as deltas:
            async for index, delta in deltas:
                usage = self._generation.usage() if options.continuous_usage_stats else None
                if plain and delta.finish_reason is None:
                    if delta.text:
                        yield chunks.raw(_plain_choice(index, delta.text), usage)
                elif delta.text or delta.token_ids or delta.finish_reason:
                    yield chunks.choice(self._choice(index, delta), usage)
            if options.include_usage:
                yield chunks.usage(self._generation.usage())
            yield DONE

    def _choice(self, index: int, part: Choice | GenerationDelta, *, whole: bool = False) -> dict[str, Any]:
        """Return a choice's JSON: of a delta, or of the whole."""
        first = not self._started[index]
        self._started[index] = True
        text = part.text
        if first and self._data.echo:
            text = self._leads[index] + text
        choice: dict[str, Any] = {
            "index": index,
            "text": text,
            "logprobs": self._legacy_logprobs(index, part, first),
            "finish_reason": part.finish_reason,
            "stop_reason": part.stop_reason,
        }
        if self._data.return_token_ids:
            choice["token_ids"] = part.token_ids
            choice["prompt_token_ids"] = self._generation.prompt_of(index).token_ids if first else None
        if whole:
            wanted = self._data.prompt_logprobs is not None
            choice["prompt_logprobs"] = prompt_logprobs(self._text, part.prompt_logprobs or ()) if wanted else None
        return choice

    def _legacy_logprobs(self, index: int, part: Choice | GenerationDelta, first: bool) -> dict[str, Any] | None:
        if not self._wants_logprobs:
            return None
        shape = None
        logprobs = self._logprobs[index]
        if first and self._data.echo and not self._generation.is_lead_changed(index):
            shape = logprobs.first(self._generation.prompt_of(index).token_ids[0])
            shape = logprobs.extend(part.prompt_logprobs or (), shape)
        return logprobs.extend(part.logprobs or (), shape, part.offsets)

    def _echoes(self) -> list[str]:
        """Return what is put before each choice's text."""
        generation = self._generation
        return [generation.lead(index, self._prompt_text(index)) for index in range(generation.num_choices)]

    def _prompt_text(self, index: int) -> str:
        prompt = self._generation.prompt_of(index)
        if prompt.text is not None:
            return prompt.text
        return self._text.decode(prompt.token_ids, skip_special_tokens=self._data.skip_special_tokens)


def _plain_choice(index: int, text: str) -> bytes:
    return b'{"index":%d,"text":%b,"logprobs":null,"finish_reason":null,"stop_reason":null}' % (index, encode(text))
