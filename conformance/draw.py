"""The rules for drawing a token, spelled out in float64 for one position at a time, and how sure their answer is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..core.types import DecodeParams
from .oracle import noise

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
LOG_TOLERANCE = 1e-5
"""Logarithms differ in the last bit between libraries: scores closer than this may fall either way."""

_noise = lru_cache(maxsize=50_000)(noise)


@dataclass(frozen=True, slots=True)
class Draw:
    """One position's answer. Margins are in logit units: how far scores may move before the answer could change."""

    token: int  # what the rules give on the exact logits
    margin: float  # by which it won, in logit units
    decided: bool  # any logits within the bound give this token
    deficit: float  # by how much the judged token missed, in logit units; 0: it is `token`; inf: it was filtered out
    tolerance: float  # deficit that logits within the bound can explain


def processed(logits: Array, params: DecodeParams, prompt: list[int], output: list[int], eos: frozenset[int]) -> Array:
    """Apply penalties, bias and bans to one row of logits [V]; `output` is what was drawn before this position."""
    x = logits.copy()
    for token in set(prompt + output):
        x[token] = x[token] / params.repetition_penalty if x[token] > 0 else x[token] * params.repetition_penalty
    for token, count in Counter(output).items():
        x[token] -= params.presence_penalty + params.frequency_penalty * count
    for token, bias in params.logit_bias.items():
        x[token] += bias
    for token in banned(params, prompt, output, eos):
        x[token] = -np.inf
    if params.allowed_token_ids is not None:
        allowed = np.zeros(len(x), bool)
        allowed[list(params.allowed_token_ids)] = True
        x[~allowed] = -np.inf
    return x


def banned(params: DecodeParams, prompt: list[int], output: list[int], eos: frozenset[int]) -> set[int]:
    """Tokens that may not come next: ends before min_tokens, and what would complete a bad word."""
    ends = params.stop_token_ids | (frozenset() if params.ignore_eos else eos)
    bans = set(ends) if len(output) < params.min_tokens else set()
    for *head, last in params.bad_words_ids:
        if not head or (prompt + output)[-len(head) :] == head:
            bans.add(last)
    return bans


def draw(x: Array, params: DecodeParams, position: int, bound: float, token: int | None = None) -> Draw:
    """Draw from processed logits [V] for an absolute position; judge `token` against logits that may be `bound` off."""
    stretch = max(params.repetition_penalty, 1 / params.repetition_penalty)  # penalties scale errors too
    scale = params.temperature if params.temperature > 0 else 1.0
    slack = bound * stretch / scale
    score = x / scale
    sure = maybe = kept = np.isfinite(score)
    if params.temperature > 0:
        kept, sure, maybe = (_kept(score, params, s) for s in (0.0, slack, -slack))
        score = score + _noise(params.seed, position, len(x))
    tolerance = 2 * slack + (LOG_TOLERANCE if params.temperature > 0 else 0.0)
    best = int(np.where(kept, score, -np.inf).argmax())
    rivals = np.where(maybe, score, -np.inf)
    rivals[best] = -np.inf
    margin = float(score[best] - rivals.max())
    judged = best if token is None else token
    if judged == best:
        deficit = 0.0
    elif not maybe[judged]:
        deficit = np.inf
    else:
        deficit = max(float(np.where(sure, score, -np.inf).max() - score[judged]), 0.0)
    decided = bool(sure[best]) and margin > tolerance
    return Draw(best, margin * scale, decided, deficit * scale, tolerance * scale)


def _kept(y: Array, params: DecodeParams, slack: float) -> Bools:
    """Which tokens top-k, then top-p, then min-p keep, top-p going by the probabilities of what top-k keeps.

    Positive slack keeps only tokens that are sure to stay when values move by as much, negative all that might.
    """
    order = np.lexsort((np.arange(len(y)), -y))  # value descending, id ascending
    ranked = y[order]
    keep = np.isfinite(ranked)
    if 0 < params.top_k < len(y):
        last_in, first_out = ranked[params.top_k - 1], ranked[params.top_k]
        limit = first_out + 2 * slack if slack > 0 else last_in + 2 * slack
        keep &= (np.arange(len(y)) < params.top_k) if slack == 0 else ranked >= limit
    if params.top_p < 1:
        keep &= _mass_before(ranked, params.top_k or len(y), slack) < params.top_p
    if params.min_p > 0:
        keep &= ranked >= ranked[0] + np.log(params.min_p) + 2 * slack
    keep[0] |= slack <= 0
    kept = np.zeros(len(y), bool)
    kept[order] = keep
    return kept


def _mass_before(ranked: Array, top_k: int, slack: float) -> Array:
    """Probability before each token of a descending row; positive slack: at most, negative: at least."""
    p = np.exp(ranked - ranked[0])
    p /= p[:top_k].sum()
    mass = np.concatenate([[0.0], np.cumsum(p)])
    if slack == 0:
        return mass[:-1]
    if slack > 0:  # all that might come before it
        before = mass[np.searchsorted(-ranked, -(ranked - 2 * slack), side="right")] - p
    else:  # only what surely does
        before = mass[np.searchsorted(-ranked, -(ranked - 2 * slack), side="left")]
    return np.asarray(before * np.exp(2 * slack))
