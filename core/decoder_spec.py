"""DecoderSpec: a frozen description of a decoder-only transformer, read from a Hugging Face config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeSpec:
    """Rotary position embedding of one kind of layer; rotate-half layout (first half of the rotary part against the second)."""

    theta: float
    rotary_dim: int  # leading dimensions of each head that rotate; the rest pass through
    scaling: Literal["default", "linear", "dynamic", "yarn", "llama3", "longrope"] = "default"
    parameters: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)  # of the scaling, validated


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """What may differ from layer to layer."""

    rope: RopeSpec | None  # None: no position embedding (NoPE)
    sliding_window: int | None = None  # a query sees this many positions, its own included; None: all before it
    num_experts: int = 0  # 0: a dense MLP


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """A decoder-only transformer in the terms that every backend builds from.

    One layer, with f the residual_scale and norms present as norm_placement says:
    x += f * post_attention_norm(o_proj(attention(input_norm(x)))); x += f * post_mlp_norm(mlp(pre_mlp_norm(x))).
    Weight names (canonical, see Checkpoint): embed_tokens [V, H], norm [H], lm_head [V, H];
    layers.{i}. input_norm, post_attention_norm, pre_mlp_norm, post_mlp_norm [H]; q_proj [heads * D, H], k_proj, v_proj
    [kv_heads * D, H], o_proj [H, heads * D], each with an optional .bias twin named q_proj.bias, ...; q_norm, k_norm;
    gate_proj, up_proj [I, H], down_proj [H, I] (optional .bias); router [E, H] and experts.{e}.gate_proj, up_proj, down_proj.
    """

    architecture: str  # as config.json names it, such as "LlamaForCausalLM"
    vocab_size: int
    hidden_size: int
    intermediate_size: int  # of the dense MLP
    num_heads: int
    num_kv_heads: int
    head_dim: int
    layers: tuple[LayerSpec, ...]
    max_position_embeddings: int
    norm_eps: float
    norm_offset: float = 0.0  # norms multiply by weight + offset (Gemma: 1)
    norm_placement: Literal["pre", "post", "sandwich"] = "pre"  # post: OLMo-2; sandwich: Gemma 2 and 3
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: Literal["none", "head", "full"] = "none"  # head: over each head (Qwen3); full: over the whole projection (OLMo-2)
    attention_scale: float  # scores are multiplied by this
    attention_softcap: float | None = None  # cap * tanh(score / cap)
    logits_softcap: float | None = None
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logits_scale: float = 1.0  # logits are multiplied by this (Granite: 1 / logits_scaling)
    tied_embeddings: bool = False
    moe_top_k: int = 0
    moe_intermediate_size: int = 0
    moe_normalize_top_k: bool = True  # the chosen experts' weights sum to one
