"""The form `gqa`: ONNX Runtime's GroupQueryAttention on contiguous rows of the cache."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from .attention import declare_cache, return_cache
from .blocks import Blocks
from .writer import CONTRIB, Dim


class GroupQueryAttention:
    """Attention over rows [B, kv_heads, M, D] that a run extends in place."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        write = blocks.writer
        ids = write.input("input_ids", ir.DataType.INT64, ("B", "S"))
        write.input("logits_indices", ir.DataType.INT64, ("L",))
        self._seqlens = write.input("seqlens_k", ir.DataType.INT32, ("B",))
        self._total = write.input("total_sequence_length", ir.DataType.INT32, ())
        self.token_ids = write.op("Reshape", ids, write.ints(-1), name="token_ids")
        self._rows = write.op("Concat", write.op("Shape", ids), write.ints(-1), axis=0, name="rows")  # [B, S, -1]

    def __call__(self, i: int, query: ir.Value, key: ir.Value, value: ir.Value) -> ir.Value:
        """See Attention."""
        write, spec, layer = self._blocks.writer, self._blocks.spec, self._blocks.spec.layers[i]
        shape: tuple[Dim, ...] = ("B", spec.num_kv_heads, "M", spec.head_dim)
        past = declare_cache(self._blocks, i, shape)
        attributes: dict[str, Any] = {"num_heads": spec.num_heads, "kv_num_heads": spec.num_kv_heads}
        tables: tuple[ir.Value, ...] = ()
        if layer.rope is not None:
            attributes["do_rotary"] = 1
            tables = self._blocks.rope(layer.rope)
        if layer.sliding_window is not None:
            attributes["local_window_size"] = layer.sliding_window
        if spec.attention_softcap is not None:
            attributes["softcap"] = spec.attention_softcap
        if not self._blocks.has_default_scale():
            attributes["scale"] = spec.attention_scale
        rows = (write.op("Reshape", x, self._rows) for x in (query, key, value))
        attended, present_key, present_value = write.ops(
            "GroupQueryAttention", *rows, *past, self._seqlens, self._total, *tables,
            outputs=3, domain=CONTRIB, name=f"layers.{i}.attention", **attributes,
        )  # fmt: skip
        return_cache(self._blocks, i, present_key, present_value, shape)
        return write.op("Reshape", attended, write.ints(-1, spec.q_size))
