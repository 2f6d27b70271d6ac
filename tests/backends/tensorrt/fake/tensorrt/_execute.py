"""Execution: ONNX Runtime on raw addresses, and what the inputs must hold for the graph to make sense."""

from __future__ import annotations

import ctypes
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ._world import inside_an_allocation

_SESSIONS: OrderedDict[str, onnxruntime.InferenceSession] = OrderedDict()
_MAX_SESSIONS = 16
_DTYPES = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.INT32: np.int32,
    onnx.TensorProto.INT64: np.int64,
}

Shapes = Mapping[str, tuple[int, ...]]


class Executable:
    """A model with its weights. The session is made at the first run: ONNX Runtime's CPU lacks bfloat16."""

    def __init__(self, model: bytes) -> None:
        self._model, self._key = model, hashlib.sha256(model).hexdigest()

    @property
    def session(self) -> onnxruntime.InferenceSession:
        if self._key not in _SESSIONS:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = 3
            model = _standard(self._model)
            _SESSIONS[self._key] = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
            while len(_SESSIONS) > _MAX_SESSIONS:
                _SESSIONS.popitem(last=False)
        _SESSIONS.move_to_end(self._key)
        return _SESSIONS[self._key]


def _standard(model: bytes) -> bytes:
    """Take TensorRT's own attributes off, which change no number."""
    proto = onnx.load_model_from_string(model)
    for node in proto.graph.node:
        kept = [attribute for attribute in node.attribute if not attribute.name.startswith("TRT_")]
        del node.attribute[:]
        node.attribute.extend(kept)
    return proto.SerializeToString()


def run_on_pointers(
    executable: Executable, model: onnx.ModelProto, shapes: Shapes, addresses: Mapping[str, int]
) -> Callable[[], None]:
    """Return a run with the shapes and addresses of now. It reads and writes memory when it is called."""
    sizes = _sizes(model, shapes)
    tensors = {}
    for value in (*model.graph.input, *model.graph.output):
        dtype, shape = _DTYPES.get(value.type.tensor_type.elem_type), _shape(value, sizes)
        if dtype is not None:
            num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            assert inside_an_allocation(addresses[value.name], num_bytes), f"{value.name} leaves its memory"
        tensors[value.name] = (dtype, shape, addresses[value.name])
    bound: list[Any] = []

    def run() -> None:
        session = executable.session
        _check_contents({n: _view(*t) for n, t in tensors.items() if n in shapes and "past" not in n}, sizes, tensors)
        if not bound:
            binding = session.io_binding()
            for name in (v.name for v in model.graph.input):
                dtype, shape, address = tensors[name]
                binding.bind_input(name, "cpu", 0, dtype, shape, address)
            for name in (v.name for v in model.graph.output):
                dtype, shape, address = tensors[name]
                binding.bind_output(name, "cpu", 0, dtype, shape, address)
            bound.append((session, binding))
        kept, binding = bound[0]
        kept.run_with_iobinding(binding)

    return run


def _sizes(model: onnx.ModelProto, shapes: Shapes) -> dict[str, int]:
    """Return the sizes that names stand for; one name has one size."""
    sizes: dict[str, int] = {}
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            if dim.dim_param:
                assert sizes.setdefault(dim.dim_param, size) == size, f"{value.name}: {dim.dim_param} is not {size}"
            else:
                assert dim.dim_value == size, f"{value.name}: {dim.dim_value} is not {size}"
    return sizes


def _shape(value: onnx.ValueInfoProto, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[d.dim_param] if d.dim_param else d.dim_value for d in value.type.tensor_type.shape.dim)


def _view(dtype: Any, shape: tuple[int, ...], address: int) -> NDArray[Any]:
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * count).from_address(address), dtype).reshape(shape)


def _check_contents(inputs: Mapping[str, NDArray[Any]], sizes: Mapping[str, int], tensors: Mapping[str, Any]) -> None:
    """TensorRT drops what is written beyond a cache, and reads whatever an index beyond an array names."""
    tokens, rows, width = sizes["T"], sizes["B"], sizes["S"]
    row_len = tensors["past_key.0"][1][2]
    limits = {
        "kv_indices": tokens,
        "logits_indices": tokens,
        "flat_indices": rows * width,
        "write_indices": row_len - width + 1,
        "positions": row_len,
    }
    for name, limit in limits.items():
        assert (inputs[name] >= 0).all(), f"{name} is negative"
        assert (inputs[name] < limit).all(), f"{name} reaches {inputs[name].max()}, below {limit} was due"
