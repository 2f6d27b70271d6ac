"""From what a request says to token ids: tokenizing off the event loop, chat templates, truncation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from ..errors import ParameterError
from ..text import TextModel
from .errors import ApiError
from .generation import Prompt
from .openai_schemas import ChatRequest, CompletionRequest, TokenizeRequest
from .settings import ServerSettings

_INLINE_CHARACTERS = 4096  # below this a text is tokenized in less time than a thread takes to answer

T = TypeVar("T")


async def run_text(work: Callable[[], T], num_characters: int) -> T:
    """Do tokenizer work here when it is short, in a thread when it would hold up the streams."""
    if num_characters <= _INLINE_CHARACTERS:
        return work()
    return await asyncio.to_thread(work)


async def completion_prompts(request: CompletionRequest, text: TextModel, max_model_len: int) -> list[Prompt]:
    """Tokenize the prompts of a completion."""

    def work() -> list[Prompt]:
        return [
            Prompt(text.encode(prompt, add_special_tokens=request.add_special_tokens), prompt)
            if isinstance(prompt, str)
            else Prompt(prompt)
            for prompt in request.prompts
        ]

    size = sum(len(prompt) for prompt in request.prompts if isinstance(prompt, str))
    prompts = await run_text(work, size)
    if request.truncate_prompt_tokens is not None:
        prompts = [
            _truncate(prompt, request.truncate_prompt_tokens, max_model_len, request.max_tokens) for prompt in prompts
        ]
    return prompts


async def chat_prompt(
    request: ChatRequest, text: TextModel, settings: ServerSettings, max_model_len: int, max_tokens: int | None
) -> Prompt:
    """Apply the chat template and tokenize."""
    prompt = Prompt(await render(request, text, settings))
    if request.truncate_prompt_tokens is not None:
        prompt = _truncate(prompt, request.truncate_prompt_tokens, max_model_len, max_tokens or 1)
    return prompt


async def render(request: ChatRequest | TokenizeRequest, text: TextModel, settings: ServerSettings) -> list[int]:
    """Return the token ids of a conversation. Raises ApiError for a template that is not trusted."""
    if request.chat_template and not settings.trust_request_chat_template:
        message = "chat_template is not taken from requests: start the server with --trust-request-chat-template"
        raise ApiError(400, message, param="chat_template", code="unsupported_parameter")
    messages = [message.for_template() for message in request.messages]

    def work() -> list[int]:
        return text.apply_chat_template(
            messages,
            add_generation_prompt=request.add_generation_prompt and not request.continue_final_message,
            continue_final_message=request.continue_final_message,
            template_kwargs=request.chat_template_kwargs or None,
            chat_template=request.chat_template or settings.chat_template,
        )

    return await run_text(work, sum(len(message["content"]) for message in messages))


def check_token_ids(token_ids: list[int], vocab_size: int, field: str) -> None:
    """Refuse ids outside the vocabulary. Raises ParameterError."""
    if token_ids and not (min(token_ids) >= 0 and max(token_ids) < vocab_size):
        bad = next(token_id for token_id in token_ids if not 0 <= token_id < vocab_size)
        raise ParameterError(field, bad, f"token ids from 0 to {vocab_size - 1}")


def _truncate(prompt: Prompt, keep: int, max_model_len: int, max_tokens: int) -> Prompt:
    if keep == -1:
        keep = max_model_len - max_tokens
    if len(prompt.token_ids) <= max(keep, 1):
        return prompt
    return Prompt(prompt.token_ids[-max(keep, 1) :])
