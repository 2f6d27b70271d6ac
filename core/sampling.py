"""HostSampler: the normative sampler. A token is a pure function of (logits, parameters, seed, position)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batch import NOT_A_NUMBER, Float32, Int32, Int64, Sampled, SamplingRows, UInt32, UInt64
from .interfaces import Logits

Bool = NDArray[np.bool_]
Score = Callable[[Float32, int, int], tuple[float, int, Int64]]
"""(raw logits [V], token, k) -> (log of the sum of exponentials, the token's rank, the best k ids)."""

NOISE_SPAN = np.float32(20.0)
"""Gumbel noise from 23-bit uniforms lies between -2.9 and 16.7: a token this far below the best cannot win."""

_MASK32 = np.uint64(0xFFFFFFFF)
_MASK64 = 0xFFFFFFFFFFFFFFFF
_CHUNK = 1 << 20  # logits looked at together, to bound the memory of temporaries


def splitmix64(x: int) -> int:
    """The first output of the SplitMix64 generator seeded with x, all modulo 2**64 (Steele, Lea and Flood, 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK64
    return x ^ (x >> 31)


def choice_seed(seed: int, index: int) -> int:
    """The seed of choice `index` of a request with n > 1: its own for choice 0."""
    return splitmix64((seed + index) & _MASK64) if index else seed


def philox4x32_10(key: UInt64, counter: tuple[UInt64, UInt64, UInt64, UInt64]) -> tuple[UInt32, UInt32, UInt32, UInt32]:
    """Philox4x32 with ten rounds (Salmon et al., 2011): four random words [n] for each counter.

    `key` [n] holds both key words, the first in its low half; each of the four counter words [n] is below 2**32.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key & _MASK32, key >> np.uint64(32)
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c2 = (p1 >> np.uint64(32)) ^ c1 ^ k0, (p0 >> np.uint64(32)) ^ c3 ^ k1
        c1, c3 = p1 & _MASK32, p0 & _MASK32
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _MASK32, (k1 + np.uint64(0xBB67AE85)) & _MASK32
    return c0.astype(np.uint32), c1.astype(np.uint32), c2.astype(np.uint32), c3.astype(np.uint32)


def gumbel(seeds: UInt64, positions: Int64, ids: Int64) -> Float32:
    """Standard Gumbel noise for (seed, position, token id), each [n]; equal neighbours of ids // 4 share a counter.

    One seed and one position [1] serve all ids.
    """
    groups = ids >> 2
    first = np.ones(len(ids), np.bool_)
    first[1:] = groups[1:] != groups[:-1]
    if len(seeds) > 1:
        first[1:] |= (seeds[1:] != seeds[:-1]) | (positions[1:] != positions[:-1])
    at = np.flatnonzero(first)
    if len(seeds) > 1:
        seeds, positions = seeds[at], positions[at]
    position = positions.astype(np.uint64)
    counter = (groups[at].astype(np.uint64), position & _MASK32, position >> np.uint64(32), np.zeros_like(position))
    words = np.stack(philox4x32_10(seeds, counter), axis=1)
    bits = words[np.cumsum(first) - 1, ids & 3]
    uniform = ((bits >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)  # exact
    noise: Float32 = -np.log(-np.log(uniform))
    return noise


class HostSampler:
    """ARCHITECTURE's sampling, step by step, in numpy. Every runner's own sampler is judged against it."""

    def sample(self, logits: Logits, rows: SamplingRows) -> Sampled:
        """Draw (or score) one token for each of the L rows of logits [L, V]."""
        raw: Float32 = np.asarray(logits, np.float32)
        edited = edit_logits(raw, rows)
        tokens = edited.argmax(-1).astype(np.int32)  # the lowest id among equals
        wanted = (rows.temperature > 0) & (rows.target_ids < 0)
        best = edited[np.arange(len(edited)), tokens]  # [L]
        drawn = np.flatnonzero(wanted & np.isfinite(best))  # a row with nothing allowed keeps its argmax
        tokens[np.isnan(best)] = NOT_A_NUMBER  # argmax gives the first NaN
        step = max(_CHUNK // raw.shape[-1], 1)
        for start in range(0, len(drawn), step):
            chunk = drawn[start : start + step]
            tokens[chunk] = _draw(edited[chunk] / rows.temperature[chunk, None], rows.select(chunk))
        tokens = np.where(rows.target_ids < 0, tokens, rows.target_ids)
        return with_logprobs(raw, tokens, rows.num_logprobs, _score)


def edit_logits(logits: Float32, rows: SamplingRows) -> Float32:
    """Apply penalties, biases and mask to logits [L, V]; returns them untouched where nothing was asked for."""
    if edits_nothing(rows):
        return logits
    edited = logits.copy()
    at = rows.penalty_rows, rows.penalty_ids
    x = edited[at]
    edited[at] = np.where(x > 0, x / rows.penalty_values, x * rows.penalty_values)
    edited[rows.bias_rows, rows.bias_ids] += rows.bias_values
    if rows.mask is not None:
        for row in masked_rows(rows.mask):
            octets = rows.mask[row].astype("<u4").view(np.uint8)
            allowed = np.unpackbits(octets, count=logits.shape[1], bitorder="little")
            edited[row][allowed == 0] = -np.inf
    return edited


def masked_rows(mask: UInt32) -> Int64:
    """The rows of a mask [L, ceil(V / 32)] that forbid anything."""
    return np.flatnonzero((mask != np.uint32(0xFFFFFFFF)).any(1))


def edits_nothing(rows: SamplingRows) -> bool:
    """Whether nobody asked for penalties, biases or a mask."""
    return not len(rows.penalty_rows) and not len(rows.bias_rows) and rows.mask is None


def _draw(y: Float32, rows: SamplingRows) -> Int64:
    """Gumbel-max over what the filters keep of y [n, V], logits over temperature; the lowest id among equals."""
    best = y.max(-1)
    tokens: Int64 = y.argmax(-1)
    candidates = y > (best - NOISE_SPAN)[:, None]
    candidates[np.arange(len(y)), tokens] = True
    for row in np.flatnonzero((rows.top_k > 0) | (rows.top_p < 1) | (rows.min_p > 0)):
        candidates[row] &= _kept(y[row], candidates[row], int(rows.top_k[row]), rows.top_p[row], rows.min_p[row])
    of, ids = np.nonzero(candidates)
    scores = y[of, ids] + gumbel(rows.seeds[of], rows.positions[of], ids)
    starts = np.searchsorted(of, np.arange(len(y)))
    wins = np.flatnonzero(scores == np.maximum.reduceat(scores, starts)[of])[::-1]
    tokens[of[wins]] = ids[wins]  # in falling order, so that the lowest id is written last
    return tokens


def _kept(y: Float32, candidates: Bool, top_k: int, top_p: np.float32, min_p: np.float32) -> Bool:
    """Which of the candidates [V] pass top-k, then top-p, then min-p; the best always does.

    Order: value descending, id ascending. Probabilities are those of the tokens that top-k keeps, in float64.
    """
    ids = np.flatnonzero(candidates)
    ids = ids[np.argsort(-y[ids], kind="stable")]
    best = np.float64(y[ids[0]])
    if 0 < top_k < len(y):
        everything = np.partition(y, len(y) - top_k)[len(y) - top_k :]
        ids = ids[:top_k]
    else:
        everything = y
    weights = np.exp(y[ids].astype(np.float64) - best)
    keep = weights >= min_p
    if top_p < 1:
        total = np.exp(everything.astype(np.float64) - best).sum()
        keep &= (np.cumsum(weights) - weights) / total < top_p
    keep[0] = True
    kept = np.zeros(len(y), np.bool_)
    kept[ids[keep]] = True
    return kept


def with_logprobs(logits: Float32, tokens: Int32, num_logprobs: Int32, score: Score) -> Sampled:
    """Add log-softmax values, ranks and the best tokens of the raw logits for the rows that asked (-2: did not)."""
    asked = np.flatnonzero(num_logprobs > -2)
    if not len(asked):
        return Sampled(tokens)
    num_rows, vocab_size = logits.shape
    width = vocab_size if (num_logprobs == -1).any() else min(int(num_logprobs.max()), vocab_size)
    logprobs, ranks = np.zeros(num_rows, np.float32), np.zeros(num_rows, np.int32)
    top_ids, top_logprobs = np.zeros((num_rows, width), np.int32), np.zeros((num_rows, width), np.float32)
    for row in asked[tokens[asked] != NOT_A_NUMBER]:
        x = logits[row]
        k = vocab_size if num_logprobs[row] == -1 else min(int(num_logprobs[row]), vocab_size)
        log_total, ranks[row], best = score(x, tokens[row], k)
        logprobs[row] = np.float64(x[tokens[row]]) - log_total
        top_ids[row, :k], top_logprobs[row, :k] = best, x[best].astype(np.float64) - log_total
    return Sampled(tokens, logprobs, ranks, top_ids, top_logprobs)


def _score(logits: Float32, token: int, k: int) -> tuple[float, int, Int64]:
    x = logits.astype(np.float64)
    log_total = float(x.max() + np.log(np.exp(x - x.max()).sum()))
    return log_total, 1 + int(np.count_nonzero(x > x[token])), best_ids(x, k)


def best_ids(values: NDArray[Any], k: int) -> Int64:
    """The ids of the k highest of `values` [V], best first, ties by lowest id."""
    if k == 0:
        return np.empty(0, np.int64)
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    ids = np.flatnonzero(values >= threshold)
    return ids[np.argsort(-values[ids], kind="stable")][:k]
