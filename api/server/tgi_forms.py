"""Writes answers in TGI's shape, and in the short form's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from ...core.types import TokenLogprobs
from ..engine import GenerationDelta
from ..text import SamplingParams, TextModel
from .errors import ApiError
from .generation import Choice, Generation
from .logprobs import clamp
from .sse import event
from .tgi_params import seed_of
from .tgi_schemas import GenerateRequest

BLOCKED = "content_filter"


class ShortForm:
    """{"text"}: whole, or one event for each piece of text."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        generation.text_only()

    def answer(self, choice: Choice) -> dict[str, Any]:
        """Return the whole answer. Raises ApiError for one that a filter ended."""
        _check(choice)
        return {"text": choice.text}

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield the stream's events."""
        async with aclosing(self._generation), aclosing(self._generation.deltas()) as deltas:
            async for _, delta in deltas:
                if delta.text or delta.finish_reason:
                    yield event({"text": delta.text})
                _check(delta)


class TgiForm:
    """TGI's shape: generated_text with details, or one event for each token."""

    def __init__(
        self, request: GenerateRequest, params: SamplingParams, generation: Generation, text: TextModel
    ) -> None:
        self._asked = request.parameters
        self._params = params
        self._generation = generation
        self._text = text
        self._lead = request.inputs if request.parameters.return_full_text else ""
        if params.logprobs is None:
            generation.text_only()

    def answer(self, choice: Choice) -> dict[str, Any]:
        """Return the whole answer. Raises ApiError for one that a filter ended."""
        _check(choice)
        answer: dict[str, Any] = {"generated_text": self._generation.joined(self._lead, choice.text)}
        if self._asked.details:
            answer["details"] = {
                "finish_reason": _finish_reason(choice),
                "generated_tokens": self._generation.num_output_tokens,
                "seed": seed_of(self._params),
                "prefill": self._prefill(choice),
                "tokens": [self._token(item) for item in choice.logprobs],
            }
            if self._asked.top_n_tokens:
                answer["details"]["top_tokens"] = [self._top(item) for item in choice.logprobs]
        return answer

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield one event for each token; those of one step together."""
        parts: list[str] = []
        waiting = ""  # text that came without a token: a filter let go of a part of one, or put a label in its place
        index = 0
        async with aclosing(self._generation), aclosing(self._generation.deltas()) as deltas:
            async for _, delta in deltas:
                parts.append(delta.text)
                waiting += delta.text
                events = []
                is_last = delta.finish_reason is not None
                tokens = delta.logprobs or ([_NO_TOKEN] if is_last else [])
                for item, piece in self._pieces(tokens, waiting) if tokens else ():
                    index += 1
                    waiting = ""
                    events.append({**self._stream_token(item, piece), "index": index})
                if is_last and delta.finish_reason != BLOCKED:
                    events[-1] |= {
                        "generated_text": self._generation.joined(self._lead, "".join(parts)),
                        "details": self._stream_details(delta),
                    }
                if events:
                    yield b"".join(map(event, events))
                _check(delta)

    def _pieces(self, tokens: list[TokenLogprobs], text: str) -> list[tuple[TokenLogprobs, str]]:
        """Share a text out among its tokens, so that the tokens' texts in a row are the generated text."""
        texts = [self._text.token_text(token.token_id) for token in tokens]
        if "".join(texts) != text:
            texts = [""] * (len(tokens) - 1) + [text]  # held back text or a part of a character: all with the last
        return list(zip(tokens, texts, strict=True))

    def _stream_token(self, item: TokenLogprobs, piece: str) -> dict[str, Any]:
        token = {**self._token(item), "text": piece}
        told: dict[str, Any] = {"index": 0, "token": token, "generated_text": None, "details": None}
        if self._asked.top_n_tokens:
            told["top_tokens"] = self._top(item)
        return told

    def _stream_details(self, delta: GenerationDelta) -> dict[str, Any]:
        return {
            "finish_reason": _finish_reason(delta),
            "generated_tokens": self._generation.num_output_tokens,
            "input_length": self._generation.num_prompt_tokens,
            "seed": seed_of(self._params),
        }

    def _prefill(self, choice: Choice) -> list[dict[str, Any]]:
        if not self._asked.decoder_input_details:
            return []
        first = self._generation.prompts[0].token_ids[0]
        head = {"id": first, "text": self._text.token_text(first), "logprob": None}
        scored: Sequence[TokenLogprobs] = choice.prompt_logprobs or ()
        return [head, *({k: v for k, v in self._token(item).items() if k != "special"} for item in scored)]

    def _token(self, item: TokenLogprobs) -> dict[str, Any]:
        return self._told(item.token_id, item.logprob)

    def _top(self, item: TokenLogprobs) -> list[dict[str, Any]]:
        return [self._told(token_id, logprob) for token_id, logprob in item.top]

    def _told(self, token_id: int, logprob: float) -> dict[str, Any]:
        text = self._text.token_text(token_id)
        return {
            "id": token_id,
            "text": text,
            "logprob": clamp(logprob),
            "special": token_id in self._text.vocabulary.special_ids,
        }


_NO_TOKEN = TokenLogprobs(token_id=0, logprob=0.0, rank=0, top=[])
"""Stands for the tokens of a text that a filter changed, which are not shown."""


def _check(part: Choice | GenerationDelta) -> None:
    """Raise ApiError for an answer that a filter ended: TGI has no finish_reason that would say so."""
    if part.finish_reason == BLOCKED:
        raise ApiError(400, "the answer was stopped by a content filter", code=BLOCKED)


def _finish_reason(part: Choice | GenerationDelta) -> str:
    if part.finish_reason == "length":
        return "length"
    return "stop_sequence" if isinstance(part.stop_reason, str) else "eos_token"
