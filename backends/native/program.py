"""DecoderSpec as a program of operations: its sentences, one after the other. Made once; no step changes any of it."""

from __future__ import annotations

from collections.abc import Iterator

from ...kernels.cpu import program as kernels
from ...kernels.cpu.program import Head, Operation
from .experts import mixture
from .parts import F32, Parts, Residual

NO_CAP = 0.0


def build_program(parts: Parts) -> list[Operation]:
    """Return the operations of a model, in order. They hold on to nothing but each other: keep `parts` as long."""
    return list(_operations(parts))


def _operations(parts: Parts) -> Iterator[Operation]:
    spec = parts.spec
    yield kernels.Embed(
        table=parts.weights.embeddings,
        x=parts.activations.address("x"),
        form=parts.weights.embeddings_form,
        size=spec.hidden_size,
        ld=parts.activations.ld("x"),
        scale=spec.embedding_scale,
    )
    for i in range(spec.num_layers - 1):
        yield from _attend(parts, i)
        yield from _project_attended(parts, i, Residual(parts, "x", kernels.ROWS_TOKENS))
        yield from _transform(parts, i, Residual(parts, "x", kernels.ROWS_TOKENS))
    yield from _last_layer(parts)


def _last_layer(parts: Parts) -> Iterator[Operation]:
    """What nobody asked for is left out: behind attention only rows that give logits are computed.

    A mixture of experts needs all its tokens together; there the rows are chosen at the very end.
    """
    i = parts.spec.num_layers - 1
    if parts.spec.layers[i].num_experts:
        yield from _attend(parts, i)
        yield from _project_attended(parts, i, Residual(parts, "x", kernels.ROWS_TOKENS))
        yield from _transform(parts, i, Residual(parts, "x", kernels.ROWS_TOKENS))
        yield from _logits(parts, "x", kernels.ROWS_LOGITS)
        return
    yield from _attend(parts, i, out="attended32")
    residual = Residual(parts, "chosen_x", kernels.ROWS_CHOSEN)
    choose = Head(rows=kernels.ROWS_LOGITS)
    yield parts.norm("x", None, "chosen_x", head=choose)
    yield parts.norm("attended32", None, "attended_operand", head=choose)
    yield from residual.project("attended_operand", f"layers.{i}.o", f"layers.{i}.post_attention_norm")
    yield from _transform(parts, i, residual)
    yield from _logits(parts, "chosen_x", kernels.ROWS_CHOSEN)


def _attend(parts: Parts, i: int, out: str = "attended") -> Iterator[Operation]:
    """Leave the attended values of layer i in `out`, and this step's keys and values in the cache."""
    spec, layer, at = parts.spec, parts.spec.layers[i], f"layers.{i}."
    yield parts.norm("x", f"{at}input_norm", "h")
    yield parts.linear("h", f"{at}qkv", "qkv")
    yield kernels.Heads(
        qkv=parts.activations.address("qkv"),
        queries=parts.activations.address("queries"),
        q_norm=parts.weights.vector(f"{at}q_norm"),
        k_norm=parts.weights.vector(f"{at}k_norm"),
        rotations=parts.rotations.address(layer.rope),
        cache=parts.caches.layer(i),
        ld=parts.activations.ld("qkv"),
        ld_queries=parts.activations.ld("queries"),
        num_heads=spec.num_heads,
        norm_all=int(spec.qk_norm == "full"),
        rotary_dim=layer.rope.rotary_dim if layer.rope else 0,
        eps=spec.norm_eps,
        query_scale=spec.attention_scale,
    )
    yield kernels.Attention(
        queries=parts.activations.address("queries"),
        out=parts.activations.operand(out),
        cache=parts.caches.layer(i),
        ld_queries=parts.activations.ld("queries"),
        num_heads=spec.num_heads,
        window=layer.sliding_window or 0,
        cap=spec.attention_softcap or NO_CAP,
    )


def _project_attended(parts: Parts, i: int, residual: Residual) -> Iterator[Operation]:
    attended = "attended"
    if parts.rounds_operands:
        attended = "attended_operand"
        yield parts.norm("attended", None, attended)
    yield from residual.project(attended, f"layers.{i}.o", f"layers.{i}.post_attention_norm")


def _transform(parts: Parts, i: int, residual: Residual) -> Iterator[Operation]:
    """Add the MLP, or the mixture of experts, of layer i."""
    at, spec = f"layers.{i}.", parts.spec
    if spec.layers[i].num_experts:
        yield from mixture(parts, i)
        yield residual.add("y", f"{at}post_mlp_norm")
        return
    head = Head(rows=residual.rows)
    yield parts.norm(residual.x, f"{at}pre_mlp_norm", "h", head=head)
    yield parts.gate("h", f"{at}gate_up", "act", head=head)
    activated = "act"
    if parts.rounds_operands:
        activated = "act_operand"
        yield parts.norm("act", None, activated, head=head)
    yield from residual.project(activated, f"{at}down", f"{at}post_mlp_norm")


def _logits(parts: Parts, x: str, rows: int) -> Iterator[Operation]:
    spec = parts.spec
    yield parts.norm(x, "norm", "h", head=Head(rows=rows))
    yield kernels.Linear(
        head=Head(rows=kernels.ROWS_CHOSEN),
        input=parts.activations.operand("h"),
        weights=parts.weights.weights("lm_head"),
        out=parts.logits,
        out_form=F32,
        ld_out=spec.vocab_size,
        num_outputs=spec.vocab_size,
        epilogue=kernels.EPI_STORE,
        factor=spec.logits_scale,
        cap=spec.logits_softcap or NO_CAP,
    )
