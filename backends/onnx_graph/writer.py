"""GraphWriter: records nodes, constants, weights, inputs and outputs of one graph under readable names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from ...core.checkpoint import TensorLocation

Array = NDArray[Any]
Dim = int | str

OPSET = 24  # TensorScatter and Attention with nonpad_kv_seqlen
CONTRIB = "com.microsoft"
IR_VERSION = 11
INLINE_BYTES = 16384  # larger constants lie outside of the graph, beside the weights


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the graph."""

    name: str
    dtype: str  # as numpy (with ml_dtypes) calls it
    shape: tuple[Dim, ...]  # a name stands for a size that may differ from run to run


@dataclass(slots=True)
class GraphWriter:
    """The graph so far."""

    inputs: list[ir.Value] = field(default_factory=list)
    outputs: list[ir.Value] = field(default_factory=list)
    initializers: dict[str, ir.Value] = field(default_factory=dict)
    weights: dict[str, TensorLocation | Array] = field(default_factory=dict)  # initializers that lie outside
    tape: Tape = field(default_factory=Tape)

    def op(
        self, op_type: str, *inputs: ir.Value | None, domain: str = "", name: str = "", **attributes: Any
    ) -> ir.Value:
        """Append a node with one output, named `name` if given."""
        value = self.tape.op(op_type, inputs, attributes or None, domain=domain, name=name or None)
        if name:
            value.name = name
        return value

    def ops(
        self, op_type: str, *inputs: ir.Value | None, outputs: int, domain: str = "", name: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """Append a node with several outputs."""
        return self.tape.op_multi_out(
            op_type, inputs, attributes or None, num_outputs=outputs, domain=domain, name=name or None
        )

    def contrib(self, op_type: str, *inputs: ir.Value | None, name: str = "", **attributes: Any) -> ir.Value:
        """Append a node of ONNX Runtime's own operators."""
        return self.op(op_type, *inputs, domain=CONTRIB, name=name, **attributes)

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[Dim]) -> ir.Value:
        """Declare a graph input."""
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[Dim]) -> None:
        """Declare a value as a graph output."""
        value.name, value.dtype, value.shape = name, dtype, ir.Shape(shape)
        self.outputs.append(value)

    def ints(self, *values: int) -> ir.Value:
        """Return a constant int64 vector, one initializer for equal ones."""
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def constant(self, name: str, array: Array) -> ir.Value:
        """Return an initializer, made at the first call for a name: inline when small, else outside of the graph."""
        if name in self.initializers:
            return self.initializers[name]
        if array.nbytes > INLINE_BYTES:
            return self.weight(name, array)
        return self._initializer(name, ir.Tensor(np.ascontiguousarray(array), name=name))

    def weight(self, name: str, source: TensorLocation | Array, dtype: ir.DataType | None = None) -> ir.Value:
        """Return an initializer whose bytes stay where they are, made at the first call for a name.

        `dtype` is needed where numpy has no name for it: an array of packed 4-bit values, two a byte.
        """
        if name in self.initializers:
            return self.initializers[name]
        self.weights[name] = source
        if isinstance(source, TensorLocation):
            kind = ir.DataType.from_numpy(np.dtype(source.dtype))
            tensor = ir.ExternalTensor(
                source.path.name,
                source.offset,
                source.num_bytes,
                kind,
                shape=ir.Shape(source.shape),
                name=name,
                base_dir=source.path.parent,
            )
        else:
            kind = dtype or ir.DataType.from_numpy(source.dtype)
            shape = source.shape
            if kind.bitwidth < 8 * source.itemsize:
                shape = (*shape[:-1], shape[-1] * 8 * source.itemsize // kind.bitwidth)
            tensor = ir.ExternalTensor(f"{name}.bin", 0, source.nbytes, kind, shape=ir.Shape(shape), name=name)
        return self._initializer(name, tensor)

    def _initializer(self, name: str, tensor: ir.Tensor[Any] | ir.ExternalTensor) -> ir.Value:
        shape = ir.Shape(tensor.shape.numpy())
        value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.initializers[name] = value
        return value

    def model(self) -> ir.Model:
        """Return the finished model."""
        nodes = self.tape.nodes
        opsets = {"": OPSET} | ({CONTRIB: 1} if any(node.domain == CONTRIB for node in nodes) else {})
        used = {value for node in nodes for value in node.inputs}
        graph = ir.Graph(
            self.inputs,
            self.outputs,
            nodes=nodes,
            initializers=[value for value in self.initializers.values() if value in used],
            opset_imports=opsets,
            name="decoder",
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="isotoken")
