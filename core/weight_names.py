"""Which weights a DecoderSpec calls for, and under which names files hold them: apart, or fused with others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .decoder_spec import DecoderSpec

PREFIXES = ("model.", "language_model.model.", "model.language_model.")  # the last two: text part of a multimodal file


@dataclass(frozen=True, slots=True)
class Source:
    """A place where a file may hold a weight: a tensor of that shape, then one expert of it, then some of its rows."""

    name: str
    shape: tuple[int, ...]  # of the whole tensor in the file
    expert: int | None = None  # index into the first dimension
    rows: tuple[int, int] | None = None  # [begin, end) of the (remaining) first dimension


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight under its canonical name, with the places to look for it, in order."""

    name: str
    shape: tuple[int, ...]
    sources: tuple[Source, ...]


def weights(spec: DecoderSpec, prefix: str) -> Iterator[Weight]:
    """Yield every weight that the spec calls for, in layer order. `prefix` is one of PREFIXES, as the files use it."""
    vocab, hidden = spec.vocab_size, spec.hidden_size
    yield _plain("embed_tokens", (vocab, hidden), f"{prefix}embed_tokens.weight")
    for i in range(spec.num_layers):
        yield from _attention(spec, f"layers.{i}.", f"{prefix}layers.{i}.")
        if spec.layers[i].num_experts:
            yield from _experts(spec, spec.layers[i].num_experts, f"layers.{i}.", f"{prefix}layers.{i}.")
        else:
            yield from _mlp(spec, f"layers.{i}.", f"{prefix}layers.{i}.mlp.")
    yield _plain("norm", (hidden,), f"{prefix}norm.weight")
    if not spec.tied_embeddings:
        yield _plain("lm_head", (vocab, hidden), "lm_head.weight", "language_model.lm_head.weight")


def _plain(name: str, shape: tuple[int, ...], *file_names: str) -> Weight:
    return Weight(name, shape, tuple(Source(file_name, shape) for file_name in file_names))


def _norms(spec: DecoderSpec) -> dict[str, str]:
    """Canonical norm -> the file's name for it. The same name means another thing in another family."""
    match spec.norm_placement:
        case "pre":
            return {"input_norm": "input_layernorm", "pre_mlp_norm": "post_attention_layernorm"}
        case "post":
            return {"post_attention_norm": "post_attention_layernorm", "post_mlp_norm": "post_feedforward_layernorm"}
        case "sandwich":
            return {
                "input_norm": "input_layernorm",
                "post_attention_norm": "post_attention_layernorm",
                "pre_mlp_norm": "pre_feedforward_layernorm",
                "post_mlp_norm": "post_feedforward_layernorm",
            }


def _attention(spec: DecoderSpec, layer: str, prefix: str) -> Iterator[Weight]:
    for norm, file_name in _norms(spec).items():
        yield _plain(layer + norm, (spec.hidden_size,), f"{prefix}{file_name}.weight")
    q, kv, attention = spec.q_size, spec.kv_size, f"{prefix}self_attn."
    rows = {"q_proj": (0, q), "k_proj": (q, q + kv), "v_proj": (q + kv, q + 2 * kv)}
    for name, (begin, end) in rows.items():
        apart, fused = f"{attention}{name}", f"{attention}qkv_proj"
        yield from _linear(layer + name, end - begin, spec.hidden_size, apart, spec.qkv_bias, fused, q + 2 * kv, begin)
    yield from _linear(f"{layer}o_proj", spec.hidden_size, q, f"{attention}o_proj", spec.o_bias)
    if spec.qk_norm != "none":
        sizes = {"head": (spec.head_dim, spec.head_dim), "full": (q, kv)}[spec.qk_norm]
        for name, size in zip(("q_norm", "k_norm"), sizes, strict=True):
            yield _plain(layer + name, (size,), f"{attention}{name}.weight")


def _mlp(spec: DecoderSpec, layer: str, prefix: str) -> Iterator[Weight]:
    size, hidden, fused = spec.intermediate_size, spec.hidden_size, f"{prefix}gate_up_proj"
    for name, begin in (("gate_proj", 0), ("up_proj", size)):
        yield from _linear(layer + name, size, hidden, prefix + name, spec.mlp_bias, fused, 2 * size, begin)
    yield from _linear(f"{layer}down_proj", hidden, size, f"{prefix}down_proj", spec.mlp_bias)


def _linear(
    name: str, outputs: int, inputs: int, apart: str, bias: bool, fused: str = "", fused_rows: int = 0, begin: int = 0
) -> Iterator[Weight]:
    """Yield a projection and maybe its bias, either a tensor of its own or some rows of a fused one."""
    for canonical, suffix, tail in ((name, ".weight", (inputs,)), (f"{name}.bias", ".bias", ())):
        if suffix == ".bias" and not bias:
            continue
        sources = [Source(apart + suffix, (outputs, *tail))]
        if fused:
            sources.append(Source(fused + suffix, (fused_rows, *tail), rows=(begin, begin + outputs)))
        yield Weight(canonical, (outputs, *tail), tuple(sources))


def _experts(spec: DecoderSpec, num_experts: int, layer: str, prefix: str) -> Iterator[Weight]:
    """Yield the router and the experts: Mixtral's w1, w3, w2, plain names, or all experts stacked in one tensor."""
    size, hidden = spec.moe_intermediate_size, spec.hidden_size
    blocks = (f"{prefix}mlp.", f"{prefix}block_sparse_moe.")
    yield _plain(f"{layer}router", (num_experts, hidden), *(f"{block}gate.weight" for block in blocks))
    up_shape, down_shape = (size, hidden), (hidden, size)
    for e in range(num_experts):
        for name, short, shape in (
            ("gate_proj", "w1", up_shape),
            ("up_proj", "w3", up_shape),
            ("down_proj", "w2", down_shape),
        ):
            sources = [
                Source(f"{block}experts.{e}.{file_name}.weight", shape)
                for block in blocks
                for file_name in (name, short)
            ]
            for block in blocks:
                if name == "down_proj":
                    sources.append(Source(f"{block}experts.down_proj", (num_experts, *shape), expert=e))
                else:
                    begin = 0 if name == "gate_proj" else size
                    stacked = (num_experts, 2 * size, hidden)
                    sources.append(
                        Source(f"{block}experts.gate_up_proj", stacked, expert=e, rows=(begin, begin + size))
                    )
            yield Weight(f"{layer}experts.{e}.{name}", shape, tuple(sources))
