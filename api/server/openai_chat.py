"""POST /v1/chat/completions: whole, and streamed."""

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
from .errors import renamed
from .exchange import Exchange
from .generation import Choice, Generation
from .logprobs import chat_logprobs, prompt_logprobs
from .openai_answers import ChatResponse
from .openai_routes import respond, submit
from .openai_schemas import ChatRequest
from .requests import RequestContext, context_of
from .sampling import chat_names, chat_params
from .served import ServedModel
from .service import Served, Service
from .sse import DONE, encode
from .stages import Tweak
from .structured import vet
from .tool_calls import ToolCalls


@post(
    "/v1/chat/completions",
    status_code=200,
    tags=["OpenAI"],
    summary="Answer a conversation",
    responses=answers(ChatResponse),
)
async def create_chat_completion(
    request: Request[Any, Any, Any], data: JSONBody[ChatRequest], service: Served
) -> ASGIApp:
    """Continue a conversation with the assistant's next message."""
    return await answer_chat(request.scope, request.receive, data, service)


async def answer_chat(scope: Scope, receive: Receive, data: ChatRequest, service: Service) -> ASGIApp:
    """Submit what is asked for, and return its answer."""
    exchange = Exchange.of(scope)
    model = service.choose(data.model, exchange, data)
    if service.stages.filters is not None:
        await service.stages.filters.prompt(exchange, data)
    context = context_of(scope, "chatcmpl-", data)

    async def generate(model: ServedModel, tweak: Tweak) -> Generation:
        asked = model.prompter.asked(data)
        params = tweak(chat_params(data, model.default_params, asked))
        if params.structured_outputs is not None:
            await vet(model, params, exchange)
        started = time.monotonic()
        prompt = await model.prompter.chat(data, params.max_tokens, asked.offer)
        exchange.timings["tokenize"] = time.monotonic() - started
        generation = await submit(service, exchange, model, data, context, [prompt], params)
        generation.offer = asked.offer
        return generation

    try:
        model, generation = await service.answer(exchange, model, data, generate)
    except ParameterError as error:
        raise renamed(error, chat_names(data)) from error
    form = ChatForm(data, generation, context, model)
    return await respond(service, scope, receive, form, generation, stream=data.stream)


class ChatForm:
    """Writes one request's answer, whole or in chunks."""

    def __init__(
        self,
        data: ChatRequest,
        generation: Generation,
        context: RequestContext,
        model: ServedModel,
    ) -> None:
        self._data = data
        offer = generation.offer
        self._calls = [] if offer is None else [ToolCalls(offer) for _ in range(generation.num_choices)]
        self._generation = generation
        self._text = model.text
        self._started = [False] * generation.num_choices
        if not (data.logprobs or data.return_token_ids):
            generation.text_only()
        self._leads = [""] * generation.num_choices
        if data.echo:
            self._leads = [generation.lead(i, data.messages[-1].text) for i in range(generation.num_choices)]
        self._envelope = {
            "id": context.id,
            "object": "chat.completion.chunk" if data.stream else "chat.completion",
            "created": int(time.time()),
            "model": model.called(data.model),
            "system_fingerprint": model.fingerprint,
        }

    def answer(self, choices: list[Choice]) -> dict[str, Any]:
        """Return the whole answer."""
        answer: dict[str, Any] = {
            **self._envelope,
            "choices": [self._whole_choice(choice) for choice in choices],
            "usage": self._generation.usage(),
        }
        if self._data.return_token_ids:
            answer["prompt_token_ids"] = self._generation.prompts[0].token_ids
        if self._data.prompt_logprobs is not None:
            answer["prompt_logprobs"] = prompt_logprobs(self._text, choices[0].prompt_logprobs or ())
        return answer

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield the stream's events: a role first, then content, then an empty delta with the reason of its end."""
        options = self._data.stream_options
        chunks = Chunks(self._envelope, usage_key=options.include_usage)
        opening = chunks
        if self._data.return_token_ids:
            told = {**self._envelope, "prompt_token_ids": self._generation.prompts[0].token_ids}
            opening = Chunks(told, usage_key=options.include_usage)
        plain = not (self._data.logprobs or self._data.return_token_ids or self._calls)
        async with aclosing(self._generation), aclosing(self._generation.deltas()) as deltas:
            async for index, delta in deltas:
                usage = self._generation.usage() if options.continuous_usage_stats else None
                events = []
                if not self._started[index]:
                    self._started[index] = True
                    events += [opening.choice(choice, usage) for choice in self._opening(index)]
                if plain:
                    if delta.text:
                        events.append(chunks.raw(_plain_choice(index, delta.text), usage))
                elif delta.text or delta.token_ids or self._calls:
                    events += [chunks.choice(choice, usage) for choice in self._content(index, delta)]
                if delta.finish_reason is not None:
                    events.append(chunks.choice(self._closing(index, delta), usage))
                if events:
                    yield b"".join(events)
            if options.include_usage:
                yield chunks.usage(self._generation.usage())
            yield DONE

    def _whole_choice(self, choice: Choice) -> dict[str, Any]:
        lead = self._leads[choice.index]
        message: dict[str, Any] = {"role": "assistant", "content": lead + choice.text, "refusal": None}
        reason = choice.finish_reason
        if self._calls:
            calls = self._calls[choice.index]
            message |= calls.message(choice.text)
            if lead:
                message["content"] = lead + (message["content"] or "")
            reason = calls.finish_reason(reason)
        whole: dict[str, Any] = {
            "index": choice.index,
            "message": message,
            "logprobs": self._logprobs(choice),
            "finish_reason": reason,
            "stop_reason": choice.stop_reason,
        }
        if self._data.return_token_ids:
            whole["token_ids"] = choice.token_ids
        return whole

    def _opening(self, index: int) -> list[dict[str, Any]]:
        """Return the choices of a stream's first chunks: the role, and the last message where it is to be echoed."""
        deltas = [{"role": "assistant", "content": ""}]
        if self._leads[index]:
            deltas.append({"content": self._leads[index]})
        return [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas]

    def _content(self, index: int, delta: GenerationDelta) -> list[dict[str, Any]]:
        """Return the choices of the chunks that a delta becomes: one, but where there are tools."""
        deltas: list[dict[str, Any]] = [{"content": delta.text}]
        if self._calls:
            deltas = self._calls[index].deltas(delta.text, last=delta.finish_reason is not None)
            if not deltas and not (self._data.logprobs or self._data.return_token_ids):
                return []
        choices: list[dict[str, Any]] = [
            {"index": index, "delta": each, "logprobs": None, "finish_reason": None} for each in deltas or [{}]
        ]
        choices[0]["logprobs"] = self._logprobs(delta)  # what tokens a piece of a call came from is not told apart
        if self._data.return_token_ids:
            choices[0]["token_ids"] = delta.token_ids
        return choices

    def _logprobs(self, part: Choice | GenerationDelta) -> dict[str, Any] | None:
        if not self._data.logprobs:
            return None
        return chat_logprobs(self._text, part.logprobs or (), as_ids=self._data.return_tokens_as_token_ids)

    def _closing(self, index: int, delta: GenerationDelta) -> dict[str, Any]:
        reason = self._calls[index].finish_reason(delta.finish_reason) if self._calls else delta.finish_reason
        reasons = {"finish_reason": reason, "stop_reason": delta.stop_reason}
        return {"index": index, "delta": {}, "logprobs": None, **reasons}


def _plain_choice(index: int, text: str) -> bytes:
    return b'{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}' % (index, encode(text))
