"""Which tokens a request's parameters rule out, and the requests to which they leave nothing."""

from __future__ import annotations

from collections.abc import Set

from .types import DecodeParams, Request


def leaves_nothing(params: DecodeParams, end_token_ids: Set[int], vocab_size: int) -> bool:
    """Whether no token may be drawn first: every allowed one is a bad word or would end the answer too early."""
    if not params.max_tokens:
        return False
    bans = {word[0] for word in params.bad_words_ids if len(word) == 1}
    if params.min_tokens:
        bans |= end_token_ids
    allowed = params.allowed_token_ids
    return len(bans) >= vocab_size if allowed is None else bans.issuperset(allowed)


def is_ruled_out(request: Request, token: int) -> bool:
    """Whether a token may not follow token_ids. One is drawn nevertheless where nothing else is left."""
    params = request.params
    if request.allowed_ids is not None and token not in request.allowed_ids:
        return True
    if request.num_output_tokens < params.min_tokens and token in request.end_token_ids:
        return True
    known = request.token_ids
    return any(
        word[-1] == token and (len(word) == 1 or tuple(known[1 - len(word) :]) == word[:-1])
        for word in params.bad_words_ids
    )
