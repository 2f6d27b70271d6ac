"""What a request must be for a scheduler to take it; the API says the same of its own parameters, in its own words."""

from __future__ import annotations

from collections.abc import Collection

from .bans import leaves_nothing
from .types import Request


def validate(request: Request, max_model_len: int, vocab_size: int) -> None:
    """Raise ValueError for a request that could never run, or that would make the runner or the sampler stumble.

    `end_token_ids` must be set already.
    """
    params, num_tokens = request.params, len(request.token_ids)
    if not 1 <= request.num_prompt_tokens <= num_tokens:
        raise ValueError(f"num_prompt_tokens={request.num_prompt_tokens} of {num_tokens} token_ids: expected 1 to that")
    if num_tokens > max_model_len:
        raise ValueError(f"{num_tokens} tokens do not fit the context of {max_model_len}")
    _validate_ids("token_ids", request.token_ids, vocab_size)
    _validate_ids("logit_bias", params.logit_bias, vocab_size)
    _validate_ids("allowed_token_ids", params.allowed_token_ids or (), vocab_size)
    for word in params.bad_words_ids:
        if not word:
            raise ValueError("bad_words_ids holds an empty word")
        _validate_ids("bad_words_ids", word, vocab_size)
    if num_tokens == request.num_prompt_tokens and leaves_nothing(params, request.end_token_ids, vocab_size):
        raise ValueError("no token may be drawn: bad_words_ids and min_tokens ban all that are allowed")


def _validate_ids(field: str, ids: Collection[int], vocab_size: int) -> None:
    for worst in (min(ids), max(ids)) if ids else ():
        if not 0 <= worst < vocab_size:
            raise ValueError(f"{field} holds token id {worst}: the vocabulary has {vocab_size}")
