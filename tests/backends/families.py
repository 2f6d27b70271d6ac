"""Small random checkpoints of every model family, made with transformers, and transformers' own answers to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

VOCAB_SIZE = 128
MAX_MODEL_LEN = 64
PROMPT_LENGTHS = (1, 2, 15, 16, 17, 31, 32, 33, 47)  # around the boundaries of blocks of 16
NUM_NEW_TOKENS = 10

BASE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_MODEL_LEN,
    "rms_norm_eps": 1e-3,  # large enough to be missed
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Family:
    """One checkpoint: a transformers config and how it is saved."""

    config: str  # class name of the transformers config
    settings: dict[str, Any]
    shard_size: str = "50MB"
    dtype: torch.dtype = torch.float32
    dialect: int = 5  # which major version of transformers config.json is written for
    fused_experts: bool = False
    max_model_len: int = MAX_MODEL_LEN


def _rope(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **parameters}}


_LONGROPE = {
    "short_factor": [1.0 + 0.1 * i for i in range(6)],
    "long_factor": [1.5 + 0.8 * i for i in range(6)],
    "partial_rotary_factor": 0.75,
}

FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaConfig", {}),
    "llama-tied-sharded-bf16": Family(
        "LlamaConfig", {"tie_word_embeddings": True, "num_hidden_layers": 4}, shard_size="60KB", dtype=torch.bfloat16
    ),
    "llama-biases": Family("LlamaConfig", {"attention_bias": True, "mlp_bias": True, "head_dim": 32}, dialect=4),
    "llama-gelu-mha": Family("LlamaConfig", {"hidden_act": "gelu", "num_key_value_heads": 4}),
    "llama-linear": Family("LlamaConfig", _rope("linear", factor=4.0), dialect=4),
    "llama-dynamic": Family("LlamaConfig", {**_rope("dynamic", factor=4.0), "max_position_embeddings": 24}, dialect=4),
    "llama-yarn": Family("LlamaConfig", _rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama-yarn-mscale": Family(
        "LlamaConfig",
        _rope(
            "yarn",
            factor=4.0,
            original_max_position_embeddings=16,
            mscale=0.7,
            mscale_all_dim=1.0,
            truncate=False,
            beta_fast=4.0,
        ),
        dialect=4,
    ),
    "llama3": Family(
        "LlamaConfig",
        _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=24),
        dialect=4,
    ),
    "mistral": Family("MistralConfig", {"sliding_window": 9}, shard_size="100KB"),
    "mistral-no-window": Family("MistralConfig", {"sliding_window": None, "head_dim": 24}, dialect=4),
    "qwen2": Family("Qwen2Config", {"tie_word_embeddings": True}, dialect=4),
    "qwen2-window": Family("Qwen2Config", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    "qwen3": Family("Qwen3Config", {"head_dim": 32}, shard_size="80KB"),
    "gemma2": Family(
        "Gemma2Config",
        {
            "head_dim": 32,
            "query_pre_attn_scalar": 24,
            "sliding_window": 10,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 8.0,
        },
        dialect=4,
    ),
    "gemma3": Family(
        "Gemma3TextConfig",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "sliding_window": 10,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
    ),
    "gemma3-old-config": Family(
        "Gemma3TextConfig",
        {
            "head_dim": 32,
            "sliding_window": 8,
            "sliding_window_pattern": 3,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 3000.0},
            },
        },
        dialect=4,
    ),
    "gemma3-multimodal": Family(  # only its text decoder is used
        "Gemma3Config",
        {
            "text_config": {**BASE, "head_dim": 16, "sliding_window": 12, "sliding_window_pattern": 2},
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 16,
                "patch_size": 8,
            },
            "mm_tokens_per_image": 4,
            "image_token_index": 127,
            "boi_token_index": 125,
            "eoi_token_index": 126,
        },
        shard_size="100KB",
    ),
    "phi3": Family("Phi3Config", {"sliding_window": 20, **_rope("default", partial_rotary_factor=0.5)}),
    "phi3-longrope-long": Family(
        "Phi3Config",
        {**_rope("longrope", **_LONGROPE), "original_max_position_embeddings": 32},
        shard_size="90KB",
        dialect=4,
    ),
    "phi3-longrope-short": Family(
        "Phi3Config",
        {
            **_rope("longrope", **_LONGROPE),
            "original_max_position_embeddings": MAX_MODEL_LEN,
            "max_position_embeddings": 4 * MAX_MODEL_LEN,
        },
    ),
    "olmo2": Family("Olmo2Config", {}, dialect=4),
    "granite": Family(
        "GraniteConfig",
        {
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.5,
            "residual_multiplier": 0.4,
            "attention_multiplier": 0.15,
            "attention_bias": True,
        },
    ),
    "smollm3": Family(
        "SmolLM3Config", {"no_rope_layer_interval": 2, "num_hidden_layers": 4, "tie_word_embeddings": True}, dialect=4
    ),
    "smollm3-window": Family(
        "SmolLM3Config",
        {"no_rope_layers": [1, 0, 1], "use_sliding_window": True, "sliding_window": 11, "attention_bias": True},
    ),
    "mixtral": Family("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}, shard_size="150KB"),
    "mixtral-fused-window": Family(
        "MixtralConfig",
        {"num_local_experts": 3, "num_experts_per_tok": 2, "sliding_window": 13},
        fused_experts=True,
        dialect=4,
    ),
    "qwen3-moe": Family(
        "Qwen3MoeConfig",
        {
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 40,
            "norm_topk_prob": True,
            "decoder_sparse_step": 2,
            "num_hidden_layers": 4,
            "head_dim": 32,
        },
    ),
    "qwen3-moe-mlp-only": Family(
        "Qwen3MoeConfig",
        {
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 40,
            "norm_topk_prob": False,
            "mlp_only_layers": [1],
            "use_sliding_window": True,
            "sliding_window": 12,
        },
        fused_experts=True,
    ),
}


def make_checkpoint(name: str, root: Path) -> Path:
    """Write the checkpoint of a family under `root`, once; the same bytes every time."""
    folder = root / name
    if not folder.exists():
        family = FAMILIES[name]
        base = {} if "text_config" in family.settings else BASE
        config = getattr(transformers, family.config)(**{**base, **family.settings})
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        _randomise(model, seed=sum(name.encode()))
        original = {"save_original_format": False} if family.fused_experts else {}
        model.to(family.dtype).save_pretrained(folder, max_shard_size=family.shard_size, **original)
        if family.dialect == 4:
            _rewrite_for_transformers_4(folder / "config.json")
    return folder


def prompts(seed: int = 0) -> list[list[int]]:
    """Random prompts of PROMPT_LENGTHS."""
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCAB_SIZE, length).tolist() for length in PROMPT_LENGTHS]


class Oracle:
    """transformers in float32 with eager attention, whole sequences and no cache."""

    def __init__(self, folder: Path, max_model_len: int) -> None:
        self.max_model_len = max_model_len
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    @torch.no_grad()
    def logits(self, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Logits [length, vocabulary] at every position of each sequence.

        Padding on the right up to max_model_len cannot be seen by what stands before it, and makes a rope scaling that
        looks at the running length settle on max_model_len, as it does at load here.
        """
        padded = torch.zeros(len(sequences), self.max_model_len, dtype=torch.long)
        for row, sequence in zip(padded, sequences, strict=True):
            row[: len(sequence)] = torch.tensor(sequence)
        logits = self.model(input_ids=padded, use_cache=False).logits.numpy()
        return [row[: len(sequence)] for row, sequence in zip(logits, sequences, strict=True)]

    def greedy(self, sequences: Sequence[Sequence[int]], num_tokens: int) -> list[list[int]]:
        """The sequences continued by `num_tokens` greedy tokens; ends of sequence are not heeded."""
        grown = [list(sequence) for sequence in sequences]
        for _ in range(num_tokens):
            for sequence, logits in zip(grown, self.logits(grown), strict=True):
                sequence.append(int(logits[-1].argmax()))
        return grown


@dataclass(frozen=True)
class Case:
    """A checkpoint with the answers to its prompts."""

    name: str
    folder: Path
    max_model_len: int
    prompts: list[list[int]]
    sequences: list[list[int]]  # the prompts with their greedy continuations
    logits: list[NDArray[np.float32]]  # [length, vocabulary] at every position of each sequence


@cache
def make_case(name: str, root: Path) -> Case:
    """The checkpoint and the oracle's answers; made once a session."""
    family = FAMILIES[name]
    folder = make_checkpoint(name, root)
    oracle = Oracle(folder, family.max_model_len)
    sequences = oracle.greedy(prompts(), NUM_NEW_TOKENS)
    return Case(name, folder, family.max_model_len, prompts(), sequences, oracle.logits(sequences))


def _randomise(model: transformers.PreTrainedModel, seed: int) -> None:
    """Weights under which everything matters: norms away from one, biases away from zero, logits of 1 to 10."""
    generator = torch.Generator().manual_seed(seed)
    zero_centred = "Gemma" in type(model).__name__
    embedding_std = 0.12 if model.config.tie_word_embeddings else 0.4  # small, else a tied model repeats its last token
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(0.3 * noise + (0.0 if zero_centred else 1.0))
            elif name.endswith("bias"):
                parameter.copy_(0.4 * noise)
            elif "embed_tokens" in name:
                parameter.copy_(embedding_std * noise)
            else:
                parameter.copy_(1.2 * noise / parameter.shape[-1] ** 0.5)


def _rewrite_for_transformers_4(path: Path) -> None:
    """Turn a config.json of transformers 5 into what version 4 wrote."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    is_gemma3 = "full_attention" in rope
    if is_gemma3:  # one scaling, for full attention, and two bases
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        config.pop("layer_types")
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"rope_type" if is_gemma3 else "type": kind, **rope}
    if config["model_type"] in ("gemma2", "qwen2"):
        config.pop("layer_types")
    path.write_text(json.dumps(config, indent=2))
