"""A model that says what it is told to: each of its texts is a chain of tokens, cut where a test wants it cut."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from ..server.conftest import START_TIMEOUT, Served

HIDDEN = 128
TEMPLATE = "{# <tool_call> #}{% for message in messages %}{{ message.content }}{% endfor %}"

SERVE = """
import json, logging, sys
from isotoken.api.cli.log import log_to_stderr
from isotoken.api.gateway.settings import GatewaySettings
from isotoken.api.safety.settings import SafetySettings
from isotoken.api.server import ServerSettings, serve
from isotoken.api.server.features import Features
from isotoken.api.store import StoreSettings
from isotoken.api.telemetry.settings import TelemetrySettings
from isotoken.plugins.build import EngineConfig
config, asked, level = json.loads(sys.argv[1])
kinds = {"safety": SafetySettings, "gateway": GatewaySettings, "store": StoreSettings, "telemetry": TelemetrySettings}
log_to_stderr(level, sys.stderr)
logging.basicConfig(level=level.upper(), stream=sys.stderr)
features = Features(**{name: kinds[name](**settings) for name, settings in asked.items()})
settings = ServerSettings(port=0, features=features)
sys.exit(serve(EngineConfig(**config), settings, on_started=lambda url, engine: print(url, engine.pid, flush=True)))
"""

Serve = Callable[..., Served]


def say(number: int) -> str:
    """Return the prompt's end that makes the model say its text of this number."""
    return f"<|say{number}|>"


def write_model(folder: Path, texts: Sequence[Sequence[bytes]]) -> Path:
    """Write a model that says each of these texts, given as pieces that become tokens, and then ends.

    What comes next depends on the last token alone, so that no token is used twice: a piece that was used already is
    joined to the next one.
    """
    folder.mkdir(parents=True)
    table = _characters()
    vocabulary = {"<|end|>": 0, **{character: i for i, character in enumerate(sorted(table.values()), 1)}}
    following: dict[int, int] = {}
    used: set[str] = set()
    for number, pieces in enumerate(texts):
        last = vocabulary[say(number)] = len(vocabulary)
        for piece in _apart(pieces, used, table):
            following[last] = last = vocabulary.setdefault(piece, len(vocabulary))
        following[last] = 0
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in _names(len(texts))])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_weights(folder, len(vocabulary), following)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "chat_template": TEMPLATE}))
    return folder


def cut(text: str, rng: np.random.Generator, longest: int = 6) -> list[bytes]:
    """Cut a text into random pieces, in the middle of characters too."""
    data, pieces = text.encode(), []
    while data:
        size = int(rng.integers(1, longest + 1))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def _names(count: int) -> list[str]:
    return ["<|end|>", *(say(number) for number in range(count))]


def _apart(pieces: Sequence[bytes], used: set[str], table: dict[int, str]) -> list[str]:
    found: list[str] = []
    waiting = ""
    for piece in pieces:
        waiting += "".join(table[byte] for byte in piece)
        if waiting not in used:
            used.add(waiting)
            found.append(waiting)
            waiting = ""
    if waiting:
        found[-1] += waiting
        assert found[-1] not in used
        used.add(found[-1])
    return found


def _characters() -> dict[int, str]:
    """Return the character that stands for each byte in byte-level vocabularies."""
    encoder = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}
    assert sorted(table.values()) == sorted(encoder.alphabet())
    return table


def _write_weights(folder: Path, size: int, following: dict[int, int]) -> None:
    """Write a Llama whose layer adds nothing, and whose head knows for each token the one that follows."""
    rng = np.random.default_rng(5)
    embedding = rng.standard_normal((size, HIDDEN)).astype(np.float32)
    head = rng.standard_normal((size, HIDDEN)).astype(np.float32) * 0.01
    for token, after in following.items():
        head[after] = embedding[token] / np.linalg.norm(embedding[token])
    # Several tokens may be followed by the end: its row speaks for all of them.
    ends = [token for token, after in following.items() if after == 0]
    head[0] = sum(embedding[token] / np.linalg.norm(embedding[token]) for token in ends)
    layer = "model.layers.0"
    shapes = {f"{layer}.self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"}
    shapes |= {f"{layer}.mlp.{name}_proj": (32, HIDDEN) for name in ("gate", "up")}
    shapes[f"{layer}.mlp.down_proj"] = (HIDDEN, 32)
    weights = {f"{name}.weight": np.zeros(shape, np.float32) for name, shape in shapes.items()}
    norms = ("model.norm", f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm")
    weights |= {f"{name}.weight": np.ones(HIDDEN, np.float32) for name in norms}
    weights |= {"model.embed_tokens.weight": embedding, "lm_head.weight": head * 10}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": size,
        "hidden_size": HIDDEN,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": 0,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="session")
def serve_saying() -> Iterator[Serve]:
    """Start servers of such models: serve_saying(folder, {...}, gateway={...}). They are stopped in the end."""
    started: list[Served] = []

    def start(
        model: Path, safety: dict[str, Any] | None = None, *, log: Path | None = None, **features: dict[str, Any]
    ) -> Served:
        config = {"model": str(model), "backend": "reference", "num_blocks": 1024}
        asked = features | ({} if safety is None else {"safety": safety})
        arguments = json.dumps([config, asked, "debug" if log else "warning"])
        with (log or Path("/dev/null")).open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVE, arguments], stdout=subprocess.PIPE, stderr=stream, text=True
            )
        assert process.stdout is not None
        found, _, _ = select.select([process.stdout], [], [], START_TIMEOUT)
        line = process.stdout.readline() if found else ""
        assert line, "the server did not start"
        url, pid = line.split()
        started.append(Served(url, process, int(pid), httpx.Client(base_url=url, timeout=60)))
        return started[-1]

    yield start
    for served in started:
        served.client.close()
        if served.process.poll() is None:
            served.process.send_signal(signal.SIGTERM)
        try:
            served.process.wait(60)
        finally:
            served.process.kill()
            assert served.process.stdout is not None
            served.process.stdout.close()
