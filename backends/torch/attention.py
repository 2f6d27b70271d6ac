"""Attention from torch's own operators: requests of like shape together, their K/V gathered from the paged cache."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

SLACK_TOKENS = 512  # of padding in a group that are cheaper than another group's operators
MAX_GROUP_TOKENS = 32768  # gathered at once, padding included: bounds the memory
FOLD_QUERIES = 32  # up to this many queries a request, heads that share K/V are folded into the query dimension


@dataclass(slots=True)
class Group:
    """Requests with equally many queries, padded to one context length."""

    tokens: Tensor | slice  # [n * num_queries] rows of the step's T tokens
    num_queries: int  # of each request
    seq_lens: Tensor  # [n]
    num_keys: int  # the longest context
    rows: Tensor | None  # [n * 2 * kv_heads * tiles] rows of the cache; None: all keys are this step's own
    is_ragged: bool  # contexts differ
    masks: dict[int | None, Tensor | None] = field(default_factory=dict)  # by window

    @property
    def size(self) -> int:
        """How many requests."""
        return len(self.seq_lens)

    @property
    def folds(self) -> bool:
        """Whether query heads that share K/V stand beside each other as queries."""
        return self.rows is not None and self.num_queries <= FOLD_QUERIES

    def mask(self, window: int | None, group_heads: int, dtype: torch.dtype) -> Tensor | None:
        """Return what to add to the scores, [n, 1, queries, num_keys] of 0 and -inf; None where nothing is hidden."""
        if window is not None and window >= self.num_keys:
            window = None
        if window not in self.masks:
            self.masks[window] = self._make_mask(window, group_heads if self.folds else 1, dtype)
        return self.masks[window]

    def _make_mask(self, window: int | None, repeat: int, dtype: torch.dtype) -> Tensor | None:
        if window is None and self.num_queries == 1 and not self.is_ragged:
            return None
        device = self.seq_lens.device
        queries = torch.arange(-self.num_queries, 0, device=device)
        at = (self.seq_lens[:, None] + queries)[:, None, :, None]  # [n, 1, queries, 1] positions
        keys = torch.arange(self.num_keys, device=device)
        hidden = keys > at
        if window is not None:
            hidden |= keys <= at - window
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)
        return mask.repeat(1, 1, repeat, 1) if repeat > 1 else mask


def plan_groups(
    query_start_loc: NDArray[np.int32],  # [N + 1]
    seq_lens: NDArray[np.int32],  # [N]
    tile_table: NDArray[np.int32],  # [N, tiles]
    *,
    tile_size: int,
    kv_rows: int,
    zero_tile: int,
    device: torch.device,
) -> list[Group]:
    """Sort the step's requests into groups; `zero_tile` pads tables, `kv_rows` is 2 * kv_heads."""
    query_lens = np.diff(query_start_loc)
    order = np.lexsort((seq_lens, query_lens))
    sorted_queries, sorted_lens = query_lens[order].tolist(), seq_lens[order].tolist()
    groups = []
    for low, high in _runs(sorted_queries, sorted_lens):
        members, num_queries, num_keys = order[low:high], sorted_queries[low], sorted_lens[high - 1]
        fresh = num_keys == num_queries > 1
        rows = None
        if not fresh:
            tiles = tile_table[members, : -(-num_keys // tile_size)]
            used = np.arange(tiles.shape[1]) * tile_size < seq_lens[members, None]
            tiles = np.where(used, tiles, zero_tile)
            table = torch.from_numpy(tiles).to(device).long()
            rows = (table[:, None, :] * kv_rows + torch.arange(kv_rows, device=device)[None, :, None]).reshape(-1)
        tokens: Tensor | slice = slice(None)
        if len(members) < len(order) or np.any(members[1:] < members[:-1]):
            tokens = _token_rows(query_start_loc[members], num_queries, device)
        lens = torch.from_numpy(seq_lens[members]).to(device)
        groups.append(Group(tokens, num_queries, lens, num_keys, rows, sorted_lens[low] != num_keys))
    return groups


def _token_rows(starts: NDArray[np.int32], num_queries: int, device: torch.device) -> Tensor | slice:
    if len(starts) == 1:
        return slice(int(starts[0]), int(starts[0]) + num_queries)
    rows = starts[:, None].astype(np.int64) + np.arange(num_queries)
    return torch.from_numpy(rows.reshape(-1)).to(device)


def _runs(query_lens: list[int], seq_lens: list[int]) -> list[tuple[int, int]]:
    """Cut requests sorted by (queries, context) where queries differ or padding would cost more than it saves."""
    runs, low, total = [], 0, 0
    for i, (num_queries, seq_len) in enumerate(zip(query_lens, seq_lens, strict=True)):
        count = i - low + 1
        padding = seq_len * count - (total + seq_len)
        fresh_ends = num_queries > 1 and seq_lens[low] == num_queries != seq_len
        if i > low and (
            num_queries != query_lens[low]
            or fresh_ends
            or padding > max(SLACK_TOKENS // num_queries, (total + seq_len) // 4)
            or seq_len * count > MAX_GROUP_TOKENS
        ):
            runs.append((low, i))
            low, total = i, 0
        total += seq_len
    runs.append((low, len(query_lens)))
    return runs


def grouped_attention(
    qkv: Tensor,  # [T, heads + 2 * kv_heads, D], rotated
    cache: Tensor,  # [tiles, 2 * kv_heads, tile_size, D], with this step's K/V already written
    groups: list[Group],
    *,
    num_heads: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Return [T, heads * D]: what kernels.triton.attention.ragged_attention computes, faster."""
    if len(groups) == 1 and isinstance(groups[0].tokens, slice):
        return _attend(qkv, cache, groups[0], num_heads, scale, window, softcap)
    out = qkv.new_empty(len(qkv), num_heads * qkv.shape[2])
    for group in groups:
        out[group.tokens] = _attend(qkv[group.tokens], cache, group, num_heads, scale, window, softcap)
    return out


def _attend(
    qkv: Tensor, cache: Tensor, group: Group, num_heads: int, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    n, queries, dim = group.size, group.num_queries, qkv.shape[2]
    kv_heads = cache.shape[1] // 2
    heads_each = num_heads // kv_heads
    if group.rows is None:
        kv = qkv[:, num_heads:].view(n, queries, 2 * kv_heads, dim).transpose(1, 2)
    else:
        kv = cache.view(-1, cache.shape[2] * dim).index_select(0, group.rows).view(n, 2 * kv_heads, -1, dim)
        kv = kv[:, :, : group.num_keys]
    query = qkv[:, :num_heads].view(n, queries, num_heads, dim)
    if group.folds:  # [n, kv_heads, heads_each * queries, D]
        query = query.unflatten(2, (kv_heads, heads_each)).permute(0, 2, 3, 1, 4).reshape(n, kv_heads, -1, dim)
    else:  # [n, heads, queries, D]
        query = query.transpose(1, 2)
    out = _scaled_dot_product(query, kv[:, :kv_heads], kv[:, kv_heads:], group, heads_each, scale, window, softcap)
    out = out.unflatten(2, (heads_each, queries)).permute(0, 3, 1, 2, 4) if group.folds else out.transpose(1, 2)
    return out.reshape(n * queries, num_heads * dim)


def _scaled_dot_product(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    group: Group,
    heads_each: int,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    shared = not group.folds and heads_each > 1
    if softcap is None:
        causal = group.rows is None and (window is None or window >= group.num_keys)
        mask = None if causal else group.mask(window, heads_each, query.dtype)
        return functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=shared
        )
    if shared:
        keys, values = keys.repeat_interleave(heads_each, 1), values.repeat_interleave(heads_each, 1)
    scores = (query @ keys.transpose(2, 3)).float() * scale
    scores = softcap * torch.tanh(scores / softcap)
    mask = group.mask(window, heads_each, query.dtype)
    if mask is not None:
        scores += mask
    return scores.softmax(-1).to(query.dtype) @ values
