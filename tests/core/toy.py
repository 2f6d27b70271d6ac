"""A real decoder that fits on a page: two layers, grouped queries, rotary positions, float64, over a paged cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from isotoken.core.batch import Batch
from isotoken.core.interfaces import RunnerInfo
from numpy.typing import NDArray

Array = NDArray[Any]

VOCAB_SIZE = 97


class ToyRunner:
    """Its cache starts as NaN, so reading what was never written shows in every logit."""

    sampler = None

    def __init__(
        self,
        *,
        num_blocks: int,
        block_size: int,
        max_num_seqs: int = 8,
        max_num_batched_tokens: int = 64,
        max_num_logits: int = 0,
        max_model_len: int = 512,
        eos_token_ids: frozenset[int] = frozenset(),
        asynchronous: bool = False,
        seed: int = 0,
        weights_seed: int = 0,
    ) -> None:
        self.info = RunnerInfo(
            vocab_size=VOCAB_SIZE,
            eos_token_ids=eos_token_ids,
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_num_logits=max_num_logits or max(max_num_seqs, max_num_batched_tokens),
            block_size=block_size,
            num_blocks=num_blocks,
            dtype="float64",
            device="cpu",
            asynchronous=asynchronous,
        )
        self.num_calls = self.num_tokens = 0
        self.closed = False
        self.heads, self.kv_heads, width = 4, 2, 32
        self.head_dim = width // self.heads
        random = np.random.default_rng(weights_seed)

        def matrix(rows: int, columns: int) -> Array:
            return random.standard_normal((rows, columns)) / np.sqrt(rows)

        self.embedding = random.standard_normal((VOCAB_SIZE, width))
        self.head = matrix(width, VOCAB_SIZE) * 4
        kv_width = self.kv_heads * self.head_dim
        self.layers = [
            {
                "q": matrix(width, width),
                "k": matrix(width, kv_width),
                "v": matrix(width, kv_width),
                "o": matrix(width, width),
                "up": matrix(width, 2 * width),
                "down": matrix(2 * width, width),
            }
            for _ in range(2)
        ]
        shape = (num_blocks, block_size, self.kv_heads, self.head_dim)
        self.caches = [(np.full(shape, np.nan), np.full(shape, np.nan)) for _ in self.layers]

    def forward(self, batch: Batch) -> Array:
        assert (
            len(batch.input_ids) <= self.info.max_num_batched_tokens and len(batch.seq_lens) <= self.info.max_num_seqs
        )
        assert len(batch.logits_indices) <= self.info.max_num_logits
        self.num_calls += 1
        self.num_tokens += len(batch.input_ids)
        for source, target, count in batch.block_copies.tolist():
            for cache in (array for pair in self.caches for array in pair):
                cache[target, :count] = cache[source, :count]
                cache[target, count:] = np.nan  # a runner may copy more than it must
        block, offset = np.divmod(batch.slot_mapping, self.info.block_size)
        x = self.embedding[batch.input_ids]
        for layer, (keys, values) in zip(self.layers, self.caches, strict=True):
            y = _norm(x)
            q = _rotate((y @ layer["q"]).reshape(-1, self.heads, self.head_dim), batch.positions)
            keys[block, offset] = _rotate((y @ layer["k"]).reshape(-1, self.kv_heads, self.head_dim), batch.positions)
            values[block, offset] = (y @ layer["v"]).reshape(-1, self.kv_heads, self.head_dim)
            x = x + self._attend(batch, q, keys, values) @ layer["o"]
            x = x + np.maximum(_norm(x) @ layer["up"], 0) @ layer["down"]
        return _norm(x[batch.logits_indices]) @ self.head

    def _attend(self, batch: Batch, q: Array, keys: Array, values: Array) -> Array:
        """Every token against its own request's context, padded to the longest; q [T, heads, head_dim]."""
        span = np.arange(batch.seq_lens.max())
        slots = batch.block_table[:, span // self.info.block_size] * self.info.block_size + span % self.info.block_size
        owners = np.repeat(np.arange(len(batch.seq_lens)), batch.query_lens)
        visible = (span <= batch.positions[:, None])[:, :, None, None]  # [T, S, 1, 1]
        shape = (-1, self.kv_heads, self.head_dim)
        k = np.where(visible, keys.reshape(shape)[slots][owners], 0.0)  # [T, S, kv_heads, head_dim]
        v = np.where(visible, values.reshape(shape)[slots][owners], 0.0)
        q = q.reshape(len(q), self.kv_heads, -1, self.head_dim)
        scores = np.einsum("tgrd,tsgd->tsgr", q, k) / np.sqrt(self.head_dim)
        weights = np.exp(np.where(visible, scores, -np.inf))
        out: Array = np.einsum("tsgr,tsgd->tgrd", weights / weights.sum(1, keepdims=True), v)
        return out.reshape(len(q), -1)

    def close(self) -> None:
        self.closed = True


def _norm(x: Array) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def _rotate(x: Array, positions: Array) -> Array:
    half = x.shape[-1] // 2
    angles = positions[:, None] / 10000 ** (np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return np.concatenate([x[..., :half] * cos - x[..., half:] * sin, x[..., half:] * cos + x[..., :half] * sin], -1)
