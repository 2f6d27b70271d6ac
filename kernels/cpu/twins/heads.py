"""Heads: projections split into heads, normed, rotated, scaled, and written to the K/V cache."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from .. import program as p
from .cache import CacheView
from .memory import array, rows
from .norm import normed

Float32 = NDArray[np.float32]


def heads(op: p.Heads, step: p.Step) -> None:
    """Write the queries, and this step's keys and values to their slots."""
    num_tokens, dim, kv_heads = step.num_tokens, op.cache.head_dim, op.cache.num_kv_heads
    if not num_tokens:
        return
    slots = array(step.slot_mapping, (num_tokens,), np.int32)
    q_size, kv_size = op.num_heads * dim, kv_heads * dim
    qkv = rows(op.qkv, num_tokens, op.ld, q_size + 2 * kv_size, np.float32)
    query = _positioned(op, step, qkv[:, :q_size], op.q_norm)
    key = _positioned(op, step, qkv[:, q_size : q_size + kv_size], op.k_norm)
    value = qkv[:, q_size + kv_size :].reshape(num_tokens, kv_heads, dim)
    dtype = np.dtype(np.float32 if op.cache.form == p.FORM_F32 else ml_dtypes.bfloat16)
    queries = rows(op.queries, num_tokens, op.ld_queries, q_size, dtype)
    queries[:] = (query * np.float32(op.query_scale)).reshape(num_tokens, -1)
    CacheView(op.cache, int(slots.max()) // op.cache.block_size + 1).write(slots, key, value)


def _positioned(op: p.Heads, step: p.Step, x: Float32, weight: int | None) -> Float32:
    """Norm and rotate queries or keys [T, heads * D]; return them [T, heads, D]."""
    if op.norm_all:
        x = normed(x, weight, op.eps)
    x = x.reshape(len(x), -1, op.cache.head_dim)
    if not op.norm_all:
        x = normed(x, weight, op.eps)
    if not op.rotations:
        return x
    positions, half = array(step.positions, (step.num_tokens,), np.int32), op.rotary_dim // 2
    rotations = array(op.rotations, (int(positions.max()) + 1, 2, half), np.float32)[positions]
    cos, sin = rotations[:, None, 0], rotations[:, None, 1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)
