"""Ragged attention over a paged K/V cache: chunks, decodes and verifications in one call."""

from __future__ import annotations

import torch
from torch import Tensor


def ragged_attention(
    query: Tensor,  # [T, heads, D]
    key_cache: Tensor,  # [blocks, kv_heads, block_size, D], any strides
    value_cache: Tensor,  # likewise
    block_table: Tensor,  # [N, B] int; entries past ceil(seq_len / block_size) are never read
    seq_lens: Tensor,  # [N] int: context length, this step's queries included
    query_start_loc: Tensor,  # [N + 1] int: cumulative query lengths
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Return [T, heads, D]: softmax(mask(softcap(scale * q . k))) @ v in float32, for each query over its own context.

    The last query of request n stands at position seq_lens[n] - 1; a query sees positions up to its own, and of these
    the last `window`. Query head h reads K/V head h // (heads / kv_heads). softcap(s) = cap * tanh(s / cap).
    Written for clarity: one request at a time, every intermediate in memory.
    """
    out = torch.empty_like(query)
    kv_heads, block_size, group = key_cache.shape[1], key_cache.shape[2], query.shape[1] // key_cache.shape[1]
    starts = query_start_loc.tolist()
    for n, seq_len in enumerate(seq_lens.tolist()):
        rows = slice(starts[n], starts[n + 1])
        blocks = block_table[n, : -(-seq_len // block_size)].long()
        keys = key_cache[blocks].transpose(0, 1).reshape(kv_heads, -1, query.shape[2])[:, :seq_len].float()
        values = value_cache[blocks].transpose(0, 1).reshape(kv_heads, -1, query.shape[2])[:, :seq_len].float()
        q = query[rows].float().unflatten(1, (kv_heads, group))  # [Q, kv_heads, group, D]
        scores = torch.einsum("qhgd,hsd->hgqs", q, keys) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        at = torch.arange(seq_len - q.shape[0], seq_len, device=query.device)[:, None]  # [Q, 1] query positions
        key_at = torch.arange(seq_len, device=query.device)
        hidden = key_at > at
        if window is not None:
            hidden |= key_at <= at - window
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        out[rows] = torch.einsum("hgqs,hsd->qhgd", weights, values).flatten(1, 2).to(query.dtype)
    return out
