"""The decoder as a graph: DecoderSpec's sentences, one after the other."""

from __future__ import annotations

import onnx_ir as ir

from ...core.checkpoint import Checkpoint
from .attention import Attention
from .blocks import Blocks
from .gqa import GroupQueryAttention
from .graph import Graph
from .linear import Linear, make_linear
from .moe import mixture
from .options import GraphOptions
from .packed import PackedGemm
from .paged import PagedAttention
from .standard import StandardAttention
from .weights import Weights
from .writer import GraphWriter


def build_graph(checkpoint: Checkpoint, options: GraphOptions) -> Graph:
    """Build the graph of a checkpoint's decoder. Reads no matrix unless weights are to be quantised.

    Raises ValueError when max_model_len is more than the model can do, Unsupported for what a form cannot express.
    """
    writer, spec = GraphWriter(), checkpoint.spec
    weights = Weights(writer, checkpoint, options)
    max_model_len = spec.resolve_max_model_len(options.max_model_len)
    blocks = Blocks(writer, spec, options, weights, _make_linear(writer, weights, options, checkpoint), max_model_len)
    attention = _make_attention(blocks)
    x = _embed(blocks, attention.token_ids)
    normed = blocks.norm(x, "layers.0.input_norm")
    for i in range(spec.num_layers):
        x, normed = _layer(blocks, attention, i, x, normed)
    logits = _logits(blocks, writer.op("Gather", attention.flat(x), attention.logits_indices, axis=0))
    writer.output(logits, "logits", ir.DataType.FLOAT, ("L", spec.vocab_size))
    return Graph.of(writer, options)


def _make_linear(writer: GraphWriter, weights: Weights, options: GraphOptions, checkpoint: Checkpoint) -> Linear:
    """Return the linear layer; ONNX Runtime's form for its CPU keeps a packed checkpoint packed."""
    if checkpoint.packing and (options.linear, options.attention, options.dtype) == ("gemm", "gqa", "float32"):
        return PackedGemm(writer, weights, options)
    return make_linear(writer, weights, options)


def _make_attention(blocks: Blocks) -> Attention:
    match blocks.options.attention:
        case "gqa":
            return GroupQueryAttention(blocks)
        case "standard":
            return StandardAttention(blocks, masked=False)
        case "standard-mask":
            return StandardAttention(blocks, masked=True)
        case "paged":
            return PagedAttention(blocks)


def _embed(blocks: Blocks, token_ids: ir.Value) -> ir.Value:
    """Return embedding_scale * embed_tokens[id] [T, H]; of a table in another dtype only the rows are cast."""
    write = blocks.writer
    x = write.op("Gather", blocks.weights.stored("embed_tokens"), token_ids, axis=0, name="embeddings")
    if blocks.weights.array("embed_tokens").dtype.name != blocks.options.dtype:
        x = write.op("Cast", x, to=blocks.options.data_type)
    return blocks.scale(x, blocks.spec.embedding_scale)


def _layer(blocks: Blocks, attention: Attention, i: int, x: ir.Value, normed: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return the residual stream [T, H] after layer i, and its norm as layer i + 1 wants it."""
    spec, prefix = blocks.spec, f"layers.{i}."
    attended = _attention(blocks, attention, i, normed)
    attended = blocks.scale(blocks.norm(attended, f"{prefix}post_attention_norm"), spec.residual_scale)
    x, normed = blocks.add_and_norm(x, attended, f"{prefix}pre_mlp_norm", f"{prefix}middle")
    transformed = mixture(blocks, normed, i) if spec.layers[i].num_experts else blocks.mlp(normed, prefix)
    transformed = blocks.scale(blocks.norm(transformed, f"{prefix}post_mlp_norm"), spec.residual_scale)
    if i + 1 < spec.num_layers:
        return blocks.add_and_norm(x, transformed, f"layers.{i + 1}.input_norm", f"{prefix}out")
    x = blocks.writer.op("Add", x, transformed, name=f"{prefix}out")  # of which few tokens get logits
    return x, x


def _attention(blocks: Blocks, attention: Attention, i: int, x: ir.Value) -> ir.Value:
    prefix = f"layers.{i}."
    if attention.packs(i):
        attended = attention(i, blocks.linear(x, f"{prefix}q_proj", f"{prefix}k_proj", f"{prefix}v_proj"))
    else:
        query = _heads(blocks, x, f"{prefix}q", blocks.spec.num_heads)
        key = _heads(blocks, x, f"{prefix}k", blocks.spec.num_kv_heads)
        attended = attention(i, query, key, blocks.linear(x, f"{prefix}v_proj"))
    return blocks.linear(attended, f"{prefix}o_proj")


def _heads(blocks: Blocks, x: ir.Value, name: str, num_heads: int) -> ir.Value:
    """Project to queries or keys and norm them where the model does: [T, num_heads * D] or [T, num_heads, D]."""
    heads = blocks.linear(x, f"{name}_proj")
    if blocks.spec.qk_norm == "head":
        heads = blocks.writer.op("Reshape", heads, blocks.writer.ints(-1, num_heads, blocks.spec.head_dim))
    return heads if blocks.spec.qk_norm == "none" else blocks.norm(heads, f"{name}_norm")


def _logits(blocks: Blocks, x: ir.Value) -> ir.Value:
    """Return softcap(logits_scale * lm_head(norm(x))) in float32 [L, vocab_size], x [L, H]."""
    spec = blocks.spec
    logits = blocks.linear(blocks.norm(x, "norm"), "lm_head")
    if blocks.options.dtype != "float32":
        logits = blocks.writer.op("Cast", logits, to=ir.DataType.FLOAT)
    logits = blocks.scale(logits, spec.logits_scale, "float32")
    return blocks.softcap(logits, spec.logits_softcap, "float32")
