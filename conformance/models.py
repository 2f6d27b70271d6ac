"""The suite's own small models: their facts, weights from a counter, checkpoints in Hugging Face layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """A model in the oracle's terms; `config` says the same in the words of config.json."""

    name: str
    config: Mapping[str, Any]
    seed: int
    vocab_size: int = 128
    hidden: int = 64
    intermediate: int = 96  # of one expert, where there are experts
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    rotary_dim: int = 16
    rope_theta: float = 10000.0
    llama3: tuple[float, float, float, float] | None = None  # factor, low and high frequency factor, original length
    rope: tuple[bool, ...] = (True, True, True)  # a layer each
    windows: tuple[int | None, ...] = (None, None, None)  # positions seen, the query's own included
    sandwich: bool = False  # norms after attention and MLP as well as before
    norm_offset: float = 0.0
    gelu: bool = False  # tanh GELU, else SiLU
    qk_norm: bool = False
    attention_softcap: float = 0.0  # 0: none
    logits_softcap: float = 0.0
    embedding_scale: float = 1.0
    experts: int = 0
    experts_used: int = 2
    tied: bool = False
    fused: bool = False  # checkpoint holds qkv_proj and gate_up_proj
    file_dtype: str = "float32"  # of the safetensors file; the values are exact in bfloat16 either way
    eos: int = 2
    max_len: int = 256
    norm_eps: float = 1e-6
    gains: Mapping[str, float] = field(default_factory=dict)  # of weights, where the defaults give a dull model


def _config(architecture: str, model_type: str, **fields: Any) -> dict[str, Any]:
    common = {
        "architectures": [architecture], "model_type": model_type, "vocab_size": 128, "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": False, "attention_bias": False,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
    }  # fmt: skip
    return common | fields


LLAMA = TinyModel(
    name="llama",
    seed=1,
    vocab_size=131,  # no multiple of 32: the last word of a packed mask is partly used
    llama3=(8.0, 1.0, 4.0, 64.0),
    config=_config(
        "LlamaForCausalLM",
        "llama",
        vocab_size=131,
        rope_scaling={
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
)  # fmt: skip

QWEN3 = TinyModel(
    name="qwen3",
    seed=2,
    head_dim=32,  # not hidden / heads
    rotary_dim=32,
    rope_theta=1e6,
    qk_norm=True,
    tied=True,
    file_dtype="bfloat16",
    config=_config(
        "Qwen3ForCausalLM", "qwen3", head_dim=32, rope_theta=1e6, tie_word_embeddings=True, torch_dtype="bfloat16"
    ),
)

GEMMA2 = TinyModel(
    name="gemma2",
    seed=3,
    rope=(True,) * 4,
    windows=(12, None, 12, None),
    sandwich=True,
    norm_offset=1.0,
    gelu=True,
    attention_softcap=4.0,
    logits_softcap=14.0,
    embedding_scale=8.0,
    tied=True,
    config=_config(
        "Gemma2ForCausalLM", "gemma2", num_hidden_layers=4, sliding_window=12, query_pre_attn_scalar=16,
        attn_logit_softcapping=4.0, final_logit_softcapping=14.0, hidden_activation="gelu_pytorch_tanh",
        hidden_act="gelu_pytorch_tanh", tie_word_embeddings=True,
    ),
)  # fmt: skip

MOE = TinyModel(
    name="moe",
    seed=4,
    intermediate=48,
    qk_norm=True,
    experts=4,
    config=_config(
        "Qwen3MoeForCausalLM", "qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48,
        norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[],
    ),
)  # fmt: skip

PHI3 = TinyModel(
    name="phi3",
    seed=5,
    rotary_dim=8,
    windows=(40, 40, 40),
    fused=True,
    file_dtype="bfloat16",
    config=_config(
        "Phi3ForCausalLM", "phi3", partial_rotary_factor=0.5, sliding_window=40, rope_scaling=None,
        original_max_position_embeddings=256, torch_dtype="bfloat16", pad_token_id=0,
    ),
)  # fmt: skip

SMOLLM3 = TinyModel(
    name="smollm3",
    seed=6,
    rope=(True, False, True),
    tied=True,
    config=_config(
        "SmolLM3ForCausalLM", "smollm3", no_rope_layers=[1, 0, 1], no_rope_layer_interval=2, use_sliding_window=False,
        sliding_window=None, layer_types=["full_attention"] * 3, tie_word_embeddings=True, pad_token_id=0,
    ),
)  # fmt: skip

MODELS: Mapping[str, TinyModel] = {m.name: m for m in (LLAMA, QWEN3, GEMMA2, MOE, PHI3, SMOLLM3)}
"""The models that backends are judged on, by name."""

DRAFT = replace(
    LLAMA, name="draft", seed=7, rope=(True,), windows=(None,), config={**LLAMA.config, "num_hidden_layers": 1}
)
"""A draft model for `llama` that seldom agrees with it."""


def _bell(seed: int, index: int, shape: tuple[int, ...]) -> Array:
    """Bell-shaped numbers, mean 0, variance 1, from integers alone: the same on every platform and numpy."""
    raw = np.random.Philox(key=(seed << 32) + index).random_raw(int(np.prod(shape)))
    quarters = np.stack([(raw >> np.uint64(16 * i)) & np.uint64(0xFFFF) for i in range(4)]).astype(np.int64)
    whole = quarters.sum(0) - 2 * 0xFFFF  # variance 4 * (65536**2 - 1) / 12
    return (whole / 37837.0).reshape(shape)


def weights(model: TinyModel) -> dict[str, Array]:
    """Every weight in float64 (exact in bfloat16) under the names of `tensor_shapes`."""
    made: dict[str, Array] = {}
    for index, (name, (shape, centre, spread)) in enumerate(sorted(_plan(model).items())):
        bell = _bell(model.seed, index, shape)
        if name == "norm" and model.tied:  # random signs, or a tied head would repeat the input token
            centre_signed = np.sign(_bell(model.seed, 9999, shape) + 1e-9)
            value = centre_signed * (1 + 0.15 * bell) - model.norm_offset
        else:
            value = centre + spread * bell
        made[name] = value
    if model.experts:
        _steer(model, made)
    return {name: value.astype(ml_dtypes.bfloat16).astype(np.float64) for name, value in made.items()}


def _steer(model: TinyModel, made: dict[str, Array]) -> None:
    """Let each token choose its experts by a wide gap: where a choice is close, no error bound on logits can hold."""
    likes = np.array([3.0, 2.0, -2.0, -3.0])  # of the first four dimensions of x, one for each of four experts
    turn = np.abs(_bell(model.seed, 9998, (model.vocab_size, model.experts))).argsort(-1)
    made["embed_tokens"][:, : model.experts] = likes[turn]
    for name, value in made.items():
        if name.endswith("router"):
            np.multiply(value, 0.05, out=value)
            value[:, : model.experts] += 1.5 * np.eye(model.experts)
        elif name.endswith(("o_proj", "down_proj")):
            value[: model.experts] *= 0.2


def _plan(m: TinyModel) -> dict[str, tuple[tuple[int, ...], float, float]]:
    """Name -> (shape, centre, spread). Spreads give attention something to choose and logits a spread of about 4."""
    h, d, one = m.hidden, m.head_dim, 1.0 - m.norm_offset
    plan: dict[str, tuple[tuple[int, ...], float, float]] = {
        "embed_tokens": ((m.vocab_size, h), 0.0, 4.0 / h**0.5 if m.tied else 1.0),
        "norm": ((h,), one, 0.15),
    }
    if not m.tied:
        plan["lm_head"] = ((m.vocab_size, h), 0.0, 4.0 / h**0.5)
    for i in range(len(m.rope)):
        p = f"layers.{i}."
        plan[p + "input_norm"] = plan[p + "pre_mlp_norm"] = ((h,), one, 0.15)
        if m.sandwich:
            plan[p + "post_attention_norm"] = plan[p + "post_mlp_norm"] = ((h,), one + 2.0, 0.3)
        plan[p + "q_proj"] = ((m.heads * d, h), 0.0, 1.3 / h**0.5)
        plan[p + "k_proj"] = ((m.kv_heads * d, h), 0.0, 1.3 / h**0.5)
        plan[p + "v_proj"] = ((m.kv_heads * d, h), 0.0, 1.0 / h**0.5)
        plan[p + "o_proj"] = ((h, m.heads * d), 0.0, 1.5 / (m.heads * d) ** 0.5)
        if m.qk_norm:
            plan[p + "q_norm"] = plan[p + "k_norm"] = ((d,), 1.3, 0.2)
        if m.experts:
            plan[p + "router"] = ((m.experts, h), 0.0, 3.0 / h**0.5)
        for e in [f"experts.{e}." for e in range(m.experts)] or [""]:
            plan[p + e + "gate_proj"] = plan[p + e + "up_proj"] = ((m.intermediate, h), 0.0, 1.0 / h**0.5)
            plan[p + e + "down_proj"] = ((h, m.intermediate), 0.0, 1.5 / m.intermediate**0.5)
    return {k: (s, c, w * m.gains.get(k.rsplit(".", 1)[-1], 1.0)) for k, (s, c, w) in plan.items()}


def weights_digest(model: TinyModel) -> str:
    """Sixteen hex digits over all weights: goldens name the weights they were made with."""
    digest = hashlib.sha256()
    for name, value in sorted(weights(model).items()):
        digest.update(name.encode() + value.tobytes())
    return digest.hexdigest()[:16]


_HF_NAMES = {
    "embed_tokens": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "lm_head": "lm_head.weight",
    "input_norm": "input_layernorm.weight",
    "pre_mlp_norm": "post_attention_layernorm.weight",
    "router": "mlp.gate.weight",
}
_HF_SANDWICH_NAMES = {
    "post_attention_norm": "post_attention_layernorm.weight",
    "pre_mlp_norm": "pre_feedforward_layernorm.weight",
    "post_mlp_norm": "post_feedforward_layernorm.weight",
}


def _hf_name(model: TinyModel, name: str) -> str:
    layer, _, leaf = name.rpartition(".")
    words = _HF_NAMES | (_HF_SANDWICH_NAMES if model.sandwich else {})
    if not layer:
        return words[leaf]
    layer, _, expert = layer.partition(".experts.")
    if leaf not in words:
        part = "self_attn" if leaf[0] in "qkvo" else f"mlp.experts.{expert}" if expert else "mlp"
        return f"model.{layer}.{part}.{leaf}.weight"
    return f"model.{layer}.{words[leaf]}"


def hf_tensors(model: TinyModel) -> dict[str, Array]:
    """The weights as a published checkpoint of this architecture names and fuses them."""
    tensors = {_hf_name(model, name): value for name, value in weights(model).items()}
    if model.fused:
        for i in range(len(model.rope)):
            at, mlp = f"model.layers.{i}.self_attn.", f"model.layers.{i}.mlp."
            tensors[at + "qkv_proj.weight"] = np.concatenate([tensors.pop(f"{at}{x}_proj.weight") for x in "qkv"])
            tensors[mlp + "gate_up_proj.weight"] = np.concatenate(
                [tensors.pop(f"{mlp}{x}_proj.weight") for x in ("gate", "up")]
            )
    return tensors


def write_checkpoint(model: TinyModel, folder: Path) -> Path:
    """Write config.json, generation_config.json and model.safetensors; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(model.config), indent=1))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": model.eos}))
    dtype = ml_dtypes.bfloat16 if model.file_dtype == "bfloat16" else np.float32
    tensors = {name: np.ascontiguousarray(value.astype(dtype)) for name, value in hf_tensors(model).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
