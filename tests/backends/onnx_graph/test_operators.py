"""Which operators a form uses: those of TensorRT's parser in `standard-mask`, and contrib ones as their schemas say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from isotoken.backends.onnx_graph import Graph, GraphOptions, build_graph
from isotoken.core.checkpoint import Checkpoint
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from ..families import FAMILIES, Case

CaseOf = Callable[[str], Case]

TENSORRT = frozenset({  # of its parser's table of operators (10.15), as far as a decoder could want them
    "Add", "And", "Attention", "Cast", "Concat", "DequantizeLinear", "Div", "Gather", "Gelu", "Gemm", "Greater",
    "LessOrEqual", "MatMul", "Mul", "RMSNormalization", "Range", "ReduceSum", "Relu", "Reshape", "RotaryEmbedding",
    "ScatterElements", "Shape", "Sigmoid", "Softmax", "Squeeze", "Sub", "Tanh", "TensorScatter", "TopK", "Transpose",
    "Unsqueeze", "Where",
})  # fmt: skip
CONTRIB_SCHEMAS = {
    schema.name: schema for schema in ort_state.get_all_operator_schema() if schema.domain == "com.microsoft"
}
ONNX_TYPES = {
    "FLOAT": "tensor(float)", "FLOAT16": "tensor(float16)", "BFLOAT16": "tensor(bfloat16)", "INT32": "tensor(int32)",
    "INT64": "tensor(int64)", "UINT8": "tensor(uint8)",
}  # fmt: skip


def graph_of(case: Case, **options: Any) -> Graph:
    return build_graph(Checkpoint.open(case.folder), GraphOptions(max_model_len=case.max_model_len, **options))


@pytest.mark.parametrize("family", FAMILIES)
def test_tensorrt_parses_every_operator_of_standard_mask(family: str, family_case: CaseOf) -> None:
    graph = graph_of(family_case(family), attention="standard-mask", row_len=128)
    nodes = list(graph.model.graph)
    assert {node.domain for node in nodes} == {""}
    assert {node.op_type for node in nodes} <= TENSORRT
    for node in nodes:
        match node.op_type:
            case "Attention":
                assert [value is not None for value in node.inputs] == [True] * 4  # q, k, v and a mask
                assert node.attributes.keys() == {"scale"}
            case "TensorScatter":
                assert node.attributes["axis"].value == -2
            case "TopK" | "Unsqueeze" | "Squeeze":
                assert node.inputs[1].is_initializer()
    assert not {"Shape", "Range"} & {
        node.op_type for node in nodes
    }  # no size is computed when rows are of fixed length


@pytest.mark.parametrize("quantization", ["int8-rows", "fp8"])
def test_tensorrt_parses_quantised_weights(quantization: str, family_case: CaseOf) -> None:
    graph = graph_of(family_case("gemma2"), attention="standard-mask", quantization=quantization)
    nodes = list(graph.model.graph)
    assert {node.op_type for node in nodes} <= TENSORRT
    restored = [node for node in nodes if node.op_type == "DequantizeLinear"]
    assert len(restored) == 3 * 7 + 1
    assert all(len(node.inputs) == 2 for node in restored)  # no zero point
    assert all((node.inputs[1].const_value.numpy() > 0).all() for node in restored)  # which it demands of scales


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "gqa"},
        {"attention": "gqa", "dtype": "float16"},
        {"attention": "gqa", "dtype": "bfloat16"},
        {"attention": "gqa", "kv_dtype": "float16"},
        {"attention": "gqa", "quantization": "int4"},
        {"attention": "standard", "quantization": "int8"},
        {"attention": "paged", "dtype": "float16"},
        {"attention": "paged", "dtype": "bfloat16"},
    ],
    ids=lambda options: "-".join(options.values()),
)
@pytest.mark.parametrize("family", ["llama-biases", "phi3", "gemma2", "gemma3", "qwen3-moe", "smollm3-window"])
def test_contrib_operators_are_used_as_onnxruntime_registers_them(
    family: str, options: dict[str, str], family_case: CaseOf, tmp_path: Path
) -> None:
    graph = graph_of(family_case(family), **options)
    contrib = [node for node in graph.model.graph if node.domain == "com.microsoft"]
    assert contrib
    for node in contrib:
        check_schema(node, CONTRIB_SCHEMAS[node.op_type])
    onnx.checker.check_model(graph.save(tmp_path), full_check=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("form", ["gqa", "standard", "standard-mask"])
@pytest.mark.parametrize("family", ["llama-biases", "gemma2", "qwen3-moe", "granite"])
def test_types_fit_together_in_every_dtype(
    family: str, form: str, dtype: str, family_case: CaseOf, tmp_path: Path
) -> None:
    onnx.checker.check_model(graph_of(family_case(family), attention=form, dtype=dtype).save(tmp_path), full_check=True)


@pytest.mark.parametrize("form", ["gqa", "standard-mask"])
def test_building_twice_gives_the_same_bytes(form: str, family_case: CaseOf) -> None:
    """Compiled engines are kept under a hash of the graph."""
    first, second = (graph_of(family_case("qwen3-moe"), attention=form).to_bytes() for _ in range(2))
    assert first == second
    other = graph_of(family_case("qwen3-moe"), attention=form, dtype="float16").to_bytes()
    assert other != first


def check_schema(node: ir.Node, schema: Any) -> None:
    assert node.attributes.keys() <= schema.attributes.keys()
    assert {name for name, attribute in schema.attributes.items() if attribute.required} <= node.attributes.keys()
    kinds = {"FLOAT": "FLOAT", "INT": "INT", "STRING": "STRING"}
    for name, attribute in node.attributes.items():
        assert kinds[attribute.type.name] == schema.attributes[name].type.name
    assert len(node.inputs) <= len(schema.inputs)
    assert len(node.outputs) <= len(schema.outputs)
    types = {constraint.type_param_str: set(constraint.allowed_type_strs) for constraint in schema.type_constraints}
    bound: dict[str, str] = {}
    for i, parameter in enumerate(schema.inputs):
        value = node.inputs[i] if i < len(node.inputs) else None
        if value is None:
            assert parameter.option == schema.inputs[0].option.__class__.Optional, parameter.name
        elif value.dtype is not None:  # of what nodes compute the builder knows no types; the checker infers them
            given = ONNX_TYPES[value.dtype.name]
            assert given in types.get(parameter.typeStr, {parameter.typeStr}), parameter.name
            assert bound.setdefault(parameter.typeStr, given) == given, parameter.name
