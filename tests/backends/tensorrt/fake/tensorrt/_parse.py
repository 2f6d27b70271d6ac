"""Parsers: an ONNX graph and the addresses of its weights, refused where TensorRT's parser refuses."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from ._values import ErrorCode, ILogger
from ._world import Reporter

if TYPE_CHECKING:
    from ._build import INetworkDefinition
    from ._run import Refitter

OPERATORS = frozenset(
    """
    Add And Attention Cast Concat DequantizeLinear Div Gather Gelu Gemm Greater LessOrEqual MatMul Mul QuantizeLinear
    ReduceSum Relu Reshape RMSNormalization RotaryEmbedding ScatterElements Shape Sigmoid Softmax Split Squeeze Sub
    Tanh TensorScatter TopK Transpose Unsqueeze Where
    """.split()  # noqa: SIM905
)
"""Of the operators in the tables of TensorRT 10.15 to 11.2, those that a decoder's graph may use."""


@dataclass(frozen=True)
class ParserError:
    _code: ErrorCode
    _desc: str
    _node: str = ""
    _operator: str = ""

    def code(self) -> ErrorCode:
        return self._code

    def desc(self) -> str:
        return self._desc

    def node_name(self) -> str:
        return self._node

    def node_operator(self) -> str:
        return self._operator


class _Parser(Reporter):
    def __init__(self, logger: ILogger) -> None:
        super().__init__(logger)
        self._errors: list[ParserError] = []
        self._model: onnx.ModelProto | None = None
        self.pointers: dict[str, tuple[int, int]] = {}

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def load_model_proto(self, model: bytes, path: str | None = None) -> bool:
        if self.fails("load_model_proto"):
            return False
        try:
            self._model = onnx.load_model_from_string(model)
        except Exception as error:
            return self._refuse(ErrorCode.MODEL_DESERIALIZE_FAILED, str(error))
        return True

    def load_initializer(self, name: str, data: int, size: int) -> bool:
        if self.fails("load_initializer"):
            return False
        assert self._model is not None, "load_initializer before load_model_proto"
        found = next((w for w in self._model.graph.initializer if w.name == name), None)
        if found is None or found.data_location != onnx.TensorProto.EXTERNAL:
            return self._refuse(ErrorCode.INVALID_VALUE, f"no initializer {name} without data")
        if size != _num_bytes(found):
            return self._refuse(ErrorCode.INVALID_VALUE, f"{name} has {_num_bytes(found)} bytes, not {size}")
        self.pointers[name] = (data, size)
        return True

    def _whole(self) -> bool:
        assert self._model is not None, "nothing was loaded"
        for weight in self._model.graph.initializer:
            if weight.data_location == onnx.TensorProto.EXTERNAL and weight.name not in self.pointers:
                return self._refuse(ErrorCode.INVALID_GRAPH, f"initializer {weight.name} has no data")
        return True

    def _refuse(self, code: ErrorCode, words: str, node: str = "", operator: str = "") -> bool:
        self._errors.append(ParserError(code, words, node, operator))
        self.report(f"[onnx] {words}")
        return False


class OnnxParser(_Parser):
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        super().__init__(logger)
        self._network = network

    def parse_model_proto(self) -> bool:
        if self.fails("parse_model_proto") or not self._whole():
            return False
        assert self._model is not None
        for node in self._model.graph.node:
            if node.domain or node.op_type not in OPERATORS:
                name = f"No importer registered for op: {node.op_type}"
                self._refuse(ErrorCode.UNSUPPORTED_NODE, name, node.name, node.op_type)
            elif words := _unsupported(node):
                self._refuse(ErrorCode.UNSUPPORTED_NODE, words, node.name, node.op_type)
        if self._errors:
            return False
        self._network.model, self._network.parser = self._model, self
        return True


class OnnxParserRefitter(_Parser):
    def __init__(self, refitter: Refitter, logger: ILogger) -> None:
        super().__init__(logger)
        self._refitter = refitter

    def refit_model_proto(self) -> bool:
        if self.fails("refit_model_proto") or not self._whole():
            return False
        assert self._model is not None
        self._refitter.model, self._refitter.parser = self._model, self
        return True


def with_weights(model: onnx.ModelProto, pointers: dict[str, tuple[int, int]]) -> onnx.ModelProto:
    """Copy a model, its external weights read from where they lie now."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    for weight in whole.graph.initializer:
        if weight.data_location == onnx.TensorProto.EXTERNAL:
            address, size = pointers[weight.name]
            weight.ClearField("external_data")
            weight.data_location = onnx.TensorProto.DEFAULT
            weight.raw_data = ctypes.string_at(address, size)
    return whole


def _num_bytes(weight: onnx.TensorProto) -> int:
    count = 1
    for dim in weight.dims:
        count *= dim
    narrow = {onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4}
    if weight.data_type in narrow:
        return (count * narrow[weight.data_type] + 7) // 8
    return int(count * onnx.helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize)


def _unsupported(node: onnx.NodeProto) -> str:
    """What NVIDIA's table of operators says of attributes and inputs."""
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Attention":
        if values.get("softcap") or values.get("is_causal"):
            return "Attention: softcap and is_causal are not supported"
        if values.get("scale") != 1.0:
            return "Attention: the parser would multiply the whole cache by the root of the scale"
        if not values.get("TRT_decomposable"):
            return "Attention: no fused kernel for these shapes and types"
        if any(node.input[4:]) or len(node.output) > 1:
            return "Attention: past, nonpad_kv_seqlen and present are not supported"
    if node.op_type == "TensorScatter" and (values.get("mode", b"linear") != b"linear" or values.get("axis") != -2):
        return "TensorScatter: only linear mode along axis -2"
    return ""
