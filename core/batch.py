"""One step's work as flat, ragged arrays.

Glossary of array sizes: N requests, T query tokens, B blocks a request, L logits rows, V vocabulary,
C block copies, P penalised (row, token) pairs, M biased (row, token) pairs, K log-probabilities a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt32 = NDArray[np.uint32]
UInt64 = NDArray[np.uint64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SamplingRows:
    """How to draw, or score, each of the L requested tokens. Every row stands alone: rows may be split at will."""

    temperature: Float32  # [L]; 0 is greedy
    top_k: Int32  # [L]; 0 is off
    top_p: Float32  # [L]; 1 is off
    min_p: Float32  # [L]; 0 is off
    seeds: UInt64  # [L]
    positions: Int64  # [L] absolute position of the token being drawn
    target_ids: Int32  # [L]; -1: draw; else do not draw but report that token (scoring rows)
    num_logprobs: Int32  # [L]; -2: none; k >= 0: that many best besides the token's own; -1: the whole vocabulary
    penalty_rows: Int32  # [P] repetition penalty: logits[row, id] / v if positive else * v; each (row, id) once
    penalty_ids: Int32  # [P]
    penalty_values: Float32  # [P]
    bias_rows: Int32  # [M] added after the repetition penalty: presence and frequency penalties, logit_bias and
    bias_ids: Int32  # [M] banned tokens (-inf), summed beforehand in float32 so that each (row, id) stands once
    bias_values: Float32  # [M]
    mask: UInt32 | None  # [L, ceil(V / 32)] bit i of word w allows token 32 * w + i; None: everything is allowed

    def __len__(self) -> int:
        return len(self.temperature)

    def select(self, rows: Int64) -> SamplingRows:
        """Take `rows` [L'] of the L, in that order."""
        penalty_rows, penalties = _select_pairs(self.penalty_rows, rows, len(self))
        bias_rows, biases = _select_pairs(self.bias_rows, rows, len(self))
        return SamplingRows(
            temperature=self.temperature[rows],
            top_k=self.top_k[rows],
            top_p=self.top_p[rows],
            min_p=self.min_p[rows],
            seeds=self.seeds[rows],
            positions=self.positions[rows],
            target_ids=self.target_ids[rows],
            num_logprobs=self.num_logprobs[rows],
            penalty_rows=penalty_rows,
            penalty_ids=self.penalty_ids[penalties],
            penalty_values=self.penalty_values[penalties],
            bias_rows=bias_rows,
            bias_ids=self.bias_ids[biases],
            bias_values=self.bias_values[biases],
            mask=None if self.mask is None else self.mask[rows],
        )


def _select_pairs(pair_rows: Int32, rows: Int64, num_rows: int) -> tuple[Int32, Int64]:
    """Which (row, token) pairs belong to `rows`, and the rows they belong to afterwards."""
    if not len(pair_rows):
        return pair_rows, np.empty(0, np.int64)
    new_rows = np.full(num_rows, -1, np.int32)
    new_rows[rows] = np.arange(len(rows), dtype=np.int32)
    kept = np.flatnonzero(new_rows[pair_rows] >= 0)
    return new_rows[pair_rows[kept]], kept


@dataclass(frozen=True, slots=True)
class Batch:
    """N requests, T query tokens, flat and ragged. A decode has query length 1, a verification 1 + k, a chunk any."""

    input_ids: Int32  # [T]
    positions: Int32  # [T]
    slot_mapping: Int32  # [T] block_id * block_size + offset: where this step's K/V goes
    query_start_loc: Int32  # [N + 1] cumulative query lengths
    seq_lens: Int32  # [N] context length once this step is done
    block_table: Int32  # [N, B] 0-padded; entries past ceil(seq_len / block_size) are never read
    logits_indices: Int32  # [L] rows of T whose logits are wanted, ascending
    row_ids: Int32  # [N] a stable row below max_num_seqs for each running request
    block_copies: Int32  # [C, 3] (from block, to block, tokens), done before the forward; more may be copied.
    #   To the block itself: tokens that it is still needed for (see KVCache.take_block_copies)
    sampling: SamplingRows  # L rows, aligned with logits_indices

    @property
    def query_lens(self) -> Int32:
        """[N] tokens computed this step."""
        return np.diff(self.query_start_loc)

    @property
    def context_lens(self) -> Int32:
        """[N] tokens computed before this step."""
        return self.seq_lens - self.query_lens

    def select(self, requests: Sequence[int] | Int64) -> Batch:
        """The batch of some of the requests, by index in rising order, for runners that must split it.

        Logits of the part go to rows `batch.logits_rows(requests)` of the whole. Block copies stay with the whole:
        carry them out before any part.
        """
        chosen = np.asarray(requests, np.int64)
        lens = self.query_lens[chosen]
        starts = np.zeros(len(chosen) + 1, np.int32)
        np.cumsum(lens, out=starts[1:])
        shift = starts[:-1] - self.query_start_loc[chosen]  # [N'] from places in the whole to places in the part
        tokens = np.arange(starts[-1]) - np.repeat(shift, lens)
        rows = self.logits_rows(chosen)
        indices = self.logits_indices[rows]
        owners = np.searchsorted(self.query_start_loc[chosen], indices, side="right") - 1
        return Batch(
            input_ids=self.input_ids[tokens],
            positions=self.positions[tokens],
            slot_mapping=self.slot_mapping[tokens],
            query_start_loc=starts,
            seq_lens=self.seq_lens[chosen],
            block_table=self.block_table[chosen],
            logits_indices=indices + shift[owners],
            row_ids=self.row_ids[chosen],
            block_copies=self.block_copies[:0],
            sampling=self.sampling.select(rows),
        )

    def logits_rows(self, requests: Sequence[int] | Int64) -> Int64:
        """The logits rows [L'] of some of the requests, in rising order."""
        bounds = np.searchsorted(self.logits_indices, self.query_start_loc)
        spans = [np.arange(bounds[i], bounds[i + 1]) for i in requests]
        return np.concatenate([*spans, np.empty(0, np.int64)]).astype(np.int64)


NOT_A_NUMBER = -1
"""Stands for the token of a row whose logits hold NaN: there is none to draw."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a sampler drew for L rows. The logprob arrays are there when any row asked for them."""

    token_ids: Int32  # [L] drawn, or the target; NOT_A_NUMBER
    logprobs: Float32 | None = None  # [L] of token_ids, log-softmax of the raw logits
    ranks: Int32 | None = None  # [L] 1 + how many tokens are more likely
    top_ids: Int32 | None = None  # [L, K] best first, ties by lowest id; K is the most that any row asked for
    top_logprobs: Float32 | None = None  # [L, K]
