"""From what a request says to token ids: tokenizing off the event loop, chat templates, truncation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from ..text import TextModel
from ..tools.conversation import in_words, knows_tools
from ..tools.formats import FORMATS, format_of
from ..tools.offer import Offer, read_offer
from .errors import ApiError
from .generation import Prompt
from .openai_schemas import ChatRequest, CompletionRequest, TokenizeRequest
from .settings import ServerSettings
from .structured import Asked, form_of

_INLINE_CHARACTERS = 4096  # below this a text is tokenized in less time than a thread takes to answer
_MESSAGE_CHARACTERS = 16  # what a message counts for besides its content

T = TypeVar("T")


class Prompter:
    """Makes prompts for one model."""

    def __init__(self, text: TextModel, max_model_len: int, settings: ServerSettings) -> None:
        self._text = text
        self._settings = settings
        self._max_model_len = max_model_len
        parser = "auto" if settings.features.structured is None else settings.features.structured.tool_call_parser
        self._tool_format = format_of(text.chat_template) if parser == "auto" else FORMATS[parser]
        self._special = {text.token_text(token_id): token_id for token_id in text.vocabulary.special_ids}
        self._max_characters = max_model_len * max(map(len, text.tokenizer.get_vocab()), default=1)

    async def completion(self, request: CompletionRequest) -> list[Prompt]:
        """Tokenize the prompts of a completion."""
        one, keep = request.prompt, request.truncate_prompt_tokens
        if isinstance(one, str) and len(one) <= _INLINE_CHARACTERS:  # as nearly always
            if keep is None:
                self._check_length(len(one), "prompt")
            return [self._truncate(self._encode(one, request.add_special_tokens), keep, request.max_tokens)]
        texts = [prompt for prompt in request.prompts if isinstance(prompt, str)]
        if keep is None:
            for prompt in texts:
                self._check_length(len(prompt), "prompt")
        special = request.add_special_tokens
        encoded = iter(await run_text(lambda: [self._encode(text, special) for text in texts], sum(map(len, texts))))
        prompts = [next(encoded) if isinstance(prompt, str) else Prompt(prompt) for prompt in request.prompts]
        return [self._truncate(prompt, keep, request.max_tokens) for prompt in prompts]

    def asked(self, request: ChatRequest) -> Asked:
        """Return what a conversation asks of its answer's form, tools included. Raises ParameterError."""
        offer, choice = None, request.tool_choice
        if request.tools or choice is not None:
            parallel = request.parallel_tool_calls
            offer = read_offer(request.tools, choice, parallel=parallel, form=self._tool_format)
        return Asked(form_of(request), offer, self._special)

    async def chat(self, request: ChatRequest, max_tokens: int | None, offer: Offer | None = None) -> Prompt:
        """Apply the chat template and tokenize."""
        if request.truncate_prompt_tokens is None:
            self._check_length(sum(len(message.text) for message in request.messages), "messages")
        if len(request.messages) > self._max_model_len:  # each has a token at least; their templates would take long
            message = f"this model's maximum context length is {self._max_model_len} tokens: there are more messages"
            raise ApiError(400, message, param="messages", code="context_length_exceeded")
        prompt = Prompt(await self.render(request, offer))
        return self._truncate(prompt, request.truncate_prompt_tokens, max_tokens or 1)

    async def plain(self, text: str, *, keep: int | None = None, field: str) -> Prompt:
        """Tokenize one text and keep its last tokens."""
        if keep is None:
            self._check_length(len(text), field)
        return self._truncate(await run_text(lambda: self._encode(text), len(text)), keep, 0)

    async def render(self, request: ChatRequest | TokenizeRequest, offer: Offer | None = None) -> list[int]:
        """Return the token ids of a conversation. Raises ApiError for a template that is not trusted."""
        if request.chat_template and not self._settings.trust_request_chat_template:
            message = "chat_template is not taken from requests: start the server with --trust-request-chat-template"
            raise ApiError(400, message, param="chat_template", code="unsupported_parameter")
        messages, kwargs = self._with_tools([message.for_template() for message in request.messages], request, offer)
        size = sum(_MESSAGE_CHARACTERS + len(message["content"]) for message in messages)
        return await run_text(
            lambda: self._text.apply_chat_template(
                messages,
                add_generation_prompt=request.add_generation_prompt and not request.continue_final_message,
                continue_final_message=request.continue_final_message,
                template_kwargs=kwargs or None,
                chat_template=request.chat_template or None,
            ),
            _INLINE_CHARACTERS + 1 if offer is not None else size,
        )

    def _with_tools(
        self, messages: list[dict[str, Any]], request: ChatRequest | TokenizeRequest, offer: Offer | None
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return messages and variables for the chat template: one that knows of no tools is told of them in words."""
        kwargs = request.chat_template_kwargs
        tools = [] if offer is None else offer.given
        if offer is None and not any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
            return messages, kwargs
        if knows_tools(request.chat_template or self._text.chat_template or ""):
            return messages, {**kwargs, "tools": list(tools)} if tools else kwargs
        return in_words(messages, tools, self._tool_format), kwargs

    def _encode(self, text: str, special: bool = True) -> Prompt:
        return Prompt(self._text.encode(text, add_special_tokens=special), text)

    def _check_length(self, num_characters: int, field: str) -> None:
        """Refuse at once what could not fit if every token were the longest, instead of tokenizing it for seconds."""
        if num_characters > self._max_characters:
            message = (
                f"this model's maximum context length is {self._max_model_len} tokens: "
                f"{num_characters} characters of {field} are more than fit"
            )
            raise ApiError(400, message, param=field, code="context_length_exceeded")

    def _truncate(self, prompt: Prompt, keep: int | None, max_tokens: int) -> Prompt:
        """Keep the last tokens: -1 is as many as leave room for the answer, None is all."""
        if keep is None:
            return prompt
        keep = max(1, self._max_model_len - max_tokens if keep == -1 else keep)
        return prompt if len(prompt.token_ids) <= keep else Prompt(prompt.token_ids[-keep:])


async def run_text(work: Callable[[], T], num_characters: int) -> T:
    """Do tokenizer work here when it is short, in a thread when it would hold up the streams."""
    if num_characters <= _INLINE_CHARACTERS:
        return work()
    return await asyncio.to_thread(work)
