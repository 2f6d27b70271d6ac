"""Linear layers: the forms in which a graph holds the weight matrices and multiplies by them."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from .options import GraphOptions
from .weights import Weights
from .writer import GraphWriter

Linear = Callable[[ir.Value, str], ir.Value]  # (x [T, inputs], canonical name of the weight) -> [T, outputs]


def make_linear(writer: GraphWriter, weights: Weights, options: GraphOptions) -> Linear:
    """Return the linear layer of the form that the options ask for."""

    def gemm(x: ir.Value, name: str) -> ir.Value:
        """Multiply by the checkpoint's matrix [outputs, inputs] as it lies there."""
        return writer.op("Gemm", x, *_present(weights.matrix(name), weights.vector(f"{name}.bias")), transB=1)

    return gemm


def _present(*values: ir.Value | None) -> list[ir.Value]:
    return [value for value in values if value is not None]
