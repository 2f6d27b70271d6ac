"""DecoderSpec: a frozen description of a decoder-only transformer, read from a Hugging Face config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .rope import RopeSpec, inverse_frequencies, rope_tables

__all__ = ["Activation", "DecoderSpec", "LayerSpec", "RopeSpec", "inverse_frequencies", "rope_tables"]

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """What may differ from layer to layer."""

    rope: RopeSpec | None  # None: no position embedding (NoPE)
    sliding_window: int | None = None  # a query sees this many positions, its own included; None: all before it
    num_experts: int = 0  # 0: a dense MLP


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """A decoder-only transformer in the terms that every backend builds from.

    x = embedding_scale * embed_tokens[id].
    One layer, with f the residual_scale and norms present as norm_placement says:
    x += f * post_attention_norm(o_proj(attention(input_norm(x)))); x += f * post_mlp_norm(mlp(pre_mlp_norm(x))).
    At the end: logits = softcap(logits_scale * lm_head(norm(x))). Every norm is x / rms(x) * (weight + norm_offset).
    Attention: q and k are normed (qk_norm), then rotated, then score = softcap(attention_scale * q . k).
    The MLP is down_proj(activation(gate_proj(x)) * up_proj(x)). A mixture of experts takes the moe_top_k most probable
    experts by softmax(router(x)) over all experts (ties: lowest index) and adds up their MLPs by these weights.

    Weight names (canonical, see Checkpoint): embed_tokens [V, H], norm [H], lm_head [V, H];
    layers.{i}. input_norm, post_attention_norm, pre_mlp_norm, post_mlp_norm [H]; q_proj [heads * D, H], k_proj, v_proj
    [kv_heads * D, H], o_proj [H, heads * D], each with an optional .bias twin named q_proj.bias, ...; q_norm, k_norm;
    gate_proj, up_proj [I, H], down_proj [H, I] (optional .bias); router [E, H] and, with J the moe_intermediate_size,
    experts.{e}.gate_proj, up_proj [J, H], experts.{e}.down_proj [H, J].
    """

    architecture: str  # as config.json names it, such as "LlamaForCausalLM"
    vocab_size: int
    hidden_size: int
    intermediate_size: int  # of the dense MLP
    num_heads: int
    num_kv_heads: int
    head_dim: int
    layers: tuple[LayerSpec, ...]
    max_position_embeddings: int  # the context that the model was made for
    norm_eps: float
    norm_offset: float = 0.0  # norms multiply by weight + offset (Gemma: 1)
    norm_placement: Literal["pre", "post", "sandwich"] = "pre"  # post: OLMo-2; sandwich: Gemma 2 and 3
    activation: Activation = "silu"
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: Literal["none", "head", "full"] = (
        "none"  # head: over each head (Qwen3); full: over the whole projection (OLMo-2)
    )
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

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DecoderSpec:
        """Read a parsed config.json, of transformers 4 or 5.

        Raises CheckpointError for an architecture that is not supported (listing those that are), and for a wrong or
        missing field (naming the field, its value and what was expected).
        """
        from .families import read_spec  # noqa: PLC0415  (the families build this class)

        return read_spec(config)

    @property
    def num_layers(self) -> int:
        """How many decoder layers there are."""
        return len(self.layers)

    @property
    def q_size(self) -> int:
        """Rows of q_proj: num_heads * head_dim."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Rows of k_proj and of v_proj: num_kv_heads * head_dim."""
        return self.num_kv_heads * self.head_dim

    @property
    def max_context(self) -> int:
        """The longest max_model_len that is accepted: a rope that scales may go beyond max_position_embeddings."""
        context = self.max_position_embeddings
        ropes = {layer.rope for layer in self.layers if layer.rope}
        return max(context, min((rope.max_context(context) for rope in ropes), default=context))

    def resolve_max_model_len(self, requested: int) -> int:
        """Return the requested context, or the model's own for 0. ValueError when it is more than the model can do."""
        if not 0 <= requested <= self.max_context:
            raise ValueError(
                f"max_model_len is {requested}: expected 1 to {self.max_context}, the context of this "
                f"{self.architecture}, or 0 for {self.max_position_embeddings}"
            )
        return requested or self.max_position_embeddings
