"""Quantised weights, other dtypes, options and their errors, and the arrays that describe ragged rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isotoken.backends.onnx_graph import Graph, GraphOptions, build_graph, ragged_inputs
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.types import Unsupported
from isotoken.kernels.cpu.quantize import dequantize, quantize, quantize_fp8, quantize_rows
from safetensors.numpy import load_file, save_file

from ..families import Case
from .runtime import Array, Rows, play, session_in_memory, worst_difference

CaseOf = Callable[[str], Case]
EXACT = 2e-5  # of the largest logit
ROUNDED_ACTIVATIONS = 0.1


def logits_of(case: Case, folder: Path, **options: Any) -> list[Array]:
    graph = graph_of(case, folder, **options)
    session, _files = session_in_memory(graph)
    rows = Rows(graph, session, 3, case.max_model_len)
    return play(rows, case.sequences[-3:], [len(prompt) for prompt in case.prompts[-3:]])


def graph_of(case: Case, folder: Path, **options: Any) -> Graph:
    return build_graph(Checkpoint.open(folder), GraphOptions(max_model_len=case.max_model_len, **options))


def restored_checkpoint(case: Case, folder: Path, restore: Callable[[Array], Array]) -> Path:
    """A copy of a checkpoint, its matrices (but embeddings and routers) quantised and restored."""
    folder.mkdir()
    (folder / "config.json").write_text((case.folder / "config.json").read_text())
    tensors = load_file(case.folder / "model.safetensors")
    skipped = ("embed_tokens", "norm", "mlp.gate.weight")
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and not any(each in name for each in skipped):
            tensors[name] = restore(tensor).astype(tensor.dtype)
    save_file(tensors, folder / "model.safetensors")
    return folder


def by_blocks(bits: int) -> Callable[[Array], Array]:
    return lambda weight: dequantize(*quantize(weight, bits), bits, weight.shape[1])


def by_rows(weight: Array) -> Array:
    values, scales = quantize_rows(weight)
    return values * scales[:, None]


def by_fp8(weight: Array) -> Array:
    values, scale = quantize_fp8(weight)
    return values.astype(np.float32) * scale


@pytest.mark.parametrize(
    ("options", "restore"),
    [
        ({"quantization": "int8", "accuracy_level": 1}, by_blocks(8)),
        ({"quantization": "int4", "accuracy_level": 1}, by_blocks(4)),
        ({"quantization": "int4", "linear": "qdq"}, by_blocks(4)),
        ({"quantization": "int8-rows"}, by_rows),
        ({"quantization": "fp8", "linear": "qdq"}, by_fp8),
    ],
    ids=["nbits-int8", "nbits-int4", "qdq-int4", "qdq-int8-rows", "qdq-fp8"],
)
@pytest.mark.parametrize("family", ["llama-biases", "qwen2"])  # qwen2: embeddings stay as they are, their head does not
def test_quantised_graphs_compute_with_the_defined_weights(
    family: str, options: dict[str, Any], restore: Callable[[Array], Array], family_case: CaseOf, tmp_path: Path
) -> None:
    case = family_case(family)
    restored = restored_checkpoint(case, tmp_path / "restored", restore)
    expected = logits_of(case, restored)
    if family == "qwen2":  # the head of a tied model is the quantised table, and nothing else of it is
        expected = with_head(case, restored, restore)
    assert worst_difference(logits_of(case, case.folder, **options), expected) <= EXACT


def with_head(case: Case, folder: Path, restore: Callable[[Array], Array]) -> list[Array]:
    """The logits of a tied model whose head has been untied from the table, quantised and restored."""
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = restore(tensors["model.embed_tokens.weight"]).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    config = (folder / "config.json").read_text().replace('"tie_word_embeddings": true', '"tie_word_embeddings": false')
    (folder / "config.json").write_text(config)
    return logits_of(case, folder)


@pytest.mark.parametrize(("bits", "quantization"), [(8, "int8"), (4, "int4")])
def test_rounded_activations_stay_near_the_defined_weights(
    bits: int, quantization: str, family_case: CaseOf, tmp_path: Path
) -> None:
    case = family_case("llama-biases")
    expected = logits_of(case, restored_checkpoint(case, tmp_path / "restored", by_blocks(bits)))
    difference = worst_difference(logits_of(case, case.folder, quantization=quantization), expected)
    assert EXACT < difference <= ROUNDED_ACTIVATIONS


@pytest.mark.parametrize("form", ["gqa", "standard", "standard-mask"])
@pytest.mark.parametrize("options", [{"kv_dtype": "float16"}, {"dtype": "float16"}], ids=["kv", "compute"])
@pytest.mark.parametrize("family", ["llama-biases", "gemma2", "phi3"])
def test_float16(family: str, options: dict[str, str], form: str, family_case: CaseOf) -> None:
    case = family_case(family)
    difference = worst_difference(logits_of(case, case.folder, attention=form, **options), case.logits[-3:])
    assert EXACT < difference <= 1e-2
    graph = graph_of(case, case.folder, attention=form, **options)
    cache = {port.dtype for port in (*graph.inputs, *graph.outputs) if port.name.startswith(("past_", "present_"))}
    assert cache == {"float16"}
    assert next(port for port in graph.outputs if port.name == "logits").dtype == "float32"


def test_a_mixture_of_experts_in_float16_agrees_where_no_expert_is_a_near_tie(family_case: CaseOf) -> None:
    case = family_case("qwen3-moe")
    logits = logits_of(case, case.folder, dtype="float16")
    near = [np.abs(got - want[: len(got)]).max(axis=-1) for got, want in zip(logits, case.logits[-3:], strict=True)]
    assert np.median(np.concatenate(near)) <= 0.02 * max(np.abs(want).max() for want in case.logits[-3:])


@pytest.mark.parametrize("form", ["gqa", "standard-mask"])
def test_equal_experts_are_chosen_from_the_lowest_index(form: str, family_case: CaseOf, tmp_path: Path) -> None:
    """With a router of zeros all six are equal and the first three are taken."""
    case = family_case("qwen3-moe")
    (tmp_path / "config.json").write_text((case.folder / "config.json").read_text())
    tensors = load_file(case.folder / "model.safetensors")
    for name in list(tensors):
        if name.endswith("mlp.gate.weight"):
            tensors[name] = np.zeros_like(tensors[name])
    save_file(tensors, tmp_path / "model.safetensors")
    expected = logits_of(case, tmp_path, attention=form)
    for name in list(tensors):  # of six, three are chosen: what the others hold must not matter
        if any(f"experts.{expert}." in name for expert in (3, 4, 5)):
            tensors[name] = np.full_like(tensors[name], 100.0)
    save_file(tensors, tmp_path / "model.safetensors")
    assert worst_difference(logits_of(case, tmp_path, attention=form), expected) == 0
    for name in list(tensors):
        if "experts.2." in name:
            tensors[name] = np.zeros_like(tensors[name])
    save_file(tensors, tmp_path / "model.safetensors")
    assert worst_difference(logits_of(case, tmp_path, attention=form), expected) > 0.01


@pytest.mark.parametrize("form", ["gqa", "standard", "standard-mask"])
def test_rows_of_fixed_length(form: str, family_case: CaseOf) -> None:
    case = family_case("mistral")
    options = {"attention": form, "row_len": case.max_model_len + 64}
    graph = graph_of(case, case.folder, **options)
    assert all(128 in port.shape for port in graph.inputs if port.name.startswith("past_"))
    assert worst_difference(logits_of(case, case.folder, **options), case.logits[-3:]) <= EXACT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "flash"}, "attention is 'flash': expected 'gqa' or 'standard'"),
        ({"dtype": "float64"}, "dtype is 'float64': expected 'float32' or"),
        ({"kv_dtype": "int8"}, "kv_dtype is 'int8'"),
        ({"quantization": "int2"}, "quantization is 'int2': expected 'int4' or 'int8' with linear='nbits'"),
        ({"linear": "gemm", "quantization": "int8"}, "quantization is 'int8': expected None with linear='gemm'"),
        (
            {"attention": "standard-mask", "quantization": "int8"},
            "quantization is 'int8': expected 'int4' or 'int8-rows' or 'fp8' with linear='qdq'",
        ),
        ({"linear": "qdq"}, "quantization is None: expected 'int4' or 'int8-rows' or 'fp8' with linear='qdq'"),
        ({"accuracy_level": 5}, "accuracy_level is 5: expected 0 to 4"),
        ({"attention": "paged"}, "dtype is 'float32': expected 'float16' or 'bfloat16' with attention='paged'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphOptions(**options)


def test_a_context_beyond_the_models_is_refused(family_case: CaseOf) -> None:
    checkpoint = Checkpoint.open(family_case("llama").folder)
    with pytest.raises(ValueError, match="max_model_len is 65: expected 1 to 64"):
        build_graph(checkpoint, GraphOptions(max_model_len=65))


def test_blocks_that_do_not_divide_the_inputs_are_refused_where_they_must(family_case: CaseOf) -> None:
    checkpoint = Checkpoint.open(family_case("qwen3-moe").folder)
    with pytest.raises(Unsupported, match="has 40 inputs, which blocks of 32 do not divide"):
        build_graph(checkpoint, GraphOptions(linear="qdq", quantization="int4"))
    build_graph(checkpoint, GraphOptions(linear="nbits", quantization="int4"))


@given(rows=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30)), min_size=1, max_size=6), masked=st.booleans())
def test_ragged_inputs_put_each_token_where_it_is_found_again(rows: list[tuple[int, int]], masked: bool) -> None:
    query_lens, past_lens = map(list, zip(*rows, strict=True))
    inputs = ragged_inputs(query_lens, past_lens, masked=masked)
    num_tokens, width = sum(query_lens), max(query_lens)
    queries = inputs["kv_indices" if masked else "query_indices"]
    assert queries.shape == inputs["kv_indices"].shape == (len(rows), width)
    assert (queries.reshape(-1)[inputs["flat_indices"]] == np.arange(num_tokens)).all()
    begin = 0
    for row, (length, past) in enumerate(rows):
        own = np.arange(begin, begin + length)
        assert (inputs["kv_indices"][row, :length] == own).all()
        if not masked:
            assert (queries[row, width - length :] == own).all()
            assert inputs["nonpad_kv_seqlen"][row] == past + length
        assert (inputs["positions"][own] == past + np.arange(length)).all()
        assert inputs["write_indices"][row] == past
        begin += length
    assert 0 <= queries.min() <= queries.max() < num_tokens
    assert 0 <= inputs["kv_indices"].min() <= inputs["kv_indices"].max() < num_tokens
    assert all(array.dtype == np.int64 for array in inputs.values())
