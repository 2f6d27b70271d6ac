"""The form `paged`: ONNX Runtime's PagedAttention over blocks of the cache, prompts beside decodes (CUDA only)."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from .attention import FlatTokens, declare_cache, return_cache
from .blocks import Blocks
from .writer import CONTRIB, Dim


class PagedAttention(FlatTokens):
    """Attention over blocks [num_blocks, block_size, kv_heads, D] by block tables.

    Inputs: input_ids [T] int64, logits_indices [L] int64, cumulative_sequence_length [B + 1], past_seqlens [B],
    block_table [B, blocks] and slot_mapping [T] (block * block_size + offset; -1: do not write), all int32, and
    attention_metadata [3] int32 in CPU memory: bounds of the most new tokens of a row, and of the most and fewest
    keys of a row. The names are those of the core's Batch, but for query_start_loc and seq_lens, which the operator
    calls and counts otherwise.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        write, int32 = blocks.writer, ir.DataType.INT32
        self.token_ids = write.input("input_ids", ir.DataType.INT64, ("T",))
        self.logits_indices = write.input("logits_indices", ir.DataType.INT64, ("L",))
        self._rows = (
            write.input("cumulative_sequence_length", int32, ("B+1",)),
            write.input("past_seqlens", int32, ("B",)),
            write.input("block_table", int32, ("B", "blocks")),
        )
        self._slots = write.input("slot_mapping", int32, ("T",))
        self._metadata = write.input("attention_metadata", int32, (3,))

    def __call__(self, i: int, *heads: ir.Value) -> ir.Value:
        """See Attention."""
        query, key, value = heads
        write, spec, layer = self._blocks.writer, self._blocks.spec, self._blocks.spec.layers[i]
        shape: tuple[Dim, ...] = ("num_blocks", "block_size", spec.num_kv_heads, spec.head_dim)
        past = declare_cache(self._blocks, i, shape)
        attributes: dict[str, Any] = {"num_heads": spec.num_heads, "kv_num_heads": spec.num_kv_heads}
        attributes["scale"] = spec.attention_scale
        tables: tuple[ir.Value | None, ...] = (None, None)
        if layer.rope is not None:
            attributes["do_rotary"] = 1
            tables = self._blocks.rope(layer.rope)
        if layer.sliding_window is not None:
            attributes["local_window_size"] = layer.sliding_window
        if spec.attention_softcap is not None:
            attributes["softcap"] = spec.attention_softcap
        query, key, value = (write.op("Reshape", x, write.ints(-1, spec.head_dim * heads)) for x, heads in (
            (query, spec.num_heads), (key, spec.num_kv_heads), (value, spec.num_kv_heads)
        ))  # fmt: skip
        attended, present_key, present_value = write.ops(
            "PagedAttention", query, key, value, *past, *self._rows, *tables, self._slots,
            None, None, None, None, None, self._metadata,
            outputs=3, domain=CONTRIB, name=f"layers.{i}.attention", **attributes,
        )  # fmt: skip
        return_cache(self._blocks, i, present_key, present_value, shape)
        return attended
