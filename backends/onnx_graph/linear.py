"""Linear layers: the forms in which a graph holds the weight matrices and multiplies by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import onnx_ir as ir

from ...core.types import Unsupported
from ...kernels.cpu.quantize import quantize, quantize_fp8, quantize_rows
from .options import NUMPY_DTYPES, GraphOptions
from .weights import Weights
from .writer import GraphWriter


class Linear(Protocol):
    """One form of the product x @ weight.T + bias."""

    joins: bool
    """Whether it takes several names."""

    def __call__(self, x: ir.Value, *names: str) -> ir.Value:
        """Multiply x [T, inputs] by the weight of a canonical name, and add its bias if it has one: [T, outputs].

        The outputs of several names stand side by side, in a form that joins.
        """
        ...


class Gemm:
    """`gemm`: the checkpoint's matrix [outputs, inputs] as it lies there."""

    joins = False

    def __init__(self, writer: GraphWriter, weights: Weights, options: GraphOptions) -> None:
        self._writer, self._weights, self._options = writer, weights, options

    def __call__(self, x: ir.Value, *names: str) -> ir.Value:
        """See Linear."""
        (name,) = names
        operands = [self.matrix(name), self._weights.vector(f"{name}.bias")]
        return self._writer.op("Gemm", x, *filter(None, operands), name=f"{name}.product", transB=1)

    def matrix(self, name: str) -> ir.Value:
        """Return the weight [outputs, inputs] in the compute dtype."""
        return self._weights.matrix(name)


class Qdq(Gemm):
    """`qdq`: Gemm with a quantised matrix that DequantizeLinear restores, as TensorRT wants it.

    int4 has a scale for each block of inputs, int8-rows one for each output, fp8 one for the matrix.
    """

    def matrix(self, name: str) -> ir.Value:
        """See Gemm."""
        write, dtype, block_size = self._writer, NUMPY_DTYPES[self._options.dtype], self._options.block_size
        weight, quantised, scale = self._weights.array(name), f"{name}.quantised", f"{name}.scale"
        match self._options.quantization:
            case "int8-rows":
                values, scales = quantize_rows(weight, dtype)
                operands = write.weight(quantised, values), write.constant(scale, scales)
                return write.op("DequantizeLinear", *operands, axis=0)
            case "fp8":
                values, scales = quantize_fp8(weight, dtype)
                return write.op("DequantizeLinear", write.weight(quantised, values), write.constant(scale, scales))
            case _:
                if weight.shape[1] % block_size:
                    raise Unsupported(
                        f"linear 'qdq', int4: {name} has {weight.shape[1]} inputs, which blocks of {block_size} do not "
                        "divide; choose another block_size, or int8-rows"
                    )
                packed, scales = quantize(weight, 4, block_size, dtype)
                signed = (packed ^ 0x88).reshape(len(weight), -1)  # from q + 8 to two's complement
                operands = write.weight(quantised, signed, ir.DataType.INT4), write.constant(scale, scales)
                return write.op("DequantizeLinear", *operands, axis=1, block_size=block_size)


class MatMulNBits:
    """`nbits`: ONNX Runtime's product with int4 or int8 matrices in blocks."""

    joins = True

    def __init__(self, writer: GraphWriter, weights: Weights, options: GraphOptions) -> None:
        self._writer, self._weights, self._options = writer, weights, options

    def __call__(self, x: ir.Value, *names: str) -> ir.Value:
        """See Linear. x may have any rank."""
        write, options, weights = self._writer, self._options, [self._weights.array(name) for name in names]
        name, bits, dtype = "+".join(names), 4 if options.quantization == "int4" else 8, NUMPY_DTYPES[options.dtype]
        quantised = [quantize(weight, bits, options.block_size, dtype) for weight in weights]
        packed, scales = (part[0] if len(part) == 1 else np.concatenate(part) for part in zip(*quantised, strict=True))
        operands = write.weight(f"{name}.quantised", packed), write.constant(f"{name}.scale", scales)
        return write.contrib(
            "MatMulNBits", x, *operands, None, None, self._bias(names), name=f"{name}.product",
            N=len(packed), K=weights[0].shape[1], bits=bits,
            block_size=options.block_size, accuracy_level=options.accuracy_level,
        )  # fmt: skip

    def _bias(self, names: Sequence[str]) -> ir.Value | None:
        if len(names) == 1:
            return self._weights.vector(f"{names[0]}.bias")
        if f"{names[0]}.bias" not in self._weights:
            return None
        parts = [self._weights.array(f"{name}.bias").astype(NUMPY_DTYPES[self._options.dtype]) for name in names]
        return self._writer.constant(f"{'+'.join(names)}.bias", np.concatenate(parts))


def make_linear(writer: GraphWriter, weights: Weights, options: GraphOptions) -> Linear:
    """Return the linear layer of the form that the options ask for."""
    forms: dict[str | None, type[Gemm] | type[MatMulNBits]] = {"gemm": Gemm, "nbits": MatMulNBits, "qdq": Qdq}
    return forms[options.linear](writer, weights, options)
