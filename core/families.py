"""The model families: how each config.json becomes a DecoderSpec, one small function a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .config_fields import Fields
from .decoder_spec import DecoderSpec
from .family_parts import (
    LAYER_TYPES,
    decoder,
    experts_per_token,
    gemma3_rope,
    gemma_decoder,
    layer_types,
    model_rope,
    num_layers,
    qwen_windows,
    uniform,
)
from .types import CheckpointError


def read_spec(config: Mapping[str, Any]) -> DecoderSpec:
    """Find the architecture and let its family read the rest."""
    architecture = _architecture(config)
    return FAMILIES[architecture](Fields(config), architecture)


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures") or [MODEL_TYPES.get(str(config.get("model_type")), config.get("model_type"))]
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise CheckpointError(f"config field 'architectures' is {names!r}: expected a list of one name")
    if names[0] not in FAMILIES:
        raise CheckpointError(f"architecture {names[0]!r} is not supported; supported: {', '.join(sorted(FAMILIES))}")
    return names[0]


def _llama(fields: Fields, architecture: str) -> DecoderSpec:
    bias = fields.flag("attention_bias", False)
    return decoder(
        fields, architecture, qkv_bias=bias, o_bias=bias, mlp_bias=fields.flag("mlp_bias", False), norm_eps=1e-6
    )


def _mistral(fields: Fields, architecture: str) -> DecoderSpec:
    window = fields.optional_integer("sliding_window", 4096)
    return decoder(
        fields, architecture, windows=uniform(fields, window), num_kv_heads=8, max_position_embeddings=131072
    )


def _qwen2(fields: Fields, architecture: str) -> DecoderSpec:
    return decoder(
        fields,
        architecture,
        windows=qwen_windows(fields),
        qkv_bias=True,
        num_kv_heads=32,
        max_position_embeddings=32768,
    )


def _qwen3(fields: Fields, architecture: str) -> DecoderSpec:
    bias = fields.flag("attention_bias", False)
    return decoder(
        fields,
        architecture,
        windows=qwen_windows(fields),
        qkv_bias=bias,
        o_bias=bias,
        qk_norm="head",
        num_kv_heads=32,
        head_dim=128,
        max_position_embeddings=32768,
    )


def _gemma2(fields: Fields, architecture: str) -> DecoderSpec:
    window = fields.optional_integer("sliding_window", 4096)
    types = layer_types(fields, lambda i: i % 2 == 0)
    return gemma_decoder(
        fields,
        architecture,
        windows=[window if kind == "sliding_attention" else None for kind in types],
        max_position_embeddings=8192,
        attention_softcap=fields.optional_number("attn_logit_softcapping", 50.0),
        logits_softcap=fields.optional_number("final_logit_softcapping", 30.0),
    )


def _gemma3(fields: Fields, architecture: str) -> DecoderSpec:
    fields = Fields({**GEMMA3_DEFAULTS, **fields.values}, fields.prefix)
    if "attn_logit_softcapping" in fields:
        raise fields.error("attn_logit_softcapping", "null: Gemma 3 has no soft cap on attention scores")
    window = fields.optional_integer("sliding_window", 4096)
    pattern = fields.integer("sliding_window_pattern", 6)
    types = layer_types(fields, lambda i: (i + 1) % pattern != 0)
    ropes = {kind: gemma3_rope(fields, kind) for kind in LAYER_TYPES}
    return gemma_decoder(
        fields,
        architecture,
        windows=[window if kind == "sliding_attention" else None for kind in types],
        ropes=[ropes[kind] for kind in types],
        max_position_embeddings=131072,
        qk_norm="head",
        logits_softcap=fields.optional_number("final_logit_softcapping"),
    )


def _gemma3_multimodal(fields: Fields, architecture: str) -> DecoderSpec:
    """Read the text decoder of an image-and-text Gemma 3; the vision tower is left out."""
    text = fields.object("text_config")
    tied = fields.flag("tie_word_embeddings", text.flag("tie_word_embeddings", True))
    return _gemma3(Fields({**text.values, "tie_word_embeddings": tied}, text.prefix), architecture)


def _phi3(fields: Fields, architecture: str) -> DecoderSpec:
    heads = fields.integer("num_attention_heads")
    head_dim = fields.integer("head_dim", fields.integer("hidden_size") // heads)
    rope = model_rope(
        fields,
        head_dim,
        max_position_embeddings=4096,
        partial=True,
        aliases={"su": "longrope", "yarn": "longrope"},  # what early Phi-3 files call it
        trained_length=fields.integer("original_max_position_embeddings", 4096, minimum=2),
    )
    return decoder(
        fields,
        architecture,
        windows=uniform(fields, fields.optional_integer("sliding_window", None)),
        ropes=uniform(fields, rope),
        norm_eps=1e-5,
        max_position_embeddings=4096,
    )


def _olmo2(fields: Fields, architecture: str) -> DecoderSpec:
    bias = fields.flag("attention_bias", False)
    return decoder(
        fields, architecture, norm_placement="post", qk_norm="full", qkv_bias=bias, o_bias=bias, norm_eps=1e-5
    )


def _granite(fields: Fields, architecture: str) -> DecoderSpec:
    bias = fields.flag("attention_bias", False)
    return decoder(
        fields,
        architecture,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=fields.flag("mlp_bias", False),
        attention_scale=fields.number("attention_multiplier", 1.0),
        embedding_scale=fields.number("embedding_multiplier", 1.0),
        residual_scale=fields.number("residual_multiplier", 1.0),
        logits_scale=1.0 / fields.number("logits_scaling", 1.0),
    )


def _smollm3(fields: Fields, architecture: str) -> DecoderSpec:
    layers = num_layers(fields)
    interval = fields.integer("no_rope_layer_interval", 4)
    rotates = [(i + 1) % interval != 0 for i in range(layers)]
    if "no_rope_layers" in fields:  # despite its name, 1 means that the layer does rotate
        rotates = [flag != 0 for flag in fields.integers("no_rope_layers", minimum_length=layers)]
    window = fields.optional_integer("sliding_window", None) if fields.flag("use_sliding_window", False) else None
    types = layer_types(fields, lambda i: window is not None and not rotates[i])
    head_dim = fields.integer("head_dim", fields.integer("hidden_size") // fields.integer("num_attention_heads"))
    rope = model_rope(fields, head_dim, max_position_embeddings=32768, theta=2e6)
    bias = fields.flag("attention_bias", False)
    return decoder(
        fields,
        architecture,
        windows=[window if kind == "sliding_attention" else None for kind in types],
        ropes=[rope if rotates[i] else None for i in range(layers)],
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=fields.flag("mlp_bias", False),
        num_kv_heads=4,
        max_position_embeddings=32768,
        tied_embeddings=True,
    )


def _mixtral(fields: Fields, architecture: str) -> DecoderSpec:
    num_experts = fields.integer("num_local_experts", fields.integer("num_experts", 8))
    return decoder(
        fields,
        architecture,
        windows=uniform(fields, fields.optional_integer("sliding_window", None)),
        experts=uniform(fields, num_experts),
        num_kv_heads=8,
        norm_eps=1e-5,
        max_position_embeddings=131072,
        rope_theta=1e6,
        moe_top_k=experts_per_token(fields, 2, num_experts),
        moe_intermediate_size=fields.integer("intermediate_size"),
    )


def _qwen3_moe(fields: Fields, architecture: str) -> DecoderSpec:
    num_experts = fields.integer("num_experts", fields.integer("num_local_experts", 128))
    dense, step = fields.integers("mlp_only_layers"), fields.integer("decoder_sparse_step", 1)
    window = fields.optional_integer("sliding_window", 4096) if fields.flag("use_sliding_window", False) else None
    bias = fields.flag("attention_bias", False)
    return decoder(
        fields,
        architecture,
        windows=uniform(fields, window),
        experts=[num_experts if i not in dense and (i + 1) % step == 0 else 0 for i in range(num_layers(fields))],
        qkv_bias=bias,
        o_bias=bias,
        qk_norm="head",
        num_kv_heads=4,
        max_position_embeddings=32768,
        moe_top_k=experts_per_token(fields, 8, num_experts),
        moe_intermediate_size=fields.integer("moe_intermediate_size", 768),
        moe_normalize_top_k=fields.flag("norm_topk_prob", False),
    )


FAMILIES: dict[str, Callable[[Fields, str], DecoderSpec]] = {
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _mistral,
    "Qwen2ForCausalLM": _qwen2,
    "Qwen3ForCausalLM": _qwen3,
    "Gemma2ForCausalLM": _gemma2,
    "Gemma3ForCausalLM": _gemma3,
    "Gemma3ForConditionalGeneration": _gemma3_multimodal,
    "Phi3ForCausalLM": _phi3,
    "Olmo2ForCausalLM": _olmo2,
    "GraniteForCausalLM": _granite,
    "SmolLM3ForCausalLM": _smollm3,
    "MixtralForCausalLM": _mixtral,
    "Qwen3MoeForCausalLM": _qwen3_moe,
}
MODEL_TYPES = {  # for a config.json that names no architecture
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForConditionalGeneration",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "granite": "GraniteForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
GEMMA3_DEFAULTS = {  # published Gemma 3 files leave these to the library
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
}
