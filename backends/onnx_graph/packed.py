"""Linear layers whose matrices are integers in the checkpoint (GPTQ, AWQ): ONNX Runtime multiplies by these."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...core.packed_weights import QuantizedMatrix
from .linear import Gemm
from .options import NUMPY_DTYPES
from .writer import Array

UInt8 = NDArray[np.uint8]
EXACT_ACTIVATIONS = 1  # accuracy_level of MatMulNBits: products in float32
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 256


class PackedGemm(Gemm):
    """`gemm`, with MatMulNBits in its place for packed matrices that it takes; activations are not rounded."""

    def __call__(self, x: ir.Value, *names: str) -> ir.Value:
        """See Linear."""
        (name,) = names
        matrix = self._weights.integers(name)
        if matrix is None or not is_block(matrix.group_size):
            return super().__call__(x, name)
        write, blocks = self._writer, as_blocks(matrix)
        if matrix.order is not None:
            x = write.op("Gather", x, write.constant(f"{name}.order", matrix.order), axis=-1)
        scales = blocks.scales.astype(NUMPY_DTYPES[self._options.dtype])
        zeros = None if blocks.zeros is None else write.constant(f"{name}.zeros", blocks.zeros)
        operands = write.weight(f"{name}.packed", blocks.values), write.constant(f"{name}.scale", scales)
        return write.contrib(
            "MatMulNBits", x, *operands, zeros, None, self._weights.vector(f"{name}.bias"), name=f"{name}.product",
            N=matrix.values.shape[0], K=matrix.values.shape[1], bits=blocks.bits, block_size=matrix.group_size,
            accuracy_level=EXACT_ACTIVATIONS,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix as MatMulNBits takes it: unsigned integers less a zero point, times a scale."""

    bits: int
    values: UInt8  # [N, blocks, block_size * bits / 8], of 4 bits the first in the low half of a byte
    scales: Array  # [N, blocks]
    zeros: UInt8 | None  # [N, blocks / 2], packed likewise; None: 2^(bits - 1)


def as_blocks(matrix: QuantizedMatrix) -> Blocks:
    """Return a matrix in the fewest bits that hold it exactly, given a zero point for each block."""
    outputs, inputs = matrix.values.shape
    num_blocks = matrix.scales.shape[1]
    values = np.zeros((outputs, num_blocks * matrix.group_size), np.int8)
    values[:, :inputs] = matrix.values
    values = values.reshape(outputs, num_blocks, -1)
    if matrix.bits == 4:
        return Blocks(4, _in_pairs((values + 8).view(np.uint8)), matrix.scales, None)
    zeros = np.maximum(-values.min(axis=-1).astype(np.int16), 0)  # [N, blocks]
    if int((values.max(axis=-1) + zeros).max()) > 15:
        return Blocks(8, np.bitwise_xor(values.view(np.uint8), np.uint8(0x80)), matrix.scales, None)
    narrow = zeros.astype(np.int8)
    packed_zeros = _in_pairs(np.pad(narrow, ((0, 0), (0, num_blocks % 2))).view(np.uint8))
    return Blocks(4, _in_pairs((values + narrow[..., None]).view(np.uint8)), matrix.scales, packed_zeros)


def is_block(size: int) -> bool:
    """Whether MatMulNBits takes groups of that size."""
    return SMALLEST_BLOCK <= size <= LARGEST_BLOCK and size & (size - 1) == 0


def _in_pairs(numbers: UInt8) -> UInt8:
    return numbers[..., 0::2] | np.left_shift(numbers[..., 1::2], 4)
