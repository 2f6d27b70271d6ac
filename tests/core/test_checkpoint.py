"""A sound checkpoint opens as views; every kind of damage is refused at once, naming the file and the tensor."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.types import CheckpointError
from numpy.typing import NDArray

Array = NDArray[Any]
H, WIDE, V, LAYERS = 8, 12, 20, 2  # hidden, intermediate, vocabulary
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": V,
    "hidden_size": H,
    "intermediate_size": WIDE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "eos_token_id": 2,
}
TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "int8": "I8"}
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
K0 = "model.layers.0.self_attn.k_proj.weight"
DOWN1 = "model.layers.1.mlp.down_proj.weight"


def tensors(dtype: Any = np.float32) -> dict[str, Array]:
    """The weights of a small Llama under their names in the file."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (V, H)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        shapes |= {f"{layer}input_layernorm.weight": (H,), f"{layer}post_attention_layernorm.weight": (H,)}
        shapes |= {f"{layer}self_attn.q_proj.weight": (H, H), f"{layer}self_attn.k_proj.weight": (H // 2, H)}
        shapes |= {f"{layer}self_attn.v_proj.weight": (H // 2, H), f"{layer}self_attn.o_proj.weight": (H, H)}
        shapes |= {f"{layer}mlp.gate_proj.weight": (WIDE, H), f"{layer}mlp.up_proj.weight": (WIDE, H)}
        shapes |= {f"{layer}mlp.down_proj.weight": (H, WIDE)}
    shapes |= {"model.norm.weight": (H,), "lm_head.weight": (V, H)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def describe(weights: dict[str, Array]) -> dict[str, Any]:
    """The header of a safetensors file that holds the weights side by side."""
    header, offset = {}, 0
    for name, array in weights.items():
        offsets = [offset, offset + array.nbytes]
        header[name] = {"dtype": TYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        offset += array.nbytes
    return header


def write(path: Path, weights: dict[str, Array], header: Any = None) -> None:
    """Write a safetensors file, with a header of one's own if need be."""
    head = header if isinstance(header, bytes) else json.dumps(header or describe(weights)).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(array.tobytes() for array in weights.values()))


def write_folder(path: Path, weights: dict[str, Array] | None = None, config: dict[str, Any] | None = None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    write(path / SINGLE, weights or tensors())
    return path


def write_shards(path: Path, num_shards: int = 3) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(CONFIG))
    weights = tensors()
    names = list(weights)
    weight_map = {}
    for shard in range(num_shards):
        file = f"model-{shard + 1:05}-of-{num_shards:05}.safetensors"
        part = {name: weights[name] for name in names[shard::num_shards]}
        write(path / file, part)
        weight_map |= dict.fromkeys(part, file)
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_tensor_is_a_read_only_view_of_the_file(tmp_path: Path, dtype: str) -> None:
    weights = tensors(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    checkpoint = Checkpoint.open(write_folder(tmp_path, weights))
    names = list(checkpoint.names())
    assert names[0] == "embed_tokens"
    assert names[-2:] == ["norm", "lm_head"]
    assert len(names) == len(weights)
    assert checkpoint.dtype == dtype
    assert checkpoint.num_bytes == sum(array.nbytes for array in weights.values())
    for name, file_name in [("layers.0.k_proj", K0), ("layers.1.down_proj", DOWN1), ("lm_head", "lm_head.weight")]:
        view = checkpoint.tensor(name)
        assert view.dtype.name == dtype
        assert np.array_equal(view, weights[file_name])
        assert not view.flags.owndata
        assert not view.flags.writeable


def test_norms_go_by_what_they_do(tmp_path: Path) -> None:
    weights = tensors()
    checkpoint = Checkpoint.open(write_folder(tmp_path, weights))
    expected = weights["model.layers.1.post_attention_layernorm.weight"]
    assert np.array_equal(checkpoint.tensor("layers.1.pre_mlp_norm"), expected)
    with pytest.raises(KeyError, match=r"has no tensor 'layers.1.post_mlp_norm'"):
        checkpoint.tensor("layers.1.post_mlp_norm")


def test_shards_hold_the_same_model_as_one_file(tmp_path: Path) -> None:
    one, many = Checkpoint.open(write_folder(tmp_path / "one")), Checkpoint.open(write_shards(tmp_path / "many"))
    assert list(one.names()) == list(many.names())
    assert all(np.array_equal(one.tensor(name), many.tensor(name)) for name in one.names())
    assert one.content_hash() == many.content_hash()
    assert one.key != many.key


def test_a_tied_head_is_the_embedding(tmp_path: Path) -> None:
    weights = tensors()
    head = weights.pop("lm_head.weight")
    checkpoint = Checkpoint.open(write_folder(tmp_path / "a", weights, {"tie_word_embeddings": True}))
    assert "lm_head" not in list(checkpoint.names())
    assert np.shares_memory(checkpoint.tensor("lm_head"), checkpoint.tensor("embed_tokens"))
    both = Checkpoint.open(
        write_folder(tmp_path / "b", {**weights, "lm_head.weight": head}, {"tie_word_embeddings": True})
    )
    assert np.array_equal(both.tensor("lm_head"), weights["model.embed_tokens.weight"])
    assert both.unused_names == ("lm_head.weight",)


def test_fused_projections_are_seen_apart(tmp_path: Path) -> None:
    apart, fused = tensors(), {}
    for name, array in apart.items():
        layer = name.rpartition("self_attn.")[0]
        block = name.rpartition("mlp.")[0]
        if name.endswith("q_proj.weight"):
            parts = [apart[f"{layer}self_attn.{letter}_proj.weight"] for letter in "qkv"]
            fused[f"{layer}self_attn.qkv_proj.weight"] = np.concatenate(parts)
        elif name.endswith("gate_proj.weight"):
            parts = [array, apart[f"{block}mlp.up_proj.weight"]]
            fused[f"{block}mlp.gate_up_proj.weight"] = np.concatenate(parts)
        elif not name.endswith(("k_proj.weight", "v_proj.weight", "up_proj.weight")):
            fused[name] = array
    one = Checkpoint.open(write_folder(tmp_path / "one", apart))
    other = Checkpoint.open(write_folder(tmp_path / "other", fused))
    for name in one.names():
        assert np.array_equal(one.tensor(name), other.tensor(name)), name
        assert not other.tensor(name).flags.owndata
    assert other.num_bytes == one.num_bytes
    assert other.content_hash() == one.content_hash()


def expert_tensors(num_experts: int) -> dict[str, Array]:
    weights = {name: array for name, array in tensors().items() if ".mlp." not in name}
    rng = np.random.default_rng(1)
    for i in range(LAYERS):
        block = f"model.layers.{i}.block_sparse_moe."
        weights[f"{block}gate.weight"] = rng.standard_normal((num_experts, H)).astype(np.float32)
        for e in range(num_experts):
            for name, shape in (("w1", (WIDE, H)), ("w3", (WIDE, H)), ("w2", (H, WIDE))):
                weights[f"{block}experts.{e}.{name}.weight"] = rng.standard_normal(shape).astype(np.float32)
    return weights


def test_stacked_experts_are_seen_apart(tmp_path: Path) -> None:
    config = {"architectures": ["MixtralForCausalLM"], "num_local_experts": 3}
    apart = expert_tensors(3)
    stacked = {name: array for name, array in apart.items() if ".block_sparse_moe." not in name}
    for i in range(LAYERS):
        block, target = f"model.layers.{i}.block_sparse_moe.", f"model.layers.{i}.mlp."
        stacked[f"{target}gate.weight"] = apart[f"{block}gate.weight"]
        pairs = [np.concatenate([apart[f"{block}experts.{e}.{w}.weight"] for w in ("w1", "w3")]) for e in range(3)]
        stacked[f"{target}experts.gate_up_proj"] = np.stack(pairs)
        stacked[f"{target}experts.down_proj"] = np.stack([apart[f"{block}experts.{e}.w2.weight"] for e in range(3)])
    one = Checkpoint.open(write_folder(tmp_path / "one", apart, config))
    other = Checkpoint.open(write_folder(tmp_path / "other", stacked, config))
    assert "layers.1.experts.2.down_proj" in list(one.names())
    for name in one.names():
        assert np.array_equal(one.tensor(name), other.tensor(name)), name
        assert not other.tensor(name).flags.owndata


def test_the_text_part_of_a_multimodal_file_is_found(tmp_path: Path) -> None:
    for number, (layers, head) in enumerate(
        [("language_model.model.", "language_model."), ("model.language_model.", "")]
    ):
        renamed = {}
        for name, array in tensors().items():
            renamed[f"{head}{name}" if name.startswith("lm_head") else layers + name.removeprefix("model.")] = array
        renamed["vision_tower.weight"] = np.zeros((2, 2), np.float32)
        checkpoint = Checkpoint.open(write_folder(tmp_path / str(number), renamed))
        assert checkpoint.unused_names == ("vision_tower.weight",)
        assert np.array_equal(checkpoint.tensor("norm"), tensors()["model.norm.weight"])


def test_progress_adds_up(tmp_path: Path) -> None:
    read: list[tuple[str, int]] = []
    checkpoint = Checkpoint.open(write_folder(tmp_path), on_read=lambda name, num_bytes: read.append((name, num_bytes)))
    assert not read
    for name in [*checkpoint.names(), "norm"]:
        checkpoint.tensor(name)
    assert [name for name, _ in read] == list(checkpoint.names())
    assert sum(num_bytes for _, num_bytes in read) == checkpoint.num_bytes


@pytest.mark.parametrize(
    ("generation", "config", "ids"),
    [
        (None, 2, {2}),
        (None, [2, 5], {2, 5}),
        ([7, 3], 2, {7, 3}),
        (4, [2, 5], {4}),
        (None, None, set()),
        (None, [2, 128001], {2}),  # never drawn
    ],
)
def test_ends_of_sequence(tmp_path: Path, generation: Any, config: Any, ids: set[int]) -> None:
    write_folder(tmp_path, config={"eos_token_id": config})
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    assert Checkpoint.open(tmp_path).eos_token_ids == ids


def test_the_key_changes_with_any_file_and_the_hash_with_any_byte(tmp_path: Path) -> None:
    write_folder(tmp_path)
    first = Checkpoint.open(tmp_path)
    assert Checkpoint.open(tmp_path).key == first.key
    weights = tensors()
    weights[DOWN1][3, 3] += 1
    write(tmp_path / SINGLE, weights)
    os.utime(tmp_path / SINGLE, ns=(1, 1))
    second = Checkpoint.open(tmp_path)
    assert second.key != first.key
    assert second.content_hash() != Checkpoint.open(write_folder(tmp_path / "again")).content_hash()


# --- damage -------------------------------------------------------------------------------------

Damage = Callable[[Path], object]


def edit_header(path: Path, edit: Callable[[dict[str, Any]], object], weights: dict[str, Array] | None = None) -> None:
    weights = weights or tensors()
    header = describe(weights)
    edit(header)
    write(path / SINGLE, weights, header)


def without(path: Path, name: str) -> None:
    write(path / SINGLE, {key: array for key, array in tensors().items() if key != name})


def replaced(path: Path, name: str, array: Array) -> None:
    write(path / SINGLE, {**tensors(), name: array})


def raw(path: Path, change: Callable[[bytes], bytes]) -> None:
    (path / SINGLE).write_bytes(change((path / SINGLE).read_bytes()))


def listed_twice(path: Path) -> None:
    weights = tensors()
    text = json.dumps(describe(weights))
    entry = json.dumps({K0: describe(weights)[K0]})[1:-1]
    write(path / SINGLE, weights, (text[:-1] + ", " + entry + "}").encode())


def index(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    table = json.loads((path / INDEX).read_text())
    change(table)
    (path / INDEX).write_text(json.dumps(table))


def duplicated(path: Path) -> None:
    weights = tensors()
    names = list(weights)
    write(path / "model-00001-of-00003.safetensors", {name: weights[name] for name in [*names[::3], K0]})


def pickled(path: Path) -> None:
    (path / SINGLE).rename(path / "pytorch_model.bin")


SINGLE_FILE_DAMAGE: dict[str, tuple[Damage, list[str]]] = {
    "no config": (lambda p: (p / "config.json").unlink(), ["config.json", "does not exist"]),
    "config is not JSON": (lambda p: (p / "config.json").write_text('{"a":'), ["config.json", "not JSON"]),
    "config is a list": (lambda p: (p / "config.json").write_text("[]"), ["config.json", "not a JSON object"]),
    "config is binary": (lambda p: (p / "config.json").write_bytes(b"\xff\xfe\x00"), ["config.json", "not JSON"]),
    "config lacks a field": (
        lambda p: (p / "config.json").write_text(json.dumps({**CONFIG, "hidden_size": None})),
        ["config.json", "'hidden_size' is missing"],
    ),
    "unknown architecture": (
        lambda p: (p / "config.json").write_text(json.dumps({**CONFIG, "architectures": ["Rwkv"]})),
        ["config.json", "'Rwkv' is not supported", "Qwen3ForCausalLM"],
    ),
    "eos is a word": (
        lambda p: (p / "config.json").write_text(json.dumps({**CONFIG, "eos_token_id": "</s>"})),
        ["config.json", "'eos_token_id' is '</s>'"],
    ),
    "generation config is not JSON": (
        lambda p: (p / "generation_config.json").write_text("{"),
        ["generation_config.json", "not JSON"],
    ),
    "no weights": (lambda p: (p / SINGLE).unlink(), [SINGLE, INDEX, "neither"]),
    "a broken link": (
        lambda p: ((p / SINGLE).unlink(), (p / SINGLE).symlink_to(p / "gone")),
        [SINGLE, "cannot be read"],
    ),
    "a folder instead": (lambda p: ((p / SINGLE).unlink(), (p / SINGLE).mkdir()), [SINGLE, "cannot be read"]),
    "weights by another name": (
        lambda p: (p / SINGLE).rename(p / "consolidated.safetensors"),
        ["neither", "consolidated.safetensors"],
    ),
    "pickle only": (pickled, ["pytorch_model.bin", "pickle", "save_pretrained"]),
    "empty file": (lambda p: (p / SINGLE).write_bytes(b""), [SINGLE, "0 bytes"]),
    "four bytes": (lambda p: (p / SINGLE).write_bytes(b"abcd"), [SINGLE, "4 bytes"]),
    "truncated in the header": (lambda p: raw(p, lambda data: data[:100]), [SINGLE, "truncated"]),
    "truncated in the data": (lambda p: raw(p, lambda data: data[:-5]), [SINGLE, "'lm_head.weight'", "truncated"]),
    "extra bytes": (lambda p: raw(p, lambda data: data + b"12345"), [SINGLE, "5 bytes after", "lm_head.weight"]),
    "header of a petabyte": (
        lambda p: raw(p, lambda data: b"\xff" * 7 + data[7:]),
        [SINGLE, "claims", "not a safetensors"],
    ),
    "a web page": (
        lambda p: (p / SINGLE).write_bytes(b"<!DOCTYPE html><html>Not found</html>" * 10),
        [SINGLE, "a web page"],
    ),
    "header is not JSON": (lambda p: write(p / SINGLE, tensors(), b"{'a': 1}"), [SINGLE, "not JSON"]),
    "header is not text": (lambda p: write(p / SINGLE, tensors(), b"\xff\xff\xff\xff"), [SINGLE, "not JSON"]),
    "header is nested beyond measure": (lambda p: write(p / SINGLE, tensors(), b"[" * 100_000), [SINGLE, "not JSON"]),
    "header is a list": (lambda p: write(p / SINGLE, tensors(), b"[]"), [SINGLE, "not a JSON object"]),
    "a name twice in one header": (listed_twice, [SINGLE, K0, "twice"]),
    "an entry is a number": (lambda p: edit_header(p, lambda h: h.update({K0: 5})), [SINGLE, K0, "described by 5"]),
    "an entry lacks its shape": (
        lambda p: edit_header(p, lambda h: h[K0].pop("shape")),
        [SINGLE, K0, "expected dtype"],
    ),
    "a negative size": (lambda p: edit_header(p, lambda h: h[K0].update(shape=[-4, 8])), [SINGLE, K0, "[-4, 8]"]),
    "a dtype that is no name": (lambda p: edit_header(p, lambda h: h[K0].update(dtype=3)), [SINGLE, K0, "dtype 3"]),
    "offsets swapped": (
        lambda p: edit_header(p, lambda h: h[K0]["data_offsets"].reverse()),
        [SINGLE, K0, "data_offsets", "expected [begin, end]"],
    ),
    "one offset": (lambda p: edit_header(p, lambda h: h[K0]["data_offsets"].pop()), [SINGLE, K0, "data_offsets"]),
    "offsets beyond the file": (
        lambda p: edit_header(p, lambda h: h[K0].update(data_offsets=[10**9, 10**9 + 128])),
        [SINGLE, K0, "file ends"],
    ),
    "bytes that do not fit the shape": (
        lambda p: edit_header(p, lambda h: h[K0].update(shape=[4, 9])),
        [SINGLE, K0, "[4, 9]", "128 bytes"],
    ),
    "overlapping tensors": (
        lambda p: edit_header(p, lambda h: h[K0].update(data_offsets=[offset - 4 for offset in h[K0]["data_offsets"]])),
        [SINGLE, K0, "overlaps"],
    ),
    "a gap": (
        lambda p: write(p / SINGLE, {**tensors(), "x": np.zeros(1, np.float32)}, shifted(describe(tensors()))),
        [SINGLE, "begins 4 bytes after"],
    ),
    "a missing tensor": (lambda p: without(p, DOWN1), [SINGLE, DOWN1, "layers.1.down_proj", "incomplete"]),
    "a missing norm": (lambda p: without(p, "model.norm.weight"), [SINGLE, "model.norm.weight"]),
    "no tensors at all": (lambda p: write(p / SINGLE, {}, b"{}"), ["model.embed_tokens.weight", "no tensors"]),
    "no head though not tied": (lambda p: without(p, "lm_head.weight"), ["lm_head.weight", "tie_word_embeddings"]),
    "a wrong shape": (
        lambda p: replaced(p, K0, np.zeros((8, 8), np.float32)),
        [SINGLE, K0, "[8, 8]", "expected [4, 8]"],
    ),
    "a transposed weight": (
        lambda p: replaced(p, DOWN1, np.zeros((WIDE, H), np.float32)),
        [SINGLE, DOWN1, "[12, 8]", "expected [8, 12]"],
    ),
    "another model's config": (
        lambda p: (p / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": 21})),
        [SINGLE, "model.embed_tokens.weight", "[20, 8]", "expected [21, 8]"],
    ),
    "fp8 weights": (
        lambda p: replaced(p, K0, np.zeros((4, 8), ml_dtypes.float8_e4m3fn)),
        [SINGLE, K0, "F8_E4M3", "BF16, F16 or F32"],
    ),
    "integer weights": (lambda p: replaced(p, K0, np.zeros((4, 8), np.int8)), [SINGLE, K0, "I8", "original"]),
}
SHARD_DAMAGE: dict[str, tuple[Damage, list[str]]] = {
    "a missing shard": (
        lambda p: (p / "model-00002-of-00003.safetensors").unlink(),
        ["model-00002-of-00003.safetensors", "does not exist", "model.layers.0.input_layernorm.weight"],
    ),
    "a truncated shard": (
        lambda p: os.truncate(p / "model-00003-of-00003.safetensors", 1500),
        ["model-00003-of-00003.safetensors", "truncated"],
    ),
    "a tensor in two shards": (duplicated, ["model-00001", K0, "also in model-0000"]),
    "a shard of another checkpoint": (
        lambda p: write(p / "model-00002-of-00003.safetensors", {"other": np.zeros(3, np.float32)}),
        ["model-00002-of-00003.safetensors", "is missing", INDEX],
    ),
    "index is not JSON": (lambda p: (p / INDEX).write_text("weights"), [INDEX, "not JSON"]),
    "index without a map": (lambda p: index(p, lambda table: table.pop("weight_map")), [INDEX, "'weight_map'"]),
    "index points out of the folder": (
        lambda p: index(p, lambda table: table["weight_map"].update({K0: "../../secret.safetensors"})),
        [INDEX, K0, "../../secret.safetensors"],
    ),
    "index puts a tensor elsewhere": (
        lambda p: index(
            p, lambda table: table["weight_map"].update({"model.norm.weight": "model-00003-of-00003.safetensors"})
        ),
        ["model-00003-of-00003.safetensors", "model.norm.weight", "missing"],
    ),
    "index lists what is nowhere": (
        lambda p: index(p, lambda table: table["weight_map"].update({"extra": "model-00001-of-00003.safetensors"})),
        ["model-00001-of-00003.safetensors", "'extra'", "missing"],
    ),
}


def shifted(header: dict[str, Any]) -> dict[str, Any]:
    """Leave 4 bytes between the header and the first tensor."""
    for entry in header.values():
        entry["data_offsets"] = [offset + 4 for offset in entry["data_offsets"]]
    return header


def refuse(path: Path, words: list[str]) -> None:
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(path)
    for word in words:
        assert word in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("kind", SINGLE_FILE_DAMAGE)
def test_damage_is_refused_with_file_and_tensor(tmp_path: Path, kind: str) -> None:
    damage, words = SINGLE_FILE_DAMAGE[kind]
    damage(write_folder(tmp_path / "model"))
    refuse(tmp_path / "model", words)


@pytest.mark.parametrize("kind", SHARD_DAMAGE)
def test_damaged_shards_are_refused_with_file_and_tensor(tmp_path: Path, kind: str) -> None:
    damage, words = SHARD_DAMAGE[kind]
    damage(write_shards(tmp_path / "model"))
    refuse(tmp_path / "model", words)


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    refuse(tmp_path / "nowhere", ["does not exist", "model folder"])
    (tmp_path / "file").write_text("")
    refuse(tmp_path / "file", ["is a file", "config.json"])


def test_every_single_flipped_header_byte_is_harmless_or_refused(tmp_path: Path) -> None:
    """No flip of a byte in the header crashes with anything but CheckpointError, or yields a view out of bounds."""
    write_folder(tmp_path)
    data = (tmp_path / SINGLE).read_bytes()
    length = int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(0)
    for position in rng.integers(0, 8 + length, 300).tolist():
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(0, 8))
        (tmp_path / SINGLE).write_bytes(flipped)
        try:
            checkpoint = Checkpoint.open(tmp_path)
        except CheckpointError:
            continue
        for name in checkpoint.names():
            checkpoint.tensor(name).sum()
