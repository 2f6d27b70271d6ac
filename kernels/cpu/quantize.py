"""Quantised weights: the one definition of what int8, int4 and fp8 mean, and its inverse, in numpy.

A matrix [N, K] (N outputs, K inputs) is cut into blocks of inputs that share a scale. A weight w of a block is stored
as the integer q nearest to w / scale within -2^(bits-1) ... 2^(bits-1) - 1 and stands for q * scale. There is no zero
point: 0 is 0. The scale is the smallest positive one under which no weight of the block is cut off,
max(max(w) / (2^(bits-1) - 1), -min(w) / 2^(bits-1)), so an error is at most half a scale: for weights drawn from one
normal distribution and blocks of 32, about 9.2% (int4) and 0.53% (int8) of their standard deviation (root mean square).
Negative scales would make that 8.6% for int4, but TensorRT refuses them, and there is one definition for all engines.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
UInt8 = NDArray[np.uint8]

ROWS_BYTES = 1 << 19  # of float32 at a time: intermediate results stay in the processor's cache
FP8_MAX = 448.0  # the largest float8_e4m3fn
SMALLEST_SCALE = np.finfo(np.float32).tiny  # below it reciprocals overflow, and weights are as good as zeros


def quantize(weight: Array, bits: int, block_size: int = 32, dtype: DTypeLike = np.float32) -> tuple[UInt8, Array]:
    """Quantise weight [N, K], any float dtype, to bits (4 or 8) in blocks of block_size inputs (a power of two).

    Returns packed [N, ceil(K / block_size), block_size * bits / 8] uint8 and scales [N, ceil(K / block_size)] in
    `dtype`, as MatMulNBits takes them: q + 2^(bits-1), of two 4-bit values the first in the low half of the byte. A
    last block that K does not fill is filled with zeros. ValueError for other numbers.
    """
    if bits not in (4, 8) or block_size < 16 or block_size & (block_size - 1):
        raise ValueError(
            f"{bits} bits in blocks of {block_size}: expected 4 or 8 bits in blocks of a power of two >= 16"
        )
    outputs, inputs = weight.shape
    num_blocks = -(-inputs // block_size)
    packed = np.empty((outputs, num_blocks, block_size * bits // 8), np.uint8)
    scales = np.empty((outputs, num_blocks), dtype)
    step = max(1, ROWS_BYTES // (4 * num_blocks * block_size))
    for begin in range(0, outputs, step):
        rows = slice(begin, begin + step)
        blocks = np.zeros((min(step, outputs - begin), num_blocks * block_size), np.float32)
        blocks[:, :inputs] = weight[rows]
        packed[rows], scales[rows] = _quantize_blocks(
            blocks.reshape(len(blocks), num_blocks, -1), bits, np.dtype(dtype)
        )
    return packed, scales


def dequantize(packed: UInt8, scales: Array, bits: int, num_inputs: int) -> NDArray[np.float32]:
    """Return the weights [N, num_inputs] that `quantize` stored."""
    values = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1)
    signed = values.astype(np.float32) - 2 ** (bits - 1)
    weights: NDArray[np.float32] = (signed * scales[..., None].astype(np.float32)).reshape(len(packed), -1)
    return weights[:, :num_inputs]


def quantize_rows(weight: Array, dtype: DTypeLike = np.float32) -> tuple[NDArray[np.int8], Array]:
    """Quantise weight [N, K] to int8 with one scale a row (output): q [N, K] and scales [N] in `dtype`.

    The same rule as above with a block as long as a row, but for -128, which is not used.
    """
    wide = np.asarray(weight, np.float32)
    scales = _scales(np.abs(wide).max(axis=1, initial=0.0) / 127, np.dtype(dtype))
    return np.rint(wide / scales[:, None].astype(np.float32)).clip(-127, 127).astype(np.int8), scales


def quantize_fp8(weight: Array, dtype: DTypeLike = np.float32) -> tuple[Array, Array]:
    """Quantise weight [N, K] to float8 (e4m3) with one scale: values [N, K] float8_e4m3fn and scale [] in `dtype`."""
    wide = np.asarray(weight, np.float32)
    scale = _scales(np.abs(wide).max(initial=0.0) / FP8_MAX, np.dtype(dtype))
    values = (wide / scale.astype(np.float32)).clip(-FP8_MAX, FP8_MAX)
    return values.astype(ml_dtypes.float8_e4m3fn), scale


def _quantize_blocks(blocks: NDArray[np.float32], bits: int, dtype: np.dtype[Any]) -> tuple[UInt8, Array]:
    """Quantise blocks [rows, num_blocks, block_size], which are overwritten."""
    half = 2 ** (bits - 1)
    scales = _scales(np.maximum(blocks.max(axis=-1) / (half - 1), blocks.min(axis=-1) / -half), dtype)
    blocks *= np.reciprocal(scales.astype(np.float32))[..., None]
    np.rint(blocks, out=blocks)
    blocks += half
    np.clip(blocks, 0, 2 * half - 1, out=blocks)  # a scale rounded to `dtype` may be a little too small
    values: UInt8 = blocks.astype(np.uint8)
    if bits == 4:
        values = values[..., 0::2] | np.left_shift(values[..., 1::2], 4)
    return values, scales


def _scales(exact: Any, dtype: np.dtype[Any]) -> Array:
    """Round scales to their dtype; a block of zeros gets 1, and so does one whose scale has no finite reciprocal."""
    rounded = np.asarray(exact).astype(dtype)
    return np.where(rounded.astype(np.float32) >= SMALLEST_SCALE, rounded, np.ones((), dtype))
