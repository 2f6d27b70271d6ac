"""The graph in TensorRT's dialect: what its parser reads out of standard operators beyond the standard."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper

from ..onnx_graph import Graph

DECOMPOSABLE = "TRT_decomposable"
"""Attribute of Attention, for TensorRT's parser alone: it may take several kernels where no fused one fits (float32,
odd head sizes). Without it such a build fails."""


def to_tensorrt(graph: Graph) -> bytes:
    """Return the graph as a ModelProto for TensorRT's parser; the weights stay outside.

    Attention's scale moves to the queries: the parser would spread it over queries and keys, and the keys are the whole
    cache.
    """
    model = onnx.ModelProto.FromString(graph.to_bytes())
    nodes = [new for node in model.graph.node for new in _translated(node, model.graph)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised


def _translated(node: onnx.NodeProto, graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    if node.op_type != "Attention":
        yield node
        return
    attributes = {attribute.name: attribute for attribute in node.attribute}
    scaled = f"{node.name}.query"
    yield helper.make_node("Mul", [node.input[0], _constant(graph, attributes["scale"].f)], [scaled], name=scaled)
    node.input[0] = scaled
    attributes["scale"].f = 1.0
    node.attribute.append(helper.make_attribute(DECOMPOSABLE, 1))
    yield node


def _constant(graph: onnx.GraphProto, value: float) -> str:
    """Return the name of a scalar in the cache's dtype, which queries have too."""
    name = f"attention_scale_{value!r}"
    if all(known.name != name for known in graph.initializer):
        cache = next(port for port in graph.input if port.name == "past_key.0")
        graph.initializer.append(helper.make_tensor(name, cache.type.tensor_type.elem_type, (), [value]))
    return name
