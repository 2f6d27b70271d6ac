"""Seeded random Llamas to measure speed on, made when first needed: `isotoken bench random-125m`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from .workloads import VOCAB_SIZE

SEED = 1234
PREFIX = "random-"


@dataclass(frozen=True, slots=True)
class Size:
    """The shape of a Llama with heads of 64."""

    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    num_kv_heads: int = 4
    head_dim: int = 64


SIZES = {
    "125m": Size(768, 12, 12, 2048),
    "500m": Size(1280, 20, 20, 4480),
    "tiny": Size(128, 2, 2, 256, num_kv_heads=1),  # for smoke tests
}


def cache_folder() -> Path:
    """Where random models are kept: ISOTOKEN_BENCH_CACHE, else ~/.cache/isotoken/bench."""
    return Path(os.environ.get("ISOTOKEN_BENCH_CACHE", "~/.cache/isotoken/bench")).expanduser()


def ensure_model(size: str, folder: Path | None = None) -> Path:
    """Return the folder of a random model, made now if it is not there. Raises ValueError for an unknown size."""
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r} of a random model: expected one of {', '.join(SIZES)}")
    target = (folder or cache_folder()) / f"{PREFIX}{size}"
    if not (target / "model.safetensors").exists():
        make_model(size, target)
    return target


def make_model(size: str, folder: Path) -> None:
    """Write config.json, tokenizer.json and bfloat16 weights. The last file written is the weights."""
    from safetensors.numpy import save_file  # noqa: PLC0415  (only when there is a model to be made)

    folder.mkdir(parents=True, exist_ok=True)
    shape = SIZES[size]
    (folder / "config.json").write_text(json.dumps(_config(shape), indent=2))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"})
    )
    _save_tokenizer(folder / "tokenizer.json")
    partial = folder / f"model.safetensors.partial-{os.getpid()}"
    save_file(_weights(shape), partial, metadata={"format": "pt"})
    partial.rename(folder / "model.safetensors")


def _config(shape: Size) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }


def _weights(shape: Size) -> dict[str, NDArray[np.generic]]:
    """Draw normal weights of variance 1 / fan-in: activations stay of order one and logits have a clear best."""
    generator = np.random.Generator(np.random.PCG64(SEED))
    damping = (2 * shape.num_layers) ** -0.5  # of what each layer adds to the residual stream

    def matrix(rows: int, columns: int, scale: float = 1.0) -> NDArray[np.generic]:
        drawn = generator.standard_normal((rows, columns), np.float32) * np.float32(scale * columns**-0.5)
        return drawn.astype(ml_dtypes.bfloat16)

    hidden, q_size, kv_size = shape.hidden_size, shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    ones = np.ones(hidden, ml_dtypes.bfloat16)
    tensors: dict[str, NDArray[np.generic]] = {
        "model.embed_tokens.weight": matrix(VOCAB_SIZE, hidden, hidden**0.5),
        "model.norm.weight": ones,
        "lm_head.weight": matrix(VOCAB_SIZE, hidden, 3.0),
    }
    for index in range(shape.num_layers):
        layer = f"model.layers.{index}"
        tensors |= {
            f"{layer}.input_layernorm.weight": ones,
            f"{layer}.self_attn.q_proj.weight": matrix(q_size, hidden),
            f"{layer}.self_attn.k_proj.weight": matrix(kv_size, hidden),
            f"{layer}.self_attn.v_proj.weight": matrix(kv_size, hidden),
            f"{layer}.self_attn.o_proj.weight": matrix(hidden, q_size, damping),
            f"{layer}.post_attention_layernorm.weight": ones,
            f"{layer}.mlp.gate_proj.weight": matrix(shape.intermediate_size, hidden),
            f"{layer}.mlp.up_proj.weight": matrix(shape.intermediate_size, hidden),
            f"{layer}.mlp.down_proj.weight": matrix(hidden, shape.intermediate_size, damping),
        }
    return tensors


def _save_tokenizer(path: Path) -> None:
    """Write a byte-level tokenizer without merges, filled up to VOCAB_SIZE with names that no text contains."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415

    special = ["<unk>", "<s>", "</s>"]
    words = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    words += [f"<unused{index}>" for index in range(VOCAB_SIZE - len(words))]
    tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[]))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))
