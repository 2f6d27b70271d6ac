"""GPTQ and AWQ checkpoints: read exactly as they were packed, kept so for who asks, refused when they are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from isotoken.core.checkpoint import Checkpoint, QuantizedMatrix
from isotoken.core.types import CheckpointError
from numpy.typing import NDArray
from safetensors.numpy import save_file

from .packed import Quantized, pack_awq, pack_gptq, quantize

Array = NDArray[Any]
H, WIDE, V = 32, 48, 40  # hidden, intermediate, vocabulary
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": V,
    "hidden_size": H,
    "intermediate_size": WIDE,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
LAYER = "model.layers.0."
MATRICES = {
    "q_proj": (f"{LAYER}self_attn.q_proj", (H, H)),
    "k_proj": (f"{LAYER}self_attn.k_proj", (H // 2, H)),
    "v_proj": (f"{LAYER}self_attn.v_proj", (H // 2, H)),
    "o_proj": (f"{LAYER}self_attn.o_proj", (H, H)),
    "gate_proj": (f"{LAYER}mlp.gate_proj", (WIDE, H)),
    "up_proj": (f"{LAYER}mlp.up_proj", (WIDE, H)),
    "down_proj": (f"{LAYER}mlp.down_proj", (H, WIDE)),
}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}
Made = dict[str, Quantized]


def make(config: dict[str, Any], *, symmetric: bool = True, order: bool = False, dtype: Any = np.float16) -> Made:
    """A quantised matrix for each of MATRICES."""
    rng = np.random.default_rng(3)
    made = {}
    for name, (_, shape) in MATRICES.items():
        size = config["group_size"] if config["group_size"] > 0 else shape[1]
        places = rng.permutation(shape[1]) if order else None
        weight = rng.standard_normal(shape) + 0.3
        made[name] = quantize(weight, config["bits"], size, symmetric=symmetric, order=places, dtype=dtype)
    return made


def pack(made: Made, config: dict[str, Any], **how: Any) -> dict[str, Array]:
    """All tensors of the file."""
    rng = np.random.default_rng(4)
    tensors = {
        "model.embed_tokens.weight": rng.standard_normal((V, H)).astype(np.float16),
        "lm_head.weight": rng.standard_normal((V, H)).astype(np.float16),
        "model.norm.weight": np.ones(H, np.float16),
        f"{LAYER}input_layernorm.weight": np.ones(H, np.float16),
        f"{LAYER}post_attention_layernorm.weight": np.ones(H, np.float16),
    }
    for name, matrix in made.items():
        parts = pack_awq(matrix) if config["quant_method"] == "awq" else pack_gptq(matrix, config["bits"], **how)
        tensors |= {f"{MATRICES[name][0]}.{kind}": part for kind, part in parts.items()}
    return tensors


def write(folder: Path, tensors: dict[str, Array], config: dict[str, Any] | None) -> Path:
    folder.mkdir(exist_ok=True)
    whole = CONFIG if config is None else {**CONFIG, "quantization_config": config}
    (folder / "config.json").write_text(json.dumps(whole))
    save_file(tensors, folder / "model.safetensors")
    return folder


def restored(matrix: QuantizedMatrix) -> NDArray[np.float32]:
    """What QuantizedMatrix says it stands for, term by term."""
    outputs, inputs = matrix.values.shape
    weight = np.empty((outputs, inputs), np.float32)
    for k in range(inputs):
        place = k if matrix.order is None else matrix.order[k]
        scale = matrix.scales[:, k // matrix.group_size].astype(np.float32)
        weight[:, place] = matrix.values[:, k].astype(np.float32) * scale
    return weight


def check(folder: Path, made: Made, bits: int | None) -> Checkpoint:
    """Every matrix is exactly what was packed, as floats and as numbers of so many bits (None: not as numbers)."""
    checkpoint = Checkpoint.open(folder)
    for name, matrix in made.items():
        expected = matrix.weight()
        got = checkpoint.tensor(f"layers.0.{name}")
        assert got.dtype == np.float32
        assert np.array_equal(got, expected), name
        assert checkpoint.shape(f"layers.0.{name}") == expected.shape
        assert checkpoint.is_packed(f"layers.0.{name}")
        numbers = checkpoint.quantized(f"layers.0.{name}")
        assert (None if numbers is None else numbers.bits) == bits
        if numbers is not None:
            assert np.array_equal(restored(numbers), expected), name
            assert numbers.values.dtype == np.int8
            assert numbers.values.flags.c_contiguous
    return checkpoint


@pytest.mark.parametrize("group_size", [16, 32, -1])
@pytest.mark.parametrize(("bits", "symmetric", "kept"), [(4, True, 4), (4, False, 8), (8, True, 8), (8, False, None)])
def test_gptq_is_read_exactly(tmp_path: Path, bits: int, symmetric: bool, kept: int | None, group_size: int) -> None:
    config = {**GPTQ, "bits": bits, "group_size": group_size, "sym": symmetric}
    made = make(config, symmetric=symmetric)
    check(write(tmp_path, pack(made, config), config), made, kept)


def test_the_second_format_of_gptq_stores_zero_points_as_they_are(tmp_path: Path) -> None:
    for key in ("checkpoint_format", "format"):
        config = {**GPTQ, key: "gptq_v2", "sym": False}
        made = make(config, symmetric=False)
        check(write(tmp_path, pack(made, config, version=2), config), made, 8)


def test_a_zero_point_of_zero_wraps_around_in_the_first_format(tmp_path: Path) -> None:
    made = make(GPTQ)
    zeros = made["down_proj"].zeros.copy()
    zeros[3, 1] = 0
    made["down_proj"] = replace(made["down_proj"], zeros=zeros)
    folder = write(tmp_path, pack(made, GPTQ), GPTQ)
    assert np.array_equal(Checkpoint.open(folder).tensor("layers.0.down_proj"), made["down_proj"].weight())


@pytest.mark.parametrize("symmetric", [True, False])
def test_groups_of_scattered_inputs_come_with_their_order(tmp_path: Path, symmetric: bool) -> None:
    config = {**GPTQ, "desc_act": True, "sym": symmetric}
    made = make(config, symmetric=symmetric, order=True)
    checkpoint = check(write(tmp_path, pack(made, config), config), made, 4 if symmetric else 8)
    numbers = checkpoint.quantized("layers.0.o_proj")
    assert numbers is not None
    assert numbers.order is not None
    assert sorted(numbers.order.tolist()) == list(range(H))
    x = np.random.default_rng(5).standard_normal(H).astype(np.float32)
    product = (numbers.values * np.repeat(numbers.scales.astype(np.float32), 16, axis=1)) @ x[numbers.order]
    assert np.allclose(product, made["o_proj"].weight() @ x, atol=1e-4)


def test_groups_that_differ_in_size_are_floats_only(tmp_path: Path) -> None:
    made = make(GPTQ)
    groups = made["q_proj"].groups.copy()
    groups[:2] = 1
    made["q_proj"] = replace(made["q_proj"], groups=groups)
    checkpoint = Checkpoint.open(write(tmp_path, pack(made, GPTQ), GPTQ))
    assert checkpoint.quantized("layers.0.q_proj") is None
    assert np.array_equal(checkpoint.tensor("layers.0.q_proj"), made["q_proj"].weight())


def test_gptq_without_g_idx_has_groups_of_neighbours(tmp_path: Path) -> None:
    made = make(GPTQ)
    check(write(tmp_path, pack(made, GPTQ, g_idx=False), GPTQ), made, 4)


def test_a_last_group_may_be_short(tmp_path: Path) -> None:
    config = {**GPTQ, "group_size": 20}
    made = make(config)
    numbers = check(write(tmp_path, pack(made, config), config), made, 4).quantized("layers.0.down_proj")
    assert numbers is not None
    assert numbers.scales.shape == (H, 3)  # of 20, 20 and 8 inputs


@pytest.mark.parametrize("group_size", [16, -1])
def test_awq_is_read_exactly(tmp_path: Path, group_size: int) -> None:
    config = {**AWQ, "group_size": group_size}
    made = make(config, symmetric=False)
    checkpoint = check(write(tmp_path, pack(made, config), config), made, 8)
    assert str(checkpoint.packing).startswith("awq, 4 bits")


def test_older_names_of_awqs_settings(tmp_path: Path) -> None:
    made = make(AWQ, symmetric=False)
    older = {"quant_method": "awq", "w_bit": 4, "q_group_size": 16, "version": "GEMM"}
    check(write(tmp_path, pack(made, AWQ), older), made, 8)


def test_scales_in_bfloat16_and_float32(tmp_path: Path) -> None:
    for dtype in (ml_dtypes.bfloat16, np.float32):
        made = make(GPTQ, dtype=dtype)
        folder = write(tmp_path, pack(made, GPTQ), GPTQ)
        numbers = check(folder, made, 4).quantized("layers.0.up_proj")
        assert numbers is not None
        assert numbers.scales.dtype == dtype


def test_bits_and_groups_may_differ_between_matrices(tmp_path: Path) -> None:
    config = {**GPTQ, "dynamic": {r"+:.*mlp.*": {"bits": 8, "group_size": 8}, r"-:.*k_proj": {}}}
    made = make(GPTQ)
    wide = make({**GPTQ, "bits": 8, "group_size": 8})
    tensors = pack(made, GPTQ) | {n: t for n, t in pack(wide, {**GPTQ, "bits": 8}).items() if ".mlp." in n}
    plain = made.pop("k_proj").weight()
    tensors = {name: tensor for name, tensor in tensors.items() if ".k_proj." not in name}
    tensors[f"{MATRICES['k_proj'][0]}.weight"] = plain
    checkpoint = Checkpoint.open(write(tmp_path, tensors, config))
    for name, matrix in made.items():
        expected = wide[name] if name in ("gate_proj", "up_proj", "down_proj") else matrix
        assert np.array_equal(checkpoint.tensor(f"layers.0.{name}"), expected.weight()), name
    assert not checkpoint.is_packed("layers.0.k_proj")
    assert checkpoint.quantized("layers.0.k_proj") is None
    assert np.array_equal(checkpoint.tensor("layers.0.k_proj"), plain)


@pytest.mark.parametrize("config", [GPTQ, AWQ], ids=lambda config: config["quant_method"])
def test_fused_projections_are_seen_apart(tmp_path: Path, config: dict[str, Any]) -> None:
    apart = make(config, symmetric=False)
    fused: Made = {}
    for name, parts in (("qkv_proj", ("q_proj", "k_proj", "v_proj")), ("gate_up_proj", ("gate_proj", "up_proj"))):
        given = [apart[part] for part in parts]
        fused[name] = Quantized(
            *(np.concatenate([getattr(part, field) for part in given]) for field in ("q", "zeros", "scales")),
            given[0].groups,
        )
    packer = pack_awq if config["quant_method"] == "awq" else lambda matrix: pack_gptq(matrix, 4)
    tensors = {n: t for n, t in pack(apart, config).items() if not any(f".{p}_proj." in n for p in "qkv")}
    tensors = {n: t for n, t in tensors.items() if ".gate_proj." not in n and ".up_proj." not in n}
    for name, block in (("qkv_proj", "self_attn"), ("gate_up_proj", "mlp")):
        tensors |= {f"{LAYER}{block}.{name}.{kind}": part for kind, part in packer(fused[name]).items()}
    read: list[tuple[str, int]] = []
    folder = write(tmp_path, tensors, config)
    checkpoint = check(folder, apart, 8)
    checkpoint = Checkpoint.open(folder, on_read=lambda name, num_bytes: read.append((name, num_bytes)))
    for name in checkpoint.names():
        checkpoint.tensor(name)
        checkpoint.tensor(name)
    assert sum(num_bytes for _, num_bytes in read) == checkpoint.num_bytes
    assert checkpoint.unused_names == ()


def test_what_a_packed_checkpoint_says_of_itself(tmp_path: Path) -> None:
    folder = write(tmp_path, pack(make(GPTQ), GPTQ), GPTQ)
    checkpoint = Checkpoint.open(folder)
    assert str(checkpoint.packing) == "gptq, 4 bits in groups of 16"
    assert checkpoint.dtype == "float16"
    data = (folder / "model.safetensors").stat().st_size
    header = 8 + int.from_bytes((folder / "model.safetensors").read_bytes()[:8], "little")
    assert checkpoint.num_bytes == data - header
    with pytest.raises(ValueError, match=r"layers.0.up_proj is packed \(gptq, 4 bits"):
        checkpoint.location("layers.0.up_proj")
    assert checkpoint.location("norm").num_bytes == 2 * H
    first = checkpoint.content_hash()
    assert first == Checkpoint.open(folder).content_hash()
    made = make(GPTQ)
    made["up_proj"].q[0, 0] ^= 1
    assert Checkpoint.open(write(tmp_path, pack(made, GPTQ), GPTQ)).content_hash() != first


# --- damage -------------------------------------------------------------------------------------

UP = f"{MATRICES['up_proj'][0]}."
Tensors = dict[str, Array]


def changed(kind: str, change: Callable[[Array], Array]) -> Callable[[Tensors], Tensors]:
    """Replace one part of up_proj."""
    return lambda tensors: {**tensors, UP + kind: np.ascontiguousarray(change(tensors[UP + kind]))}


def dropped(kind: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name != UP + kind}


def put(value: int) -> Callable[[Array], Array]:
    def change(groups: Array) -> Array:
        return np.where(np.arange(len(groups)) == 5, np.int32(value), groups)

    return change


DAMAGE: dict[str, tuple[Callable[[Tensors], Tensors], dict[str, Any], list[str]]] = {
    "no scales": (dropped("scales"), {}, ["up_proj.scales'", "gptq, 4 bits in groups of 16", "incomplete"]),
    "no zero points": (dropped("qzeros"), {}, ["up_proj.qzeros'", "incomplete"]),
    "no words": (dropped("qweight"), {}, ["up_proj.weight'", "layers.0.up_proj", "incomplete"]),
    "no groups though reordered": (dropped("g_idx"), {"desc_act": True}, ["up_proj.g_idx'", "incomplete"]),
    "words of another shape": (
        changed("qweight", lambda words: words.T),
        {},
        ["up_proj.qweight'", "[48, 4]", "expected [4, 48]", "48 outputs, 32 inputs"],
    ),
    "words of other bits": (lambda tensors: tensors, {"bits": 8}, ["q_proj.qweight'", "[4, 32]", "expected [8, 32]"]),
    "groups of another size": (
        lambda tensors: tensors,
        {"group_size": 32},
        ["q_proj.qzeros'", "[2, 4]", "expected [1, 4]", "groups of 32"],
    ),
    "too few scales": (changed("scales", lambda s: s[:1]), {}, ["up_proj.scales'", "[1, 48]", "expected [2, 48]"]),
    "too many zero points": (
        changed("qzeros", lambda z: np.concatenate([z, z])),
        {},
        ["up_proj.qzeros'", "[4, 6]", "expected [2, 6]"],
    ),
    "groups of too few inputs": (changed("g_idx", lambda g: g[:-1]), {}, ["up_proj.g_idx'", "[31]", "expected [32]"]),
    "a group that is not there": (changed("g_idx", put(2)), {}, ["up_proj.g_idx'", "group 2", "0 to 1"]),
    "a negative group": (changed("g_idx", put(-1)), {}, ["up_proj.g_idx'", "group -1", "0 to 1"]),
    "words of 64 bits": (
        changed("qweight", lambda words: words.astype(np.int64)),
        {},
        ["up_proj.qweight'", "stored as I64", "expected I32"],
    ),
    "whole scales": (
        changed("scales", lambda scales: scales.astype(np.int32)),
        {},
        ["up_proj.scales'", "stored as I32", "F16"],
    ),
    "a scalar for words": (changed("qweight", lambda words: words[0, 0]), {"dynamic": {"x": {}}}, ["up_proj.qweight'"]),
    "mixed sizes that fit nothing": (
        changed("qweight", lambda words: words[:3]),
        {"dynamic": {"x": {}}},
        ["up_proj.qweight'", "[3, 48]"],
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_with_file_and_tensor(tmp_path: Path, kind: str) -> None:
    damage, settings, words = DAMAGE[kind]
    folder = write(tmp_path, damage(pack(make(GPTQ), GPTQ)), {**GPTQ, **settings})
    refuse(folder, [*words, "model.safetensors"])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("gptq", ["quantization_config", "'gptq'", "a JSON object"]),
        ({"bits": 4}, ["quant_method", "missing", "'gptq' or 'awq'"]),
        ({"quant_method": "fp8"}, ["quant_method", "'fp8'", "'gptq' or 'awq'", "original"]),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, ["'bitsandbytes'"]),
        ({**GPTQ, "bits": None}, ["'bits' is missing"]),
        ({**GPTQ, "bits": "4"}, ["'bits' is '4'"]),
        ({**GPTQ, "bits": 3}, ["'bits' is 3", "4 or 8"]),
        ({**GPTQ, "bits": 2}, ["'bits' is 2", "4 or 8"]),
        ({**GPTQ, "group_size": 0}, ["'group_size' is 0", "-1 for all inputs"]),
        ({**GPTQ, "group_size": -2}, ["'group_size' is -2"]),
        ({**GPTQ, "group_size": None}, ["'group_size' is missing"]),
        ({**GPTQ, "desc_act": "no"}, ["'desc_act' is 'no'"]),
        ({**GPTQ, "checkpoint_format": "marlin"}, ["'checkpoint_format' is 'marlin'", "gptq, gptq_v2"]),
        ({**GPTQ, "checkpoint_format": ["gptq"]}, ["['gptq']", "gptq, gptq_v2"]),
        ({**AWQ, "bits": 8}, ["'bits' is 8", "4, which is all that AWQ packs"]),
        ({**AWQ, "version": "gemv"}, ["'version' is 'gemv'", "gemm"]),
        ({**AWQ, "version": 3}, ["'version' is 3", "gemm"]),
    ],
    ids=str,
)
def test_a_form_that_is_not_read_is_refused(tmp_path: Path, config: Any, words: list[str]) -> None:
    refuse(write(tmp_path, pack(make(GPTQ), GPTQ), config), [*words, "config.json"])


def test_packed_tensors_need_a_config_that_says_how(tmp_path: Path) -> None:
    folder = write(tmp_path, pack(make(GPTQ), GPTQ), None)
    refuse(folder, ["q_proj.weight'", "q_proj.qweight' is, which is quantised", "'quantization_config'"])


def test_sizes_that_words_cannot_hold(tmp_path: Path) -> None:
    made = make({**GPTQ, "bits": 8, "group_size": -1})
    tensors = pack(made, {**GPTQ, "bits": 8})
    config = {**CONFIG, "intermediate_size": 50, "quantization_config": {**GPTQ, "bits": 8, "group_size": -1}}
    write(tmp_path, tensors, GPTQ)
    (tmp_path / "config.json").write_text(json.dumps(config))
    refuse(tmp_path, ["gate_proj.qweight'", "50 outputs", "multiples of 4"])


@pytest.mark.parametrize("config", [{**GPTQ, "desc_act": True}, AWQ], ids=lambda config: config["quant_method"])
def test_every_flipped_byte_is_refused_or_read_within_bounds(tmp_path: Path, config: dict[str, Any]) -> None:
    """In header or data: nothing but CheckpointError, and shapes that are those of the model."""
    write(tmp_path, pack(make(config, order="desc_act" in config), config), config)
    file = tmp_path / "model.safetensors"
    data = file.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(data), 150).tolist():
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(0, 8))
        file.write_bytes(flipped)
        try:
            checkpoint = Checkpoint.open(tmp_path)
        except CheckpointError:
            continue
        for name, (_, shape) in MATRICES.items():
            assert checkpoint.tensor(f"layers.0.{name}").shape == shape
            numbers = checkpoint.quantized(f"layers.0.{name}")
            assert numbers is None or numbers.values.shape == shape


def refuse(path: Path, words: list[str]) -> None:
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(path)
    for word in [*words, str(path)]:
        assert word in str(error.value)
