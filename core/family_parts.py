"""What the model families share: the common fields, ropes, windows and layer types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from .config_fields import Fields
from .decoder_spec import Activation, DecoderSpec, LayerSpec
from .rope import RopeSpec, Scaling, read_rope

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}
T = TypeVar("T")
MAX_LAYERS = 10_000  # a slip of the pen must not fill the memory with layer descriptions
LAYER_TYPES = ("full_attention", "sliding_attention")


def decoder(
    fields: Fields,
    architecture: str,
    *,
    windows: Sequence[int | None] | None = None,
    ropes: Sequence[RopeSpec | None] | None = None,
    experts: Sequence[int] | None = None,
    num_kv_heads: int = 0,
    head_dim: int = 0,
    norm_eps: float = 1e-6,
    max_position_embeddings: int = 2048,
    rope_theta: float = 10000.0,
    attention_scale: float = 0.0,
    activation: str = "hidden_act",
    default_activation: Activation = "silu",
    tied_embeddings: bool = False,
    **rest: Any,
) -> DecoderSpec:
    """Read what all families share. The keywords are a family's defaults, or what its own function has worked out."""
    hidden_size, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    kv_heads = fields.integer("num_key_value_heads", num_kv_heads or heads)
    if heads % kv_heads:
        raise fields.error("num_key_value_heads", f"a divisor of num_attention_heads ({heads})")
    if not head_dim and "head_dim" not in fields and hidden_size % heads:
        raise fields.error("num_attention_heads", f"a divisor of hidden_size ({hidden_size}), or a head_dim field")
    head_dim = fields.integer("head_dim", head_dim or hidden_size // heads)
    if head_dim % 2:
        raise fields.error("head_dim", f"an even number (it comes to {head_dim})")
    context = fields.integer("max_position_embeddings", max_position_embeddings)
    ropes = ropes or uniform(fields, model_rope(fields, head_dim, max_position_embeddings=context, theta=rope_theta))
    windows, experts = windows or uniform(fields, None), experts or uniform(fields, 0)
    return DecoderSpec(
        architecture=architecture,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.integer("intermediate_size"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        layers=tuple(
            LayerSpec(rope=rope, sliding_window=window, num_experts=num_experts)
            for rope, window, num_experts in zip(ropes, windows, experts, strict=True)
        ),
        max_position_embeddings=context,
        norm_eps=fields.number("rms_norm_eps", norm_eps),
        activation=fields.choice(activation, ACTIVATIONS, default_activation),
        attention_scale=attention_scale or head_dim**-0.5,
        tied_embeddings=fields.flag("tie_word_embeddings", tied_embeddings),
        **rest,
    )


def gemma_decoder(fields: Fields, architecture: str, **rest: Any) -> DecoderSpec:
    """Read what Gemma 2 and 3 share."""
    if fields.flag("use_bidirectional_attention", False):
        raise fields.error("use_bidirectional_attention", "false or null: only causal attention is supported")
    bias = fields.flag("attention_bias", False)
    return decoder(
        fields,
        architecture,
        num_kv_heads=4,
        head_dim=256,
        norm_offset=1.0,
        norm_placement="sandwich",
        activation="hidden_activation",
        default_activation="gelu_tanh",
        qkv_bias=bias,
        o_bias=bias,
        attention_scale=fields.number("query_pre_attn_scalar", 256) ** -0.5,
        embedding_scale=fields.integer("hidden_size") ** 0.5,
        tied_embeddings=True,
        **rest,
    )


def model_rope(
    fields: Fields,
    head_dim: int,
    *,
    max_position_embeddings: int,
    theta: float = 10000.0,
    partial: bool = False,
    aliases: Mapping[str, Scaling] | None = None,
    trained_length: int | None = None,
) -> RopeSpec:
    """Read the one rope of a model: rope_scaling beside rope_theta (transformers 4), or rope_parameters (5)."""
    context = fields.integer("max_position_embeddings", max_position_embeddings)
    key = "rope_scaling" if "rope_scaling" in fields else "rope_parameters"
    nested = fields.object(key) if key in fields else Fields({}, f"{key}.")
    source = nested if "partial_rotary_factor" in nested else fields
    factor = source.number("partial_rotary_factor", 1.0)
    rotary_dim = int(head_dim * factor)
    if factor > 1 or (factor < 1 and not partial) or rotary_dim % 2 or not rotary_dim:
        expected = "a fraction that gives an even number of rotary dimensions" if partial else "1 for this architecture"
        raise source.error("partial_rotary_factor", f"{expected} (head_dim is {head_dim})")
    if trained_length is None and "original_max_position_embeddings" in fields:
        trained_length = fields.integer("original_max_position_embeddings", minimum=2)
    return read_rope(
        nested,
        rotary_dim=rotary_dim,
        theta=fields.number("rope_theta", theta, minimum=2),
        max_position_embeddings=context,
        aliases=aliases,
        trained_length=trained_length,
    )


def gemma3_rope(fields: Fields, kind: str) -> RopeSpec:
    """Read the rope of Gemma 3's full layers (which scale) or sliding layers (their own base, no scaling before v5)."""
    is_full = kind == "full_attention"
    key, default = ("rope_theta", 1e6) if is_full else ("rope_local_base_freq", 1e4)
    theta = fields.number(key, default, minimum=2)
    nested = Fields({}, "rope_parameters.")
    if "rope_parameters" in fields and kind in fields.object("rope_parameters"):
        nested = fields.object("rope_parameters").object(kind)
    elif is_full and "rope_scaling" in fields:
        nested = fields.object("rope_scaling")
    return read_rope(
        nested,
        rotary_dim=fields.integer("head_dim", 256),
        theta=theta,
        max_position_embeddings=fields.integer("max_position_embeddings", 131072),
    )


def qwen_windows(fields: Fields) -> list[int | None]:
    """Read the sliding windows of Qwen 2 and 3: off by default, else from layer max_window_layers on."""
    window = fields.optional_integer("sliding_window", 4096) if fields.flag("use_sliding_window", False) else None
    first = fields.integer("max_window_layers", 28, minimum=0)
    types = layer_types(fields, lambda i: window is not None and i >= first)
    return [window if kind == "sliding_attention" else None for kind in types]


def layer_types(fields: Fields, is_sliding: Callable[[int], bool]) -> tuple[str, ...]:
    """Read layer_types, or work them out by the family's rule where the file has none."""
    if "layer_types" in fields:
        return fields.choices("layer_types", num_layers(fields), LAYER_TYPES)
    return tuple(LAYER_TYPES[is_sliding(i)] for i in range(num_layers(fields)))


def experts_per_token(fields: Fields, default: int, num_experts: int) -> int:
    """Read num_experts_per_tok, at most the number of experts."""
    top_k = fields.integer("num_experts_per_tok", default)
    if top_k > num_experts:
        raise fields.error("num_experts_per_tok", f"at most the number of experts ({num_experts})")
    return top_k


def num_layers(fields: Fields) -> int:
    """Read num_hidden_layers."""
    return fields.integer("num_hidden_layers", maximum=MAX_LAYERS)


def uniform(fields: Fields, value: T) -> list[T]:
    """Repeat a value for every layer."""
    return [value] * num_layers(fields)
