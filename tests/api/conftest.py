"""Fixtures: a tiny Llama with random weights and a tokenizer trained on the spot, served by the numpy backend."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from isotoken.api.engine import AsyncEngine, Limits
from isotoken.api.text import TextModel
from isotoken.plugins.build import EngineConfig
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|bos|>", "<|end|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXT = """The quick brown fox jumps over the lazy dog. Portez ce vieux whisky au juge blond qui fume.
Falsches Üben von Xylophonmusik quält jeden größeren Zwerg. Любя, съешь щипцы, вздохнёт мэр.
いろはにほへと ちりぬるを. 🙂🙃🚀 zero one two three four"""
HIDDEN, HEADS, KV_HEADS, HEAD_DIM, LAYERS, INTERMEDIATE = 32, 4, 2, 8, 2, 48
MAX_MODEL_LEN = 4096  # engines get 256 of them unless a test needs more


def train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return tokenizer


def make_weights(vocab_size: int, *, seed: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 1.5 / np.sqrt(shape[-1])).astype(np.float32)

    weights = {
        "model.embed_tokens.weight": rng.standard_normal((vocab_size, HIDDEN)).astype(np.float32),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
        "lm_head.weight": normal(vocab_size, HIDDEN),
    }
    for i in range(LAYERS):
        prefix = f"model.layers.{i}."
        weights |= {
            prefix + "input_layernorm.weight": np.ones(HIDDEN, np.float32),
            prefix + "post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
            prefix + "self_attn.q_proj.weight": normal(HEADS * HEAD_DIM, HIDDEN),
            prefix + "self_attn.k_proj.weight": normal(KV_HEADS * HEAD_DIM, HIDDEN),
            prefix + "self_attn.v_proj.weight": normal(KV_HEADS * HEAD_DIM, HIDDEN),
            prefix + "self_attn.o_proj.weight": normal(HIDDEN, HEADS * HEAD_DIM),
            prefix + "mlp.gate_proj.weight": normal(INTERMEDIATE, HIDDEN),
            prefix + "mlp.up_proj.weight": normal(INTERMEDIATE, HIDDEN),
            prefix + "mlp.down_proj.weight": normal(HIDDEN, INTERMEDIATE),
        }
    return weights


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    vocab_size = tokenizer.get_vocab_size()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": MAX_MODEL_LEN,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    files = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": 1, "bos_token_id": 0, "temperature": 0.7, "max_new_tokens": 20},
        "tokenizer_config.json": {"bos_token": "<|bos|>", "eos_token": "<|end|>", "chat_template": CHAT_TEMPLATE},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(make_weights(vocab_size), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def text_model(model_dir: Path) -> TextModel:
    return TextModel.load(model_dir)


@pytest.fixture
def faulty_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installs faulty_backend.py as a distribution that engines started from here find; gives its folder."""
    folder = tmp_path / "site"
    info = folder / "isotoken_faulty-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "isotoken_faulty.py").write_text((Path(__file__).parent / "faulty_backend.py").read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: isotoken-faulty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[isotoken]\nfaulty = isotoken_faulty\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("FAULTY_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def engine_config(model_dir: Path) -> Callable[..., EngineConfig]:
    """Makes a config of the tiny model; small batches so that requests wait, share and chunk."""

    def make(**settings: object) -> EngineConfig:
        defaults: dict[str, object] = {
            "backend": "reference",
            "max_model_len": 256,
            "max_num_seqs": 16,
            "max_num_batched_tokens": 64,
            "block_size": 4,
            "num_blocks": 1024,
        }
        return EngineConfig(model=str(model_dir), **{**defaults, **settings})  # type: ignore[arg-type]

    return make


Body = Callable[[AsyncEngine], Awaitable[None]]


@pytest.fixture
def with_engine(engine_config: Callable[..., EngineConfig]) -> Callable[..., None]:
    """Runs a coroutine function with a fresh engine in a child process, and ends it afterwards."""

    def run(body: Body, *, limits: Limits | None = None, **settings: object) -> None:
        async def main() -> None:
            async with asyncio.timeout(120):
                engine = await AsyncEngine.start(engine_config(**settings), limits)
                try:
                    await body(engine)
                finally:
                    await engine.stop()

        asyncio.run(main())

    return run
