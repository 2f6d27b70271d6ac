"""The blocks of a decoder layer that no form of attention or linear layer changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ...core.decoder_spec import DecoderSpec, RopeSpec, rope_tables
from .linear import Linear
from .options import NUMPY_DTYPES, GraphOptions
from .weights import Weights
from .writer import CONTRIB, GraphWriter


@dataclass(frozen=True, slots=True)
class Blocks:
    """What every part of the graph is written with. Sizes: T tokens, H hidden, D head_dim."""

    writer: GraphWriter
    spec: DecoderSpec
    options: GraphOptions
    weights: Weights
    linear: Linear
    max_model_len: int

    def norm(self, x: ir.Value, name: str) -> ir.Value:
        """Return x / rms(x) * (weight + norm_offset) along the last axis, or x where the model has no such norm."""
        weight = self.weights.vector(name, self.spec.norm_offset)
        if weight is None:
            return x
        return self.writer.op("RMSNormalization", x, weight, axis=-1, epsilon=self.spec.norm_eps)

    def add_and_norm(self, x: ir.Value, y: ir.Value, name: str, label: str) -> tuple[ir.Value, ir.Value]:
        """Return x + y, called `label`, and its norm; one operator in the form `gqa`, which is ONNX Runtime's own."""
        weight = self.weights.vector(name, self.spec.norm_offset)
        if weight is None or self.options.attention != "gqa":
            total = self.writer.op("Add", x, y, name=label)
            return total, self.norm(total, name)
        normed, mean, deviation, total = self.writer.ops(
            "SkipSimplifiedLayerNormalization", x, y, weight, outputs=4, domain=CONTRIB, epsilon=self.spec.norm_eps
        )
        mean.name = deviation.name = ""  # not wanted
        total.name = label
        return total, normed

    def scale(self, x: ir.Value, factor: float, dtype: str | None = None) -> ir.Value:
        """Return x * factor, or x for a factor of 1."""
        return x if factor == 1.0 else self.writer.op("Mul", x, self.scalar(factor, dtype))

    def softcap(self, x: ir.Value, cap: float | None, dtype: str | None = None) -> ir.Value:
        """Return cap * tanh(x / cap), or x without a cap."""
        if cap is None:
            return x
        bent = self.writer.op("Tanh", self.writer.op("Div", x, self.scalar(cap, dtype)))
        return self.writer.op("Mul", bent, self.scalar(cap, dtype))

    def scalar(self, value: float, dtype: str | None = None) -> ir.Value:
        """Return a constant of the compute dtype (or another)."""
        dtype = dtype or self.options.dtype
        return self.writer.constant(f"{dtype}_{value!r}", np.array(value, NUMPY_DTYPES[dtype]))

    def activation(self, x: ir.Value) -> ir.Value:
        """Return the MLP's activation of x."""
        match self.spec.activation:
            case "silu":
                return self.writer.op("Mul", x, self.writer.op("Sigmoid", x))
            case "gelu":
                return self.writer.op("Gelu", x)
            case "gelu_tanh":
                return self.writer.op("Gelu", x, approximate="tanh")
            case "relu":
                return self.writer.op("Relu", x)

    def mlp(self, x: ir.Value, prefix: str) -> ir.Value:
        """Return down_proj(activation(gate_proj(x)) * up_proj(x)) [T, H]; `prefix` of a dense layer or an expert."""
        activated = self.activation(self.linear(x, f"{prefix}gate_proj"))
        widened = self.writer.op("Mul", activated, self.linear(x, f"{prefix}up_proj"))
        return self.linear(widened, f"{prefix}down_proj")

    def rope(self, rope: RopeSpec) -> tuple[ir.Value, ir.Value]:
        """Return the tables of cos and sin [max_model_len + 1, rotary_dim / 2], one pair for equal ropes.

        The position beyond max_model_len is for a token that pads a run.
        """
        ropes = list(dict.fromkeys(layer.rope for layer in self.spec.layers if layer.rope is not None))
        dtype = NUMPY_DTYPES[self.options.dtype]
        names = [f"rope.{ropes.index(rope)}.{function}" for function in ("cos", "sin")]
        missing = any(name not in self.writer.initializers for name in names)
        tables = rope_tables(rope, self.max_model_len, num_spare=1) if missing else (np.empty(0), np.empty(0))
        cos, sin = (self.writer.constant(name, table.astype(dtype)) for name, table in zip(names, tables, strict=True))
        return cos, sin

    def rotate(self, x: ir.Value, rope: RopeSpec, positions: ir.Value, **attributes: Any) -> ir.Value:
        """Rotate queries or keys [B, heads, S, D] (or [B, S, heads * D] with `num_heads`) at positions [B, S]."""
        cos, sin = self.rope(rope)
        if rope.rotary_dim < self.spec.head_dim:
            attributes["rotary_embedding_dim"] = rope.rotary_dim
        return self.writer.op("RotaryEmbedding", x, cos, sin, positions, **attributes)
