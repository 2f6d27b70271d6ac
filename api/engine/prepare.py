"""Check a request against what the engine is, and resolve it to what the engine takes."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.bans import leaves_nothing
from ...core.types import DecodeParams
from ..errors import ContextLengthError, NotOffered, ParameterError
from ..text import SamplingParams, TextModel
from .types import EngineInfo


def prepare(
    prompt_ids: Sequence[int], params: SamplingParams, info: EngineInfo, text: TextModel, *, max_logprobs: int = -1
) -> list[DecodeParams]:
    """Return the n choices' parameters; `max_logprobs` -1 is no bound.

    Raises ParameterError, or its kinds ContextLengthError and NotOffered.
    """
    if not prompt_ids:
        raise ParameterError("prompt", [], "at least one token")
    for token_id in (min(prompt_ids), max(prompt_ids)):
        if not 0 <= token_id < info.vocab_size:
            raise ParameterError("prompt", token_id, f"token ids from 0 to {info.vocab_size - 1}")
    room = info.max_model_len - len(prompt_ids)
    wanted = params.max_tokens if params.max_tokens is not None else 1
    if wanted > room:
        raise ContextLengthError(len(prompt_ids), wanted, info.max_model_len)
    for name in ("logprobs", "prompt_logprobs"):
        count = getattr(params, name)
        if max_logprobs >= 0 and count is not None and not 0 <= count <= max_logprobs:
            raise ParameterError(name, count, f"from 0 to {max_logprobs}")
    if params.prompt_logprobs is not None and info.no_prompt_logprobs:
        reason = f"the backend {info.backend} does not score prompts: {info.no_prompt_logprobs}"
        raise NotOffered("prompt_logprobs", params.prompt_logprobs, reason)
    if params.structured_outputs is not None and info.no_grammars:
        raise NotOffered("structured_outputs", params.structured_outputs, info.no_grammars)
    if params.min_tokens > room:
        raise ParameterError("min_tokens", params.min_tokens, f"at most {room}, which is what the context leaves")
    resolved = params.resolve(
        vocab_size=info.vocab_size,
        max_tokens=room,
        encode=lambda word: text.encode(word, add_special_tokens=False),
    )
    _check_something_is_left(params, resolved[0], info)
    return resolved


def _check_something_is_left(params: SamplingParams, resolved: DecodeParams, info: EngineInfo) -> None:
    ends = resolved.stop_token_ids | (frozenset() if resolved.ignore_eos else info.eos_token_ids)
    if leaves_nothing(resolved, ends, info.vocab_size):
        field = "bad_words" if params.allowed_token_ids is None else "allowed_token_ids"
        allowed = "at least one token must be left that bad_words and min_tokens do not ban"
        raise ParameterError(field, getattr(params, field), allowed)
