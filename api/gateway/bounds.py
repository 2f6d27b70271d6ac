"""How long an answer may become under a key's limits."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ParameterError
from ..server.errors import ApiError
from ..text import SamplingParams
from .principal import KeyLimits


def bounded(
    params: SamplingParams, num_prompt_tokens: int, limits: KeyLimits, max_model_len: int, whose: str = "this key"
) -> SamplingParams:
    """Return parameters that keep to the limits: an answer of no stated length becomes as long as they allow.

    `num_prompt_tokens`: of the longest prompt; `whose` limits they are, for the message. Raises ApiError 400 for a
    prompt that is too long already, or with what was asked for, and ParameterError for an answer that may not be as
    long.
    """
    longest = limits.max_output
    if limits.max_context is not None:
        room = limits.max_context - num_prompt_tokens
        if room < (params.max_tokens or 1):
            raise _too_long(num_prompt_tokens, params.max_tokens or 0, limits.max_context, whose)
        longest = room if longest is None else min(longest, room)
    if longest is None:
        return params
    if params.max_tokens is None:
        return replace(params, max_tokens=max(1, min(longest, max_model_len - num_prompt_tokens)))
    if limits.max_output is not None and params.max_tokens > limits.max_output:
        raise ParameterError(
            "max_tokens", params.max_tokens, f"{whose}'s answers have at most {limits.max_output} tokens"
        )
    return params


def output_room(params: SamplingParams, num_prompt_tokens: int, max_model_len: int) -> int:
    """Return how many tokens an answer can have at most."""
    room = max(0, max_model_len - num_prompt_tokens)
    return room if params.max_tokens is None else min(params.max_tokens, room)


def _too_long(num_prompt_tokens: int, max_tokens: int, max_context: int, whose: str) -> ApiError:
    wanted = f" and {max_tokens} more were asked for" if max_tokens else ""
    message = f"{whose}'s contexts have at most {max_context} tokens: the prompt has {num_prompt_tokens}{wanted}"
    return ApiError(400, message, code="context_length_exceeded")
