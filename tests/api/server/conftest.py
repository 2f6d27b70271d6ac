"""A real server on a free port: the real engine process, on a tiny model that is made here."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

MODEL = "tiny"
MAX_MODEL_LEN = 2048
START_TIMEOUT = 120.0  # seconds; a loaded machine imports slowly
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "the capital of France is Paris",
    "naïve café, 日本語, 🙂 smile",
]
SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]

_LABEL = re.compile(r'\w+="[^"]*"')

SERVE = """
import json, sys
from isotoken.api.engine import Limits
from isotoken.api.server import ServerSettings, serve
from isotoken.api.server.features import Features
from isotoken.api.structured.settings import StructuredSettings
from isotoken.plugins.build import EngineConfig
config, settings, limits, *structured = json.loads(sys.argv[1])
features = Features(structured=StructuredSettings(**structured[0]) if structured else None)
settings = ServerSettings(**{"port": 0, **settings}, limits=Limits(**limits), features=features)
code = serve(EngineConfig(**config), settings, on_started=lambda url, engine: print(url, engine.pid, flush=True))
sys.exit(code)
"""


@dataclass
class Served:
    """A running server."""

    url: str
    process: subprocess.Popen[str]
    engine_pid: int
    client: httpx.Client

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """Post a JSON body, or raw content=."""
        if body is not None:
            more["json"] = body
        return self.client.post(path, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(path, **more)

    def events(self, path: str, body: dict[str, Any]) -> list[Any]:
        """Return the events of a stream, parsed, "[DONE]" included."""
        with self.client.stream("POST", path, json=body) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["x-accel-buffering"] == "no"
            text = "".join(response.iter_text())
        blocks = text.split("\n\n")
        assert blocks.pop() == ""
        found = []
        for block in blocks:
            assert block.startswith("data: ")
            found.append(block[6:] if block == "data: [DONE]" else json.loads(block[6:]))
        return found

    def metric(self, name: str, labels: str = "") -> float:
        """Add up a metric's samples that have these labels, written `{name="value"}`; 0 where there is none yet."""
        wanted, total = set(_LABEL.findall(labels)), 0.0
        for line in self.get("/metrics").text.splitlines():
            head, _, value = line.rpartition(" ")
            found, _, rest = head.partition("{")
            if found == name and wanted <= set(_LABEL.findall(rest)):
                total += float(value)
        return total

    def wait_for(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:
        """Ask again and again until something is so."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)


def launch(arguments: str) -> subprocess.Popen[str]:
    """Start a server's process. It prints its URL and its engine's pid when it takes requests."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", SERVE, arguments], stdout=subprocess.PIPE, text=True, env=env)


@pytest.fixture(scope="session")
def start_process() -> Callable[[str], subprocess.Popen[str]]:
    """Start a server's process without waiting for it."""
    return launch


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 2 layers with random weights, a byte-level tokenizer and a chat template."""
    folder = tmp_path_factory.mktemp("models") / MODEL
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_MODEL_LEN,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": 0,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "chat_template": TEMPLATE}))
    save_file(_random_weights(config), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _random_weights(config: dict[str, Any]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(20)
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {"model.embed_tokens": (vocab, hidden), "lm_head": (vocab, hidden)}
    norms = ["model.norm"]
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        norms += [f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm"]
        shapes |= {f"{layer}.self_attn.{name}_proj": (hidden, hidden) for name in "qo"}
        shapes |= {f"{layer}.self_attn.{name}_proj": (kv, hidden) for name in "kv"}
        shapes |= {f"{layer}.mlp.{name}_proj": (inner, hidden) for name in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj"] = (hidden, inner)
    weights = {f"{name}.weight": rng.standard_normal(shape, np.float32) * 0.3 for name, shape in shapes.items()}
    return weights | {f"{name}.weight": np.ones(hidden, np.float32) for name in norms}


@pytest.fixture(scope="session")
def serve_tiny(tiny_model: Path) -> Iterator[Callable[..., Served]]:
    """Start servers: serve_tiny(config={...}, settings={...}, limits={...}). They are stopped in the end."""
    started: list[Served] = []

    def start(
        config: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        limits: dict[str, Any] | None = None,
        structured: dict[str, Any] | None = None,
    ) -> Served:
        config = {"model": str(tiny_model), "backend": "reference", "num_blocks": 256, **(config or {})}
        arguments = json.dumps([config, settings or {}, limits or {}, *([structured] if structured else [])])
        process = launch(arguments)
        assert process.stdout is not None
        found, _, _ = select.select([process.stdout], [], [], START_TIMEOUT)
        line = process.stdout.readline() if found else ""
        assert line, "the server did not start"
        url, pid = line.split()
        client = httpx.Client(base_url=url, timeout=60)
        started.append(Served(url, process, int(pid), client))
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


@pytest.fixture(scope="session")
def server(serve_tiny: Callable[..., Served]) -> Served:
    """A server with the usual settings."""
    return serve_tiny()
