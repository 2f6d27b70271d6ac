"""One step's work as flat, ragged arrays.

Glossary of array sizes: N requests, T query tokens, B blocks a request, L logits rows, V vocabulary,
C block copies, P penalised (row, token) pairs, M biased (row, token) pairs, K log-probabilities a row.
"""

from __future__ import annotations

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
    block_copies: Int32  # [C, 3] (from block, to block, tokens), done before the forward
    sampling: SamplingRows  # L rows, aligned with logits_indices


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a sampler drew for L rows. The logprob arrays are there when any row asked for them."""

    token_ids: Int32  # [L] drawn, or the target
    logprobs: Float32 | None = None  # [L] of token_ids, log-softmax of the raw logits
    ranks: Int32 | None = None  # [L] 1 + how many tokens are more likely
    top_ids: Int32 | None = None  # [L, K] best first, ties by lowest id; K is the most that any row asked for
    top_logprobs: Float32 | None = None  # [L, K]
