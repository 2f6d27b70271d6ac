"""Attention from torch's own operators: requests of like shape together, their K/V gathered from the paged cache."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

GROUP_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28}
"""K/V gathered at once, padding included. On a CPU they stay in the second-level cache until they are used."""

SLACK_TOKENS = {"cpu": 64, "cuda": 4096}
"""Of padding in a group that are cheaper than another group's operators."""

FOLD_QUERIES = 32
"""Up to so many queries a request, the heads that share K/V are folded into the query dimension."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """What the grouping needs to know of the cache."""

    tile_size: int
    kv_rows: int  # 2 * kv_heads, cache rows of a tile
    zero_tile: int  # pads tables
    token_bytes: int  # of one token's K and V in one layer
    device: torch.device
    scratch: Tensor  # [rows, tile_size * head_dim], where K/V are gathered to; larger groups get memory of their own


@dataclass(slots=True)
class Group:
    """Requests with equally many queries, padded to one context length."""

    tokens: slice  # of the step's T tokens, in the order of the plan
    num_queries: int  # of each request
    seq_lens: Tensor  # [n]
    num_keys: int  # the longest context
    rows: Tensor | None  # [n * 2 * kv_heads * tiles] rows of the cache; None: all keys are this step's own
    is_ragged: bool  # contexts differ
    buffer: Tensor | None  # [len(rows), tile_size * head_dim], where to gather to
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


@dataclass(frozen=True, slots=True)
class Plan:
    """How one step's attention is done, the same in all layers."""

    groups: list[Group]
    order: Tensor | None  # [T] the tokens as the groups take them; None: as they stand
    inverse: Tensor | None  # [T] back


def make_plan(
    query_start_loc: NDArray[np.int32],  # [N + 1]
    seq_lens: NDArray[np.int32],  # [N]
    tile_table: NDArray[np.int32],  # [N, tiles]
    geometry: Geometry,
) -> Plan:
    """Sort the step's requests by shape and cut them into groups."""
    query_lens = np.diff(query_start_loc)
    order = np.lexsort((seq_lens, query_lens))
    groups, stop = [], 0
    for low, high in _runs(query_lens[order].tolist(), seq_lens[order].tolist(), geometry):
        members = order[low:high]
        group = _make_group(stop, int(query_lens[members[0]]), seq_lens[members], tile_table[members], geometry)
        stop = group.tokens.stop
        groups.append(group)
    if len(order) == 1 or np.all(order[1:] > order[:-1]):
        return Plan(groups, None, None)
    lens = query_lens[order]
    tokens = np.arange(stop) + np.repeat(query_start_loc[order] - (np.cumsum(lens) - lens), lens)
    forth, back = (torch.from_numpy(rows).to(geometry.device) for rows in (tokens, np.argsort(tokens)))
    return Plan(groups, forth, back)


def _make_group(
    start: int, num_queries: int, seq_lens: NDArray[np.int32], tile_table: NDArray[np.int32], geometry: Geometry
) -> Group:
    """Describe requests of ascending context length, each with num_queries tokens, from token `start` on."""
    num_keys, size, device = int(seq_lens[-1]), geometry.tile_size, geometry.device
    rows = buffer = None
    if not num_keys == num_queries > 1:
        tiles = tile_table[:, : -(-num_keys // size)]
        used = np.arange(tiles.shape[1]) * size < seq_lens[:, None]
        table = torch.from_numpy(np.where(used, tiles, geometry.zero_tile)).to(device).long()
        heads = torch.arange(geometry.kv_rows, device=device)
        rows = (table[:, None, :] * geometry.kv_rows + heads[None, :, None]).reshape(-1)
        buffer = geometry.scratch[: len(rows)] if len(rows) <= len(geometry.scratch) else None
    tokens = slice(start, start + len(seq_lens) * num_queries)
    lens = torch.from_numpy(seq_lens).to(device)
    return Group(tokens, num_queries, lens, num_keys, rows, bool(seq_lens[0] != num_keys), buffer)


def _runs(query_lens: list[int], seq_lens: list[int], geometry: Geometry) -> list[tuple[int, int]]:
    """Cut requests sorted by (queries, context) where queries differ, padding costs too much, or a group is full."""
    most = GROUP_BYTES[geometry.device.type] // geometry.token_bytes
    slack = SLACK_TOKENS[geometry.device.type]
    runs, low, total = [], 0, 0
    for i, (num_queries, seq_len) in enumerate(zip(query_lens, seq_lens, strict=True)):
        padded = seq_len * (i - low + 1)
        padding = padded - (total + seq_len)
        if i > low and (
            num_queries != query_lens[low]
            or seq_lens[low] == num_queries != seq_len  # whole prompts need no cache, the others do
            or padding > max(slack, padded // 4)
            or padded > most
        ):
            runs.append((low, i))
            low, total = i, 0
        total += seq_len
    runs.append((low, len(query_lens)))
    return runs


def grouped_attention(
    qkv: Tensor,  # [T, heads + 2 * kv_heads, D], rotated
    cache: Tensor,  # [tiles, 2 * kv_heads, tile_size, D], with this step's K/V already written
    plan: Plan,
    *,
    num_heads: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Return [T, heads * D]: what kernels.triton.attention.ragged_attention computes, faster."""
    if plan.order is not None:
        qkv = qkv.index_select(0, plan.order)
    parts = [_attend(qkv[group.tokens], cache, group, num_heads, scale, window, softcap) for group in plan.groups]
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    return out if plan.inverse is None else out.index_select(0, plan.inverse)


def _attend(
    qkv: Tensor, cache: Tensor, group: Group, num_heads: int, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    n, queries, dim = group.size, group.num_queries, qkv.shape[2]
    kv_heads = cache.shape[1] // 2
    heads_each = num_heads // kv_heads
    if group.rows is None:
        kv = qkv[:, num_heads:].view(n, queries, 2 * kv_heads, dim).transpose(1, 2)
    else:
        tiles = cache.view(-1, cache.shape[2] * dim)
        kv = torch.index_select(tiles, 0, group.rows, out=group.buffer).view(n, 2 * kv_heads, -1, dim)
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
