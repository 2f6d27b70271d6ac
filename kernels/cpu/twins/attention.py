"""Attention: each token's queries over its request's context, causal, perhaps windowed, perhaps capped.

score = cap(q . k), out = softmax(score) @ v over the positions that the token sees. Of an int8 cache the products
q . k are sums of integers: the query too is rounded to int8 with a scale of its own.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from .. import program as p
from . import operand
from .cache import CacheView
from .memory import array, rows
from .operand import quantize_rows

Array = NDArray[Any]


def attention(op: p.Attention, step: p.Step) -> None:
    """Attend for every token of every request, in float64."""
    if not step.num_tokens:
        return
    starts = array(step.query_start_loc, (step.num_requests + 1,), np.int32)
    seq_lens = array(step.seq_lens, (step.num_requests,), np.int32)
    table = array(step.block_table, (step.num_requests, step.table_width), np.int32)
    positions = array(step.positions, (step.num_tokens,), np.int32)
    dim = op.cache.head_dim
    dtype = np.dtype(np.float32 if op.cache.form == p.FORM_F32 else ml_dtypes.bfloat16)
    queries = rows(op.queries, step.num_tokens, op.ld_queries, op.num_heads * dim, dtype).astype(np.float32)
    out = np.empty((step.num_tokens, op.num_heads * dim), np.float32)
    for n, seq_len in enumerate(seq_lens):
        blocks = table[n, : -(-int(seq_len) // op.cache.block_size)]
        keys, values = _context(op.cache, blocks, int(seq_len))
        tokens = slice(starts[n], starts[n + 1])
        query = queries[tokens].reshape(-1, op.num_heads, dim)
        out[tokens] = _attend(op, query, positions[tokens], keys, values).reshape(len(query), -1)
    operand.write(op.out, range(step.num_tokens), out)


def _context(cache: p.Cache, blocks: Array, seq_len: int) -> tuple[Array, Array]:
    """The keys and values [seq_len, kv_heads, D] of a request, in float64."""
    view = CacheView(cache, int(blocks.max()) + 1)
    keys, values = (x.astype(np.float64) for x in view.read(blocks, seq_len))
    if cache.form == p.FORM_I8:
        key_scales, value_scales = view.scales(blocks, seq_len)
        keys, values = keys * key_scales[..., None], values * value_scales[..., None]
    return keys, values


def _attend(op: p.Attention, query: Array, positions: Array, keys: Array, values: Array) -> Array:
    """Attend with query [n, heads, D] at positions [n]; return [n, heads, D]."""
    if op.cache.form == p.FORM_I8:
        q, scales = quantize_rows(query)
        query = q * scales[..., None].astype(np.float64)
    grouped = query.astype(np.float64).reshape(len(query), keys.shape[1], -1, query.shape[-1])  # [n, kv_heads, g, D]
    scores = np.einsum("nhgd,khd->nhgk", grouped, keys)
    if op.cap:
        scores = op.cap * np.tanh(scores / op.cap)
    places = np.arange(len(keys))
    seen = places <= positions[:, None]
    if op.window:
        seen &= places > positions[:, None] - op.window
    scores = np.where(seen[:, None, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("nhgk,khd->nhgd", weights, values).reshape(query.shape)
