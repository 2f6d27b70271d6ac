"""Configs as they are published, in both dialects, become the right DecoderSpec; wrong ones become clear errors."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from isotoken.core.decoder_spec import DecoderSpec, LayerSpec, RopeSpec, inverse_frequencies, rope_tables
from isotoken.core.types import CheckpointError

SIZES = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "hidden_act": "silu",
}
LLAMA = {"architectures": ["LlamaForCausalLM"], **SIZES, "num_key_value_heads": 2, "max_position_embeddings": 512}
LLAMA3_SCALING = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def config(architecture: str, **fields: Any) -> dict[str, Any]:
    return {"architectures": [architecture], **SIZES, **fields}


def windows(spec: DecoderSpec) -> list[int | None]:
    return [layer.sliding_window for layer in spec.layers]


def test_llama_31_8b() -> None:
    spec = DecoderSpec.from_config(
        {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "eos_token_id": [128001, 128008, 128009],
            "hidden_act": "silu",
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "max_position_embeddings": 131072,
            "mlp_bias": False,
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05,
            "rope_scaling": LLAMA3_SCALING,
            "rope_theta": 500000.0,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": 128256,
        }
    )
    rope = RopeSpec(
        theta=500000.0,
        rotary_dim=128,
        scaling="llama3",
        parameters={key: value for key, value in LLAMA3_SCALING.items() if key != "rope_type"},
    )
    assert spec == DecoderSpec(
        architecture="LlamaForCausalLM",
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        layers=(LayerSpec(rope=rope),) * 32,
        max_position_embeddings=131072,
        norm_eps=1e-5,
        attention_scale=128**-0.5,
    )
    assert (spec.num_layers, spec.q_size, spec.kv_size) == (32, 4096, 1024)


def test_llama_leaves_much_unsaid() -> None:
    spec = DecoderSpec.from_config({"model_type": "llama", **SIZES})
    assert spec.architecture == "LlamaForCausalLM"
    assert (spec.num_kv_heads, spec.head_dim, spec.norm_eps, spec.max_position_embeddings) == (4, 16, 1e-6, 2048)
    assert spec.layers[0].rope == RopeSpec(theta=10000.0, rotary_dim=16)
    assert not spec.tied_embeddings


@pytest.mark.parametrize(
    ("scaling", "read"),
    [
        ({"type": "linear", "factor": 4}, {"factor": 4.0}),
        ({"type": "dynamic", "factor": 2.0}, {"factor": 2.0, "original_max_position_embeddings": 512}),
        (
            {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
            {
                "factor": 4.0,
                "attention_factor": 1.0 + 0.1 * float(np.log(4.0)),
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": 1.0,
                "original_max_position_embeddings": 128,
            },
        ),
        (LLAMA3_SCALING, {key: value for key, value in LLAMA3_SCALING.items() if key != "rope_type"}),
    ],
)
def test_both_dialects_say_the_same(scaling: dict[str, Any], read: dict[str, Any]) -> None:
    kind = scaling.get("type") or scaling["rope_type"]
    parameters = {key: value for key, value in scaling.items() if key != "type"}
    old = DecoderSpec.from_config({**LLAMA, "rope_theta": 5e5, "rope_scaling": scaling, "torch_dtype": "float16"})
    new = DecoderSpec.from_config(
        {**LLAMA, "rope_parameters": {"rope_theta": 5e5, **parameters, "rope_type": kind}, "dtype": "float16"}
    )
    assert old == new
    rope = old.layers[0].rope
    assert rope is not None
    assert (rope.scaling, rope.theta, dict(rope.parameters)) == (kind, 5e5, pytest.approx(read))


def test_mistral_windows() -> None:
    absent = DecoderSpec.from_config(config("MistralForCausalLM", num_key_value_heads=4))
    null = DecoderSpec.from_config(config("MistralForCausalLM", num_key_value_heads=4, sliding_window=None))
    assert windows(absent) == [4096] * 4  # what the library's default has always been
    assert windows(null) == [None] * 4
    assert absent.max_position_embeddings == 131072


def test_qwen2_uses_its_window_only_when_told() -> None:
    fields = {"num_key_value_heads": 2, "sliding_window": 32, "max_window_layers": 1}
    assert windows(DecoderSpec.from_config(config("Qwen2ForCausalLM", **fields))) == [None] * 4
    told = DecoderSpec.from_config(config("Qwen2ForCausalLM", **fields, use_sliding_window=True))
    assert windows(told) == [None, 32, 32, 32]
    kinds = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    listed = DecoderSpec.from_config(config("Qwen2ForCausalLM", **fields, use_sliding_window=True, layer_types=kinds))
    assert windows(listed) == [32, None, None, 32]
    assert (told.qkv_bias, told.o_bias) == (True, False)


def test_qwen3_has_heads_of_128_and_norms_them() -> None:
    spec = DecoderSpec.from_config(config("Qwen3ForCausalLM", num_key_value_heads=2, tie_word_embeddings=True))
    assert (spec.head_dim, spec.qk_norm, spec.q_size, spec.tied_embeddings) == (128, "head", 512, True)
    assert spec.attention_scale == 128**-0.5


def test_gemma2() -> None:
    spec = DecoderSpec.from_config(
        config("Gemma2ForCausalLM", head_dim=32, num_key_value_heads=2, hidden_activation="gelu_pytorch_tanh")
    )
    assert windows(spec) == [4096, None, 4096, None]
    assert (spec.attention_softcap, spec.logits_softcap, spec.attention_scale) == (50.0, 30.0, 256**-0.5)
    assert (spec.norm_placement, spec.norm_offset, spec.activation) == ("sandwich", 1.0, "gelu_tanh")
    assert (spec.embedding_scale, spec.tied_embeddings) == (8.0, True)
    no_caps = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    uncapped = DecoderSpec.from_config(config("Gemma2ForCausalLM", num_key_value_heads=2, **no_caps))
    assert (uncapped.attention_softcap, uncapped.logits_softcap) == (None, None)


def test_gemma3_ropes_differ_by_layer_in_both_dialects() -> None:
    scaling = {"factor": 8.0, "rope_type": "linear"}
    fields = {"num_hidden_layers": 6, "sliding_window": 512, "head_dim": 32, "num_key_value_heads": 2}
    old = {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": scaling, "sliding_window_pattern": 3}
    new = {
        "layer_types": (["sliding_attention"] * 2 + ["full_attention"]) * 2,
        "rope_parameters": {
            "full_attention": {**scaling, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    }
    spec = DecoderSpec.from_config(config("Gemma3ForCausalLM", **{**fields, **old}))
    assert spec == DecoderSpec.from_config(config("Gemma3ForCausalLM", **{**fields, **new}))
    assert windows(spec) == [512, 512, None] * 2
    assert [layer.rope and layer.rope.theta for layer in spec.layers] == [1e4, 1e4, 1e6] * 2
    assert spec.layers[2].rope == RopeSpec(theta=1e6, rotary_dim=32, scaling="linear", parameters={"factor": 8.0})
    assert spec.max_context == spec.max_position_embeddings == 131072


def test_gemma3_4b_is_read_from_its_text_config() -> None:
    spec = DecoderSpec.from_config(
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "model_type": "gemma3",
            "text_config": {
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "model_type": "gemma3_text",
                "num_hidden_layers": 34,
                "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                "sliding_window": 1024,
            },
            "vision_config": {"hidden_size": 1152},
        }
    )
    assert (spec.vocab_size, spec.num_heads, spec.num_kv_heads, spec.head_dim) == (262208, 8, 4, 256)
    assert windows(spec) == [None if i % 6 == 5 else 1024 for i in range(34)]
    assert spec.tied_embeddings


def test_phi3_longrope() -> None:
    factors = {"short_factor": [1.0] * 6, "long_factor": [2.0] * 6, "type": "su"}
    spec = DecoderSpec.from_config(
        config(
            "Phi3ForCausalLM",
            rope_scaling=factors,
            partial_rotary_factor=0.75,
            max_position_embeddings=131072,
            original_max_position_embeddings=4096,
            sliding_window=262144,
        )
    )
    rope = spec.layers[0].rope
    assert rope is not None
    assert (rope.scaling, rope.rotary_dim, spec.head_dim) == ("longrope", 12, 16)
    assert rope.number("attention_factor") == pytest.approx((1 + np.log(32) / np.log(4096)) ** 0.5)
    short, _ = inverse_frequencies(rope, 4096)
    long, factor = inverse_frequencies(rope, 4097)
    np.testing.assert_allclose(short, 2 * long)
    assert factor == rope.number("attention_factor")


def test_olmo2_granite_smollm3() -> None:
    olmo = DecoderSpec.from_config(config("Olmo2ForCausalLM", max_position_embeddings=4096))
    assert (olmo.norm_placement, olmo.qk_norm, olmo.num_kv_heads, olmo.norm_eps) == ("post", "full", 4, 1e-5)
    scales = {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22}
    granite = DecoderSpec.from_config(config("GraniteForCausalLM", **scales, attention_multiplier=0.0078125))
    assert (granite.embedding_scale, granite.logits_scale, granite.residual_scale) == (12.0, 0.125, 0.22)
    assert granite.attention_scale == 0.0078125
    smol = DecoderSpec.from_config(config("SmolLM3ForCausalLM", rope_theta=5e6, no_rope_layers=[1, 1, 1, 0]))
    assert smol == DecoderSpec.from_config(config("SmolLM3ForCausalLM", rope_theta=5e6))
    assert [layer.rope is None for layer in smol.layers] == [False, False, False, True]
    assert smol.tied_embeddings


def test_mixtures_of_experts() -> None:
    mixtral = DecoderSpec.from_config(config("MixtralForCausalLM", num_key_value_heads=2))
    assert [layer.num_experts for layer in mixtral.layers] == [8] * 4
    assert (mixtral.moe_top_k, mixtral.moe_intermediate_size, mixtral.moe_normalize_top_k) == (2, 96, True)
    assert mixtral.layers[0].rope == RopeSpec(theta=1e6, rotary_dim=16)
    fields = {"num_experts": 16, "moe_intermediate_size": 24, "num_key_value_heads": 2}
    qwen = DecoderSpec.from_config(config("Qwen3MoeForCausalLM", **fields, decoder_sparse_step=2, mlp_only_layers=[3]))
    assert [layer.num_experts for layer in qwen.layers] == [0, 16, 0, 0]
    assert (qwen.moe_top_k, qwen.moe_normalize_top_k, qwen.head_dim, qwen.qk_norm) == (8, False, 16, "head")


def test_other_architectures_are_named_and_the_supported_listed() -> None:
    with pytest.raises(CheckpointError, match=r"'GPT2LMHeadModel' is not supported; supported: .*LlamaForCausalLM"):
        DecoderSpec.from_config({"architectures": ["GPT2LMHeadModel"], **SIZES})
    with pytest.raises(CheckpointError, match="'mamba' is not supported"):
        DecoderSpec.from_config({"model_type": "mamba"})
    with pytest.raises(CheckpointError, match="'architectures'"):
        DecoderSpec.from_config({})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": None}, ["'hidden_size' is missing", "whole number"]),
        ({"vocab_size": "many"}, ["'vocab_size' is 'many'", "whole number from 1 to"]),
        ({"num_hidden_layers": 0}, ["'num_hidden_layers' is 0"]),
        ({"num_hidden_layers": 10**6}, ["'num_hidden_layers' is 1000000", "10000"]),
        ({"vocab_size": 10**12}, ["'vocab_size' is 1000000000000"]),
        ({"num_hidden_layers": True}, ["'num_hidden_layers' is True"]),
        ({"intermediate_size": 96.5}, ["'intermediate_size' is 96.5"]),
        ({"num_attention_heads": 6}, ["'num_attention_heads' is 6", "divisor of hidden_size (64)"]),
        ({"num_key_value_heads": 3}, ["'num_key_value_heads' is 3", "divisor of num_attention_heads (4)"]),
        ({"head_dim": 15}, ["'head_dim' is 15", "even"]),
        ({"hidden_act": "swoosh"}, ["'hidden_act' is 'swoosh'", "silu"]),
        ({"rms_norm_eps": -1e-5}, ["'rms_norm_eps' is -1e-05", "above 0"]),
        ({"rms_norm_eps": float("nan")}, ["'rms_norm_eps' is nan"]),
        ({"attention_bias": "no"}, ["'attention_bias' is 'no'", "true or false"]),
        ({"tie_word_embeddings": 1}, ["'tie_word_embeddings' is 1", "true or false"]),
        ({"max_position_embeddings": -5}, ["'max_position_embeddings' is -5"]),
        ({"rope_theta": 0}, ["'rope_theta' is 0"]),
        ({"partial_rotary_factor": 0.5}, ["'partial_rotary_factor' is 0.5", "1 for this architecture"]),
        ({"rope_scaling": "linear"}, ["'rope_scaling' is 'linear'", "JSON object"]),
        ({"rope_scaling": {"type": "mrope"}}, ["rope_scaling.'type' is 'mrope'", "linear", "yarn"]),
        ({"rope_scaling": {"type": "linear"}}, ["rope_scaling.'factor' is missing"]),
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 0.5}},
            ["rope_parameters.'factor' is 0.5", "at least 1"],
        ),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": "big"}}, ["rope_parameters.'rope_theta' is 'big'"]),
        (
            {"rope_scaling": {**LLAMA3_SCALING, "high_freq_factor": 1.0}},
            ["'high_freq_factor' is 1.0", "low_freq_factor"],
        ),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": 0.5}}, ["'beta_fast' is 0.5", "beta_slow"]),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 7, "long_factor": [1.0] * 8}},
            ["'short_factor' is [1.0", "a list of 8 numbers"],
        ),
        ({"architectures": ["MixtralForCausalLM"], "num_experts_per_tok": 9}, ["'num_experts_per_tok' is 9", "(8)"]),
        ({"architectures": ["Qwen3MoeForCausalLM"], "mlp_only_layers": [0.5]}, ["'mlp_only_layers' is [0.5]"]),
        ({"architectures": ["Qwen2ForCausalLM"], "layer_types": ["full_attention"]}, ["'layer_types'", "4 names"]),
        (
            {"architectures": ["Qwen3ForCausalLM"], "layer_types": ["linear"] * 4},
            ["'layer_types'", "sliding_attention"],
        ),
        (
            {"architectures": ["Gemma3ForCausalLM"], "attn_logit_softcapping": 50.0},
            ["'attn_logit_softcapping' is 50.0"],
        ),
        ({"architectures": ["Gemma2ForCausalLM"], "use_bidirectional_attention": True}, ["bidirectional", "causal"]),
        ({"architectures": ["Gemma3ForConditionalGeneration"]}, ["'text_config' is missing"]),
        ({"architectures": ["SmolLM3ForCausalLM"], "no_rope_layers": [1, 0]}, ["'no_rope_layers' is [1, 0]", "4"]),
        ({"architectures": ["Phi3ForCausalLM"], "partial_rotary_factor": 1.5}, ["'partial_rotary_factor' is 1.5"]),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_was_expected(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(CheckpointError) as error:
        DecoderSpec.from_config({**LLAMA, **changes})
    for word in words:
        assert word in str(error.value)


def test_reading_does_not_change_the_config() -> None:
    original = {**LLAMA, "rope_scaling": dict(LLAMA3_SCALING)}
    before = copy.deepcopy(original)
    DecoderSpec.from_config(original)
    assert original == before


def test_a_spec_is_a_value() -> None:
    first, second = (DecoderSpec.from_config({**LLAMA, "rope_scaling": LLAMA3_SCALING}) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert pickle.loads(pickle.dumps(first)) == first
    assert len({layer.rope for layer in first.layers}) == 1


def test_how_long_a_context_may_be() -> None:
    plain = DecoderSpec.from_config(LLAMA)
    assert (plain.resolve_max_model_len(0), plain.resolve_max_model_len(7)) == (512, 7)
    with pytest.raises(ValueError, match="max_model_len is 513: expected 1 to 512"):
        plain.resolve_max_model_len(513)
    stretched = DecoderSpec.from_config({**LLAMA, "rope_scaling": {"type": "dynamic", "factor": 4.0}})
    assert (stretched.resolve_max_model_len(0), stretched.resolve_max_model_len(2048)) == (512, 2048)
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    assert DecoderSpec.from_config({**LLAMA, "rope_scaling": yarn}).max_context == 2048


def transformers_frequencies(scaling: dict[str, Any], length: int) -> tuple[np.ndarray[Any, Any], float]:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    settings = {key: value for key, value in LLAMA.items() if key != "architectures"}
    llama = LlamaConfig(**settings, head_dim=32, rope_parameters={**scaling, "rope_theta": 5e5})
    inv_freq, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](llama, "cpu", seq_len=length)
    return inv_freq.double().numpy(), factor


@pytest.mark.parametrize("length", [64, 512, 1500])
@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 3.0},
        {"rope_type": "dynamic", "factor": 3.0},
        {"rope_type": "llama3", **{**LLAMA3_SCALING, "original_max_position_embeddings": 128}},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "attention_factor": 0.7},
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 128,
            "mscale": 0.5,
            "mscale_all_dim": 0.9,
        },
        {"rope_type": "yarn", "factor": 9.0, "original_max_position_embeddings": 64, "truncate": False, "beta_fast": 8},
        {
            "rope_type": "longrope",
            "short_factor": [1 + 0.05 * i for i in range(16)],
            "long_factor": [1.5 + i for i in range(16)],
            "original_max_position_embeddings": 256,
        },
    ],
    ids=lambda scaling: scaling["rope_type"],
)
def test_frequencies_equal_those_of_transformers(scaling: dict[str, Any], length: int) -> None:
    rope = (
        DecoderSpec.from_config({**LLAMA, "head_dim": 32, "rope_parameters": {**scaling, "rope_theta": 5e5}})
        .layers[0]
        .rope
    )
    assert rope is not None
    inv_freq, factor = inverse_frequencies(rope, length)
    expected, expected_factor = transformers_frequencies(scaling, length)
    np.testing.assert_allclose(inv_freq, expected, rtol=2e-6)
    assert factor == pytest.approx(expected_factor, rel=1e-9)
    assert inv_freq.dtype == np.float64


def test_tables_hold_every_position() -> None:
    rope = RopeSpec(theta=100.0, rotary_dim=4)
    cos, sin = rope_tables(rope, 3)
    np.testing.assert_allclose(cos, [[1, 1], [np.cos(1), np.cos(0.1)], [np.cos(2), np.cos(0.2)]])
    np.testing.assert_allclose(sin, [[0, 0], [np.sin(1), np.sin(0.1)], [np.sin(2), np.sin(0.2)]])
