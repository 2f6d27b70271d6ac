"""The forms `standard` and `standard-mask`: TensorScatter into rows of the cache, then Attention of opset 24.

Queries of rows with different numbers of new tokens are gathered from the flat tokens into a table [B, S], and their
answers gathered back. `standard` lets the operator find out what a query sees (nonpad_kv_seqlen, causal from the bottom
right); `standard-mask` spells it out in a mask and builds a soft cap from plain operators, as TensorRT needs it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ...core.decoder_spec import RopeSpec
from .attention import FlatTokens, declare_cache, return_cache
from .blocks import Blocks
from .writer import Dim


class StandardAttention(FlatTokens):
    """Attention over rows [B, kv_heads, M, D] that a run extends in place, by standard operators."""

    def __init__(self, blocks: Blocks, *, masked: bool) -> None:
        self._blocks, self._masked = blocks, masked
        write, int64 = blocks.writer, ir.DataType.INT64
        self.token_ids = write.input("input_ids", int64, ("T",))
        positions = write.input("positions", int64, ("T",))
        self.logits_indices = write.input("logits_indices", int64, ("L",))
        self._write_indices = write.input("write_indices", int64, ("B",))
        self._kv_indices = self._query_indices = write.input("kv_indices", int64, ("B", "S"))
        self._key_positions = self._query_positions = write.op("Gather", positions, self._kv_indices)
        self._seqlens: ir.Value | None = None
        if not masked:
            self._query_indices = write.input("query_indices", int64, ("B", "S"))
            self._query_positions = write.op("Gather", positions, self._query_indices)
        self._flat_indices = write.input("flat_indices", int64, ("T",))
        if not masked:
            self._seqlens = write.input("nonpad_kv_seqlen", int64, ("B",))
        self._masks: dict[int | None, ir.Value] = {}  # sliding window -> [B, 1, S, M] bool
        self._row_positions: ir.Value | None = None

    def __call__(self, i: int, *heads: ir.Value) -> ir.Value:
        """See Attention."""
        query, key, value = heads
        write, spec, layer = self._blocks.writer, self._blocks.spec, self._blocks.spec.layers[i]
        shape: tuple[Dim, ...] = ("B", spec.num_kv_heads, self._blocks.options.row_len or "M", spec.head_dim)
        past_key, past_value = declare_cache(self._blocks, i, shape)
        query = self._table(query, spec.num_heads, self._query_indices)
        query = self._to_cache(self._rotate(query, layer.rope, self._query_positions))
        key = self._rotate(self._table(key, spec.num_kv_heads, self._kv_indices), layer.rope, self._key_positions)
        value = self._table(value, spec.num_kv_heads, self._kv_indices)
        keys = write.op("TensorScatter", past_key, self._to_cache(key), self._write_indices, axis=-2)
        values = write.op("TensorScatter", past_value, self._to_cache(value), self._write_indices, axis=-2)
        return_cache(self._blocks, i, keys, values, shape)
        attended = self._attend(i, query, keys, values)  # [B, heads, S, D]
        if self._blocks.options.kv_dtype != self._blocks.options.dtype:
            attended = write.op("Cast", attended, to=self._blocks.options.data_type)
        table = write.op("Reshape", write.op("Transpose", attended, perm=[0, 2, 1, 3]), write.ints(-1, spec.q_size))
        return write.op("Gather", table, self._flat_indices, axis=0)

    def _table(self, x: ir.Value, num_heads: int, indices: ir.Value) -> ir.Value:
        """Spread x [T, num_heads * D] over rows: [B, num_heads, S, D]."""
        write = self._blocks.writer
        heads = write.op("Reshape", x, write.ints(-1, num_heads, self._blocks.spec.head_dim))
        return write.op("Transpose", write.op("Gather", heads, indices, axis=0), perm=[0, 2, 1, 3])

    def _rotate(self, x: ir.Value, rope: RopeSpec | None, positions: ir.Value) -> ir.Value:
        return x if rope is None else self._blocks.rotate(x, rope, positions)

    def _to_cache(self, x: ir.Value) -> ir.Value:
        """Cast x to the cache's dtype, which attention computes in too: casting a whole cache would cost far more."""
        options = self._blocks.options
        return x if options.kv_dtype == options.dtype else self._blocks.writer.op("Cast", x, to=options.kv_data_type)

    def _attend(self, i: int, query: ir.Value, keys: ir.Value, values: ir.Value) -> ir.Value:
        write, spec, window = self._blocks.writer, self._blocks.spec, self._blocks.spec.layers[i].sliding_window
        attributes: dict[str, Any] = {"scale": spec.attention_scale}
        name = f"layers.{i}.attention"
        if self._masked and spec.attention_softcap is not None:
            return self._attend_capped(query, keys, values, self._mask(window), name)
        if spec.attention_softcap is not None:
            attributes["softcap"] = spec.attention_softcap
        if self._masked or window is not None:
            return write.op("Attention", query, keys, values, self._mask(window), name=name, **attributes)
        seqlens = (None, None, None, self._seqlens)
        return write.op("Attention", query, keys, values, *seqlens, name=name, is_causal=1, **attributes)

    def _attend_capped(self, query: ir.Value, keys: ir.Value, values: ir.Value, mask: ir.Value, name: str) -> ir.Value:
        """Attend with capped scores, each key/value head [M, D] looked at by its group of query heads."""
        write, spec, dtype = self._blocks.writer, self._blocks.spec, self._blocks.options.kv_dtype
        group = spec.num_heads // spec.num_kv_heads
        grouped = write.op("Reshape", query, write.ints(0, spec.num_kv_heads, group, -1, spec.head_dim))
        keys, values = (write.op("Unsqueeze", x, write.ints(2)) for x in (keys, values))  # [B, kv_heads, 1, M, D]
        scores = write.op("MatMul", grouped, write.op("Transpose", keys, perm=[0, 1, 2, 4, 3]))
        scores = self._blocks.scale(scores, spec.attention_scale, dtype)
        scores = self._blocks.softcap(scores, spec.attention_softcap, dtype)  # [B, kv_heads, group, S, M]
        hidden = self._blocks.scalar(float(np.finfo(np.float16).min), dtype)
        scores = write.op("Where", write.op("Unsqueeze", mask, write.ints(1)), scores, hidden)
        attended = write.op("MatMul", write.op("Softmax", scores, axis=-1), values, name=name)
        return write.op("Reshape", attended, write.ints(0, spec.num_heads, -1, spec.head_dim))

    def _mask(self, window: int | None) -> ir.Value:
        """Return which of the M positions each query sees [B, 1, S, M]: those up to its own, within its window."""
        if window not in self._masks:
            self._masks[window] = self._make_mask(window)
        return self._masks[window]

    def _make_mask(self, window: int | None) -> ir.Value:
        write = self._blocks.writer
        own = write.op("Unsqueeze", self._query_positions, write.ints(1, 3))  # [B, 1, S, 1]
        if window is None:
            return write.op("LessOrEqual", self._all_positions(), own, name="mask")
        first = write.op("Sub", own, write.ints(window))
        late_enough = write.op("Greater", self._all_positions(), first)
        return write.op("And", self._mask(None), late_enough, name=f"mask_{window}")

    def _all_positions(self) -> ir.Value:
        """Return 0 ... M - 1 as [1, 1, 1, M]: a constant where M is fixed, as TensorRT needs it."""
        write, row_len = self._blocks.writer, self._blocks.options.row_len
        if row_len:
            return write.constant("all_positions", np.arange(row_len, dtype=np.int64)[None, None, None])
        if self._row_positions is None:
            cache = next(value for value in write.inputs if value.name == "past_key.0")
            length = write.op("Squeeze", write.op("Shape", cache, start=2, end=3))
            zero, one = (write.constant(f"int_{n}", np.array(n, np.int64)) for n in (0, 1))
            row = write.op("Range", zero, length, one)
            self._row_positions = write.op("Unsqueeze", row, write.ints(0, 1, 2), name="all_positions")
        return self._row_positions
