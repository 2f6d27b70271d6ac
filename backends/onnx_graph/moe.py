"""Mixtures of experts in plain operators: a router, and each expert for the tokens that chose it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from .blocks import Blocks
from .options import DATA_TYPES


def mixture(blocks: Blocks, x: ir.Value, i: int) -> ir.Value:
    """Return the weighted sum of the chosen experts of layer i for each token [T, H], added up in float32.

    For ONNX Runtime each expert computes the tokens that chose it, of which there may be none. TensorRT cannot have
    sizes that depend on data without waiting for them, so that in the form `standard-mask` each expert computes all
    tokens, and those that did not choose it count for nothing. Either way a token adds its experts up in order of
    their index.
    """
    shares = _route(blocks, x, f"layers.{i}.router")
    experts = [f"layers.{i}.experts.{expert}." for expert in range(blocks.spec.layers[i].num_experts)]
    out = (_all if blocks.options.attention == "standard-mask" else _chosen)(blocks, x, shares, experts)
    return _cast(blocks, out, blocks.options.dtype)


def _cast(blocks: Blocks, x: ir.Value, dtype: str) -> ir.Value:
    return x if blocks.options.dtype == "float32" else blocks.writer.op("Cast", x, to=DATA_TYPES[dtype])


def _route(blocks: Blocks, x: ir.Value, name: str) -> ir.Value:
    """Return each token's weight for each expert [T, E] float32: softmax, 0 for all but the k best.

    TopK is defined to put the lowest index first among equals.
    """
    write, spec = blocks.writer, blocks.spec
    logits = write.op("Gemm", x, blocks.weights.matrix(name), transB=1)  # never quantised
    probabilities = write.op("Softmax", _cast(blocks, logits, "float32"), axis=-1)
    best, experts = write.ops("TopK", probabilities, write.ints(spec.moe_top_k), outputs=2, axis=-1)
    if spec.moe_normalize_top_k:
        best = write.op("Div", best, write.op("ReduceSum", best, write.ints(-1)))
    nothing = write.op("Mul", probabilities, blocks.scalar(0.0, "float32"))
    return write.op("ScatterElements", nothing, experts, best, axis=-1, name=f"{name}.shares")


def _all(blocks: Blocks, x: ir.Value, shares: ir.Value, experts: Sequence[str]) -> ir.Value:
    """Add up every expert's answer for every token, times its share."""
    write = blocks.writer
    out: ir.Value | None = None
    for i, expert in enumerate(experts):
        share = write.op("Gather", shares, write.ints(i), axis=1)  # [T, 1]
        part = write.op("Mul", share, _cast(blocks, blocks.mlp(x, expert), "float32"))
        out = part if out is None else write.op("Add", out, part)
    assert out is not None
    return out


def _chosen(blocks: Blocks, x: ir.Value, shares: ir.Value, experts: Sequence[str]) -> ir.Value:
    """Add up the experts' answers for the P pairs of an expert and a token whose share is not 0, sorted by expert."""
    write = blocks.writer
    by_expert = write.op("Transpose", shares, perm=[1, 0])
    pairs = write.op("Transpose", write.op("NonZero", by_expert), perm=[1, 0])  # [P, 2]: expert, token
    tokens = write.op("Gather", pairs, write.ints(1), axis=1)  # [P, 1]
    positive = write.op("Cast", write.op("Greater", shares, blocks.scalar(0.0, "float32")), to=ir.DataType.INT64)
    counts = write.op("ReduceSum", positive, write.ints(0), keepdims=0)  # [E]
    inputs = write.op("GatherND", x, tokens)  # [P, H]
    parts = write.ops("Split", inputs, counts, outputs=len(experts), axis=0)
    answers = [blocks.mlp(part, expert) for part, expert in zip(parts, experts, strict=True)]
    joined = _cast(blocks, write.op("Concat", *answers, axis=0), "float32")
    weights = write.op("Unsqueeze", write.op("GatherND", by_expert, pairs), write.ints(1))  # [P, 1]
    nothing = write.op("Mul", _cast(blocks, x, "float32"), blocks.scalar(0.0, "float32"))
    return write.op("ScatterND", nothing, tokens, write.op("Mul", weights, joined), reduction="add")
