"""Memory: what a runner takes is weights, K/V and little more, while it loads, runs a long prompt, and after it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from isotoken.backends.native.memory import HUGE, Arena, Layout, round_up
from isotoken.core.checkpoint import Checkpoint
from safetensors.numpy import save_file

from .helpers import MAX_MODEL_LEN, TOKENS, load, load_on_twins

Models = Callable[[str], Checkpoint]
BESIDES = 150 << 20  # bytes that are allowed on top

PROGRAM = """
import json, resource, sys
import numpy as np
from pathlib import Path
from isotoken.backends.native.backend import NativeBackend
from isotoken.conformance.rig import Rig
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.interfaces import RunnerConfig

def resident():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(fields[name].split()[0]) << 10 for name in ("VmHWM", "VmRSS")}

folder, settings = sys.argv[1], json.loads(sys.argv[2])
before = resident()["VmRSS"]
source = Checkpoint.open(folder)
runner = NativeBackend().load(source, RunnerConfig(**settings))
loaded = resident()
rig = Rig(runner)
strand = rig.strand([7] * 2000)
for _ in range(2):
    rig.step([(strand, 1000, 1)])
ran = resident()
info = runner.info
runner.close()
print(json.dumps({"before": before, "loaded": loaded["VmHWM"], "ran": ran["VmHWM"], "closed": resident()["VmRSS"],
                  "weights": info.weight_bytes, "kv": info.kv_cache_bytes, "stored": source.num_bytes}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of some 180 MB, most of it in few matrices."""
    folder = tmp_path_factory.mktemp("large")
    hidden, vocab, layers, inner = 512, 40_000, 4, 8192
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 2,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "torch_dtype": "float16",
    }  # fmt: skip
    rng = np.random.default_rng(0)
    shapes = {"model.embed_tokens": (vocab, hidden), "lm_head": (vocab, hidden), "model.norm": (hidden,)}
    for i in range(layers):
        at, kv = f"model.layers.{i}.", hidden // 4
        shapes |= {f"{at}{norm}": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
        rows = {"q": hidden, "k": kv, "v": kv, "o": hidden}
        shapes |= {f"{at}self_attn.{name}_proj": (size, hidden) for name, size in rows.items()}
        shapes |= {f"{at}mlp.{name}_proj": (inner, hidden) for name in ("gate", "up")}
        shapes[f"{at}mlp.down_proj"] = (hidden, inner)
    noise = (0.02 * rng.standard_normal(1 << 20, np.float32)).astype(np.float16)
    tensors = {f"{name}.weight": np.resize(noise, shape) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
@pytest.mark.parametrize("quantization", [None, "w8a8", "int4"])
def test_memory_is_weights_kv_and_little_more(models: Models, large: Path, quantization: str | None) -> None:
    """Float16 weights become bfloat16, of which the packed ones are no view of the file, or 8 or 4 bits."""
    load(models("llama")).close()  # skips where there are no kernels
    settings = {
        "dtype": "bfloat16", "quantization": quantization, "max_num_batched_tokens": 2048, "num_blocks": 256,
        "num_threads": 1, "options": {"pack_cache": "off"},
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(large), json.dumps(settings)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, int] = json.loads(done.stdout)
    allowed = seen["before"] + seen["weights"] + BESIDES
    assert seen["stored"] > 170 << 20
    assert seen["loaded"] <= allowed, "while loading"
    assert seen["ran"] <= allowed + seen["kv"], "while running"
    assert seen["closed"] <= seen["before"] + BESIDES // 3, "after close"


def test_a_long_context_costs_what_is_used_of_it(models: Models) -> None:
    """Activations, rotations and K/V are reserved for the most there may be, and committed as they are reached."""
    runner = load_on_twins(models("llama"), max_num_batched_tokens=100_000, num_blocks=20_000)
    assert runner._parts.activations.num_bytes > 100 << 20
    assert runner._parts.rotations.covered <= MAX_MODEL_LEN
    runner.close()


def test_an_arena_begins_as_zeros_at_a_huge_page_and_ends_so() -> None:
    arena = Arena(3 << 20)
    assert arena.address % HUGE == 0
    numbers: Any = arena.view(64, (1000, 3), np.float32)
    assert not numbers.any()
    numbers[:] = 5
    arena.close()
    arena.close()
    assert not numbers.any(), "whoever still looks sees zeros"


def test_an_arena_that_is_too_large_is_refused() -> None:
    with pytest.raises(MemoryError, match="backend native: the system gives no"):
        Arena(1 << 62)


def test_places_lie_apart_on_cache_lines_and_alternatives_on_each_other() -> None:
    layout, one, other = Layout(), Layout(), Layout()
    layout.add("first", 10)
    one.add("a", 100)
    other.add("b", 70)
    other.add("c", 100)
    layout.over(one, other)
    assert [layout.offset(name) for name in ("first", "a", "b", "c")] == [0, 64, 64, 192]
    assert (layout.num_bytes, layout.size("c")) == (320, 100)
    assert "d" not in layout
    assert [round_up(n, 32) for n in (0, 1, 32, 33)] == [0, 32, 32, 64]


def test_the_greatest_step_stays_within_its_memory(models: Models) -> None:
    """As many tokens, requests and logits as were granted, twice, with the same answers as alone."""
    from isotoken.conformance.rig import Rig

    runner = load(models("moe"), max_num_batched_tokens=8 * 40, max_num_logits=320)
    rig = Rig(runner)
    alone = rig.step([(rig.strand(TOKENS[:40]), 40, 40)])[0]
    for _ in range(2):
        strands = [rig.strand(TOKENS[:40], row_id=i) for i in range(8)]
        for rows in rig.step([(strand, 40, 40) for strand in strands]):
            assert np.array_equal(rows, alone)
        rig = Rig(runner)
    runner.close()
