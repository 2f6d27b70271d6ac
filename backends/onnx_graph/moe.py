"""Mixtures of experts in plain operators: a router, and each expert for the tokens that chose it."""

from __future__ import annotations

import onnx_ir as ir

from .blocks import Blocks
from .options import DATA_TYPES


def mixture(blocks: Blocks, x: ir.Value, i: int) -> ir.Value:
    """Return the weighted sum of the chosen experts of layer i for each token [T, H], in order of their index.

    For ONNX Runtime each expert computes the tokens that chose it, of which there may be none. TensorRT cannot have
    sizes that depend on data without waiting for them, so that in the form `standard-mask` each expert computes all
    tokens, and those that did not choose it count for nothing.
    """
    write, spec, prefix = blocks.writer, blocks.spec, f"layers.{i}."
    shares = _route(blocks, x, f"{prefix}router")
    add = _add_all if blocks.options.attention == "standard-mask" else _add_chosen
    out = write.op("Mul", _cast(blocks, x, "float32"), blocks.scalar(0.0, "float32"))  # added up in float32
    for expert in range(spec.layers[i].num_experts):
        share = write.op("Gather", shares, write.ints(expert), axis=1)  # [T, 1]
        out = add(blocks, out, x, share, f"{prefix}experts.{expert}.")
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


def _add_all(blocks: Blocks, out: ir.Value, x: ir.Value, share: ir.Value, prefix: str) -> ir.Value:
    """Add the expert's answer for every token, times its share."""
    answers = _cast(blocks, blocks.mlp(x, prefix), "float32")
    return blocks.writer.op("Add", out, blocks.writer.op("Mul", share, answers))


def _add_chosen(blocks: Blocks, out: ir.Value, x: ir.Value, share: ir.Value, prefix: str) -> ir.Value:
    """Add the expert's answer for the tokens whose share of it is not 0."""
    write = blocks.writer
    chosen = write.op("NonZero", write.op("Squeeze", share, write.ints(1)))  # [1, tokens]
    tokens = write.op("Squeeze", chosen, write.ints(0))
    answers = _cast(blocks, blocks.mlp(write.op("Gather", x, tokens, axis=0), prefix), "float32")
    answers = write.op("Mul", write.op("Gather", share, tokens, axis=0), answers)
    return write.op("ScatterND", out, write.op("Unsqueeze", tokens, write.ints(1)), answers, reduction="add")
