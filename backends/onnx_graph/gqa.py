"""The form `gqa`: ONNX Runtime's GroupQueryAttention on contiguous rows of the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ...core.decoder_spec import RopeSpec
from .attention import declare_cache, return_cache
from .blocks import Blocks
from .writer import CONTRIB, Dim


class GroupQueryAttention:
    """Attention over rows [B, kv_heads, M, D] that a run extends in place."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        write = blocks.writer
        self._ids = write.input("input_ids", ir.DataType.INT64, ("B", "S"))
        self.logits_indices = write.input("logits_indices", ir.DataType.INT64, ("L",))
        self._seqlens = write.input("seqlens_k", ir.DataType.INT32, ("B",))
        self._total = write.input("total_sequence_length", ir.DataType.INT32, ())
        # MatMulNBits takes vectors in rows [B, S, H] as attention wants them; Gemm, and experts, want them flat.
        self._in_rows = blocks.options.linear == "nbits" and not any(layer.num_experts for layer in blocks.spec.layers)
        self.token_ids = (
            self._ids if self._in_rows else write.op("Reshape", self._ids, write.ints(-1), name="token_ids")
        )
        self._shape: ir.Value | None = None
        self._positions: ir.Value | None = None

    def packs(self, i: int) -> bool:
        """See Attention."""
        spec, rope = self._blocks.spec, self._blocks.spec.layers[i].rope
        as_it_is = spec.qk_norm == "none" and not self._casts() and (rope is None or self._rotates(rope))
        return as_it_is and self._in_rows and self._blocks.linear.joins

    def flat(self, x: ir.Value) -> ir.Value:
        """See Attention."""
        write = self._blocks.writer
        return write.op("Reshape", x, write.ints(-1, self._blocks.spec.hidden_size)) if self._in_rows else x

    def _rows(self, x: ir.Value) -> ir.Value:
        """Return x [B, S, heads * D]."""
        write = self._blocks.writer
        if self._in_rows and self._blocks.spec.qk_norm != "head":
            return x
        if self._shape is None:
            self._shape = write.op("Concat", write.op("Shape", self._ids), write.ints(-1), axis=0, name="rows")
        return write.op("Reshape", x, self._shape)

    def __call__(self, i: int, *heads: ir.Value) -> ir.Value:
        """See Attention."""
        write, spec, rope = self._blocks.writer, self._blocks.spec, self._blocks.spec.layers[i].rope
        shape: tuple[Dim, ...] = ("B", spec.num_kv_heads, self._blocks.options.row_len or "M", spec.head_dim)
        past = declare_cache(self._blocks, i, shape)
        rows = tuple(map(self._rows, heads))
        tables: tuple[ir.Value, ...] = ()
        if rope is not None and self._rotates(rope):
            tables = self._blocks.rope(rope)
        elif rope is not None:
            query, key, value = rows
            rows = self._rotate(query, spec.num_heads, rope), self._rotate(key, spec.num_kv_heads, rope), value
        if self._casts():
            rows = tuple(write.op("Cast", x, to=self._blocks.options.kv_data_type) for x in rows)
        packing = (None, None) if self.packs(i) else ()
        attended, present_key, present_value = write.ops(
            "GroupQueryAttention", *rows, *packing, *past, self._seqlens, self._total, *tables,
            outputs=3, domain=CONTRIB, name=f"layers.{i}.attention", **self._attributes(i, bool(tables)),
        )  # fmt: skip
        return_cache(self._blocks, i, present_key, present_value, shape)
        if self._casts():
            attended = write.op("Cast", attended, to=self._blocks.options.data_type)
        return attended if self._in_rows else write.op("Reshape", attended, write.ints(-1, spec.q_size))

    def _attributes(self, i: int, do_rotary: bool) -> dict[str, Any]:
        spec, window = self._blocks.spec, self._blocks.spec.layers[i].sliding_window
        attributes: dict[str, Any] = {"num_heads": spec.num_heads, "kv_num_heads": spec.num_kv_heads}
        attributes["scale"] = spec.attention_scale
        if do_rotary:
            attributes["do_rotary"] = 1
        if window is not None:
            attributes["local_window_size"] = window  # the query's own position included
        if spec.attention_softcap is not None:
            attributes["softcap"] = spec.attention_softcap
        return attributes

    def _casts(self) -> bool:
        """Whether attention is computed in the cache's dtype: a cache in another dtype would be cast in every run."""
        return self._blocks.options.kv_data_type != self._blocks.options.data_type

    def _rotates(self, rope: RopeSpec) -> bool:
        """Whether the operator can rotate by itself: it takes heads and rotary parts of whole vectors only.

        A cache in another dtype: rotated before, in the compute dtype.
        """
        if self._casts():
            return False
        return self._blocks.spec.head_dim % 16 == 0 and rope.rotary_dim % 16 == 0

    def _rotate(self, x: ir.Value, num_heads: int, rope: RopeSpec) -> ir.Value:
        """Rotate x [B, S, num_heads * D] before the operator."""
        positions = self._positions = self._positions or self._find_positions()
        return self._blocks.rotate(x, rope, positions, num_heads=num_heads)

    def _find_positions(self) -> ir.Value:
        """Return the positions [B, S]: the last S up to seqlens_k, or from 0 where a row is padded."""
        write = self._blocks.writer
        columns = write.op("Shape", self._ids, start=1, end=2)  # [1]: S
        last = write.op("Cast", write.op("Unsqueeze", self._seqlens, write.ints(1)), to=ir.DataType.INT64)  # [B, 1]
        first = write.op("Sub", write.op("Add", last, write.ints(1)), columns)
        first = write.op("Max", first, write.ints(0))
        zero, one = (write.constant(f"int_{n}", np.array(n, np.int64)) for n in (0, 1))
        steps = write.op("Range", zero, write.op("Squeeze", columns), one)  # [S]
        return write.op("Add", first, steps, name="positions")
