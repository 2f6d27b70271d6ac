"""From request bodies to SamplingParams: the fields that were given, over the model's defaults where those apply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import ParameterError
from ..text import SamplingParams
from .errors import renamed
from .openai_schemas import ChatRequest, CompletionRequest
from .schemas import SAMPLING_FIELDS, SamplingFields
from .structured import Asked, form_of

_SAMPLING_FIELDS = frozenset(SAMPLING_FIELDS)


@contextmanager
def named(names: Mapping[str, str]) -> Iterator[None]:
    """Tell parameter errors in the words of the route: {SamplingParams' name: the route's}."""
    try:
        yield
    except ParameterError as error:
        raise renamed(error, names) from error


def completion_params(request: CompletionRequest, defaults: Mapping[str, Any]) -> SamplingParams:
    """Return what a completion asks for. Echo with logprobs scores the prompt."""
    fields = _given(request, defaults)
    if "max_tokens" in request.model_fields_set:
        fields["max_tokens"] = request.max_tokens
    scored = request.prompt_logprobs
    if request.echo and request.logprobs is not None:
        both = (request.logprobs, request.logprobs if scored is None else scored)
        scored = -1 if -1 in both else max(both)  # -1: the whole vocabulary
    return SamplingParams(
        **fields, structured_outputs=form_of(request), logprobs=request.logprobs, prompt_logprobs=scored
    )


def chat_params(request: ChatRequest, defaults: Mapping[str, Any], asked: Asked) -> SamplingParams:
    """Return what a chat completion asks for; with no max_completion_tokens, as many as the context has room for."""
    fields = _given(request, {"max_tokens": None, **defaults})
    limits = [limit for limit in (request.max_completion_tokens, request.max_tokens) if limit is not None]
    if limits:
        fields["max_tokens"] = limits[0]
    return SamplingParams(
        **fields,
        structured_outputs=asked.outputs(),
        shown_special_tokens=asked.shown_special_tokens,
        logprobs=request.top_logprobs if request.logprobs else None,
        prompt_logprobs=request.prompt_logprobs,
    )


def chat_names(request: ChatRequest) -> dict[str, str]:
    """Return what a chat request calls the fields of SamplingParams."""
    limit = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    return {"max_tokens": limit, "logprobs": "top_logprobs", "prompt": "messages"}


def _given(request: SamplingFields, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that were given, over defaults: the others are for SamplingParams to say."""
    fields = dict(defaults)
    for name in request.model_fields_set & _SAMPLING_FIELDS:
        fields[name] = getattr(request, name)
    return fields
