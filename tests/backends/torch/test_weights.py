"""Weights: views of the file where they can be, and never two copies of the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from isotoken.backends.torch.weights import pair_up, view_of
from safetensors.torch import save_file

HIDDEN, INTERMEDIATE, LAYERS, VOCAB = 1024, 4096, 4, 2000


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_view_shares_memory_whatever_the_dtype_and_strides(dtype: type) -> None:
    array = np.arange(48).astype(dtype).reshape(6, 8)[1:5, ::2]
    for source in (array, _read_only(array)):
        view = view_of(source)
        assert view.data_ptr() == source.ctypes.data
        assert view.double().tolist() == source.astype(np.float64).tolist()


def test_a_view_keeps_its_memory_alive() -> None:
    view = view_of(_read_only(np.full(1 << 20, 7.0, np.float32)))
    np.full(1 << 20, 1.0, np.float32)
    assert view.sum().item() == 7 * (1 << 20)


def _read_only(array: np.ndarray) -> np.ndarray:
    copy = array.view()
    copy.flags.writeable = False
    return copy


def test_pairs_become_neighbours() -> None:
    rows = torch.arange(16)[:, None]
    assert pair_up(rows, 8, 8).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    assert pair_up(rows, 8, 4).flatten().tolist() == [0, 2, 1, 3, 4, 5, 6, 7, 8, 10, 9, 11, 12, 13, 14, 15]
    assert pair_up(rows, 8, 0).flatten().tolist() == list(range(16))


MEASURE = """
import sys
from pathlib import Path
from isotoken.backends.torch.backend import TorchBackend
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import RunnerConfig
import torch

def status(field):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024

torch.set_num_threads(1)
torch.nn.functional.linear(torch.ones(1, 64).bfloat16(), torch.ones(64, 64).bfloat16())  # loads what torch loads late
checkpoint = Checkpoint.open(sys.argv[1])
before = status("VmRSS")
config = RunnerConfig(dtype=sys.argv[2], device="cpu", max_model_len=64, max_num_seqs=2, num_blocks=8)
runner = TorchBackend().load(checkpoint, config)
print(checkpoint.num_bytes, runner.info.weight_bytes, status("VmRSS") - before, status("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 140 MB, large against what a process needs anyway."""
    folder = tmp_path_factory.mktemp("model")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))

    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(shape, dtype=torch.bfloat16)

    tensors = {name: ones(VOCAB, HIDDEN) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    tensors["model.norm.weight"] = ones(HIDDEN)
    for index in range(LAYERS):
        layer = f"model.layers.{index}."
        tensors |= {f"{layer}self_attn.{name}_proj.weight": ones(HIDDEN, HIDDEN) for name in "qkvo"}
        tensors |= {f"{layer}mlp.{name}_proj.weight": ones(INTERMEDIATE, HIDDEN) for name in ("gate", "up")}
        tensors |= {f"{layer}mlp.down_proj.weight": ones(HIDDEN, INTERMEDIATE)}
        tensors |= {f"{layer}{name}_layernorm.weight": ones(HIDDEN) for name in ("input", "post_attention")}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads resident memory from /proc")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_memory_never_holds_a_second_copy(model: Path, dtype: str) -> None:
    """The peak while loading stays below the weights in the compute dtype and one layer more."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(model), dtype], capture_output=True, text=True, check=True, timeout=120
    )
    stored, held, resident, peak = map(int, run.stdout.split())
    computed = stored * (2 if dtype == "float32" else 1)
    layer = computed // LAYERS
    print(f"{dtype}: {stored=} {held=} {resident=} {peak=}")
    assert 0.9 * computed < held < 1.01 * computed  # norms are held in float32
    assert resident < computed + layer
    assert peak < computed + 1.5 * layer
