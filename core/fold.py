"""Fold what a step sampled back into a request: accept tokens, find its end, report log-probabilities."""

from __future__ import annotations

from .bans import is_ruled_out
from .batch import NOT_A_NUMBER, Sampled
from .constraints import fits
from .types import FinishReason, Request, RequestOutput, TokenLogprobs

NO_NUMBER = (
    "the model computed no number (NaN) for the next token: its weights are damaged, or they overflow in this dtype; "
    "another dtype may help"
)
NOTHING_LEFT = "no token is left to draw: allowed_token_ids, bad_words and min_tokens together rule all of them out"
OFF_GRAMMAR = "no token is left to draw: the grammar, allowed_token_ids and bad_words together rule all of them out"


def is_scoring(request: Request) -> bool:
    """Whether logprobs of prompt positions are still to be reported."""
    return request.params.num_prompt_logprobs is not None and request.num_scored_tokens < request.num_prompt_tokens - 1


def fold(request: Request, sampled: Sampled, tokens: list[int], row: int, end: int) -> RequestOutput:
    """Fold in rows `row` to `end` of `sampled` (`tokens` as a list): those that score the prompt, then those that draw.

    Appends to token_ids, counts num_scored_tokens and clears draft_ids. Why it ended, if it did, is in the output only.
    """
    output = RequestOutput(request_id=request.id, token_ids=[], num_cached_tokens=request.num_cached_tokens)
    params = request.params
    if params.num_prompt_logprobs is not None and is_scoring(request):
        num_scored = min(end - row, request.num_prompt_tokens - 1 - request.num_scored_tokens)
        request.num_scored_tokens += num_scored
        output.prompt_logprobs = _logprobs(sampled, row, row + num_scored, params.num_prompt_logprobs)
        row += num_scored
    if row < end:
        _accept(request, tokens[row:end], output)
        if end - row > 1:
            output.num_drafted, output.num_accepted = end - row - 1, max(len(output.token_ids) - 1, 0)
        if params.num_logprobs is not None:
            output.logprobs = _logprobs(sampled, row, row + len(output.token_ids), params.num_logprobs)
    return output


def _accept(request: Request, draws: list[int], output: RequestOutput) -> None:
    """Take each draw for as long as the draft before it was right and nothing ends the request."""
    known, new, drafts = request.token_ids, output.token_ids, request.draft_ids
    last = len(draws) - 1
    params = request.params
    may_be_ruled_out = bool(params.bad_words_ids or params.min_tokens) or params.allowed_token_ids is not None
    constraint = request.constraint
    for index, token in enumerate(draws):
        if token == NOT_A_NUMBER:
            output.finish_reason, output.error = FinishReason.ERROR, NO_NUMBER
            break
        if len(known) < request.max_num_tokens:  # else max_tokens is 0, or it was replayed complete: it only ends
            if may_be_ruled_out and is_ruled_out(request, token):  # so nothing was left to draw
                _end_without_choice(request, output)
                break
            if constraint is not None and not fits(constraint, token, ends=token in request.end_token_ids):
                _end_without_choice(request, output)
                break
            known.append(token)
            new.append(token)
            if token in request.end_token_ids:
                output.finish_reason, output.stop_token_id = FinishReason.STOP, token
                break
            if constraint is not None and constraint.is_finished:
                output.finish_reason = FinishReason.STOP
                break
        if len(known) >= request.max_num_tokens:
            output.finish_reason = FinishReason.LENGTH
            break
        if index < last and token != drafts[index]:
            break
    if drafts:
        request.draft_ids = []


def _end_without_choice(request: Request, output: RequestOutput) -> None:
    """End it where no token was left to draw: that is an error, unless the grammar has come to a good end."""
    constraint = request.constraint
    if constraint is not None and constraint.may_end:
        output.finish_reason = FinishReason.STOP
        return
    output.finish_reason = FinishReason.ERROR
    output.error = NOTHING_LEFT if constraint is None else constraint.error or OFF_GRAMMAR


def _logprobs(sampled: Sampled, start: int, stop: int, k: int) -> list[TokenLogprobs]:
    """Rows `start` to `stop` of `sampled` with the `k` best tokens of each (-1: all)."""
    assert sampled.logprobs is not None and sampled.ranks is not None
    ids = sampled.token_ids[start:stop].tolist()
    tops: list[list[tuple[int, float]]] = [[] for _ in ids]
    if k and sampled.top_ids is not None and sampled.top_logprobs is not None:
        width = sampled.top_ids.shape[1] if k < 0 else k
        top_ids, top_logprobs = sampled.top_ids[start:stop, :width], sampled.top_logprobs[start:stop, :width]
        tops = [list(zip(*pair, strict=True)) for pair in zip(top_ids.tolist(), top_logprobs.tolist(), strict=True)]
    logprobs, ranks = sampled.logprobs[start:stop].tolist(), sampled.ranks[start:stop].tolist()
    return [TokenLogprobs(*fields) for fields in zip(ids, logprobs, ranks, tops, strict=True)]
