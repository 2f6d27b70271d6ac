"""Write matrices as GPTQ and AWQ pack them: plain loops over numbers and bits, written from the formats' descriptions.

GPTQ (AutoGPTQ's QuantLinear.pack, GPTQModel's wiki "Packing formats"): qweight [K / P, N] int32 with P = 32 / bits
neighbouring inputs of an output in a word, the first in the lowest bits; qzeros [G, N / P] likewise along the outputs,
each zero point less one (format gptq_v2: as it is); scales [G, N]; g_idx [K], the group of each input.
AWQ (AutoAWQ's WQLinear_GEMM): qweight [K, N / 8] and qzeros [G, N / 8] with 8 outputs in a word, of which the lowest
four bits are output 0, the next 2, 4, 6, 1, 3, 5, 7; scales [G, N].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Quantized:
    """A matrix [N, K] in numbers: weight[n, k] = (q[n, k] - zeros[n, g]) * scales[n, g] with g = groups[k]."""

    q: Array  # [N, K]
    zeros: Array  # [N, G]
    scales: Array  # [N, G]
    groups: Array  # [K]

    def weight(self) -> NDArray[np.float32]:
        """The matrix that it stands for."""
        zeros, scales = self.zeros[:, self.groups], self.scales[:, self.groups].astype(np.float32)
        return ((self.q - zeros) * scales).astype(np.float32)


def quantize(
    weight: Array, bits: int, group_size: int, *, symmetric: bool, order: Array | None = None, dtype: Any = np.float16
) -> Quantized:
    """Round to the nearest. With `order` [K], groups are of inputs that follow each other in that order."""
    inputs = weight.shape[1]
    groups = np.empty(inputs, np.int64)
    groups[np.arange(inputs) if order is None else order] = np.arange(inputs) // group_size
    most = 2**bits - 1
    zeros = np.empty((len(weight), groups.max() + 1), np.int64)
    scales = np.empty(zeros.shape, dtype)
    q = np.empty(weight.shape, np.int64)
    for g in range(groups.max() + 1):
        part = weight[:, groups == g].astype(np.float64)
        low, high = part.min(axis=1), part.max(axis=1)
        if symmetric:
            high = np.maximum(np.abs(low), high)
            low = -high
        scales[:, g] = np.maximum((high - low) / most, 1e-4)
        wide = scales[:, g].astype(np.float64)
        zeros[:, g] = (most + 1) // 2 if symmetric else np.clip(np.rint(-low / wide), 1, most)
        q[:, groups == g] = np.clip(np.rint(part / wide[:, None]) + zeros[:, g, None], 0, most)
    return Quantized(q, zeros, scales, groups)


def words(numbers: list[int], bits: int) -> list[int]:
    """Pack numbers into 32-bit words, the first in the lowest bits, as signed integers."""
    packed = []
    for start in range(0, len(numbers), 32 // bits):
        word = sum(number << (bits * place) for place, number in enumerate(numbers[start : start + 32 // bits]))
        packed.append(word - 2**32 if word >= 2**31 else word)
    return packed


def pack_gptq(matrix: Quantized, bits: int, *, version: int = 1, g_idx: bool = True) -> dict[str, Array]:
    """The tensors of a matrix in GPTQ's layout."""
    zeros = (matrix.zeros.T - (1 if version == 1 else 0)) % 2**bits
    tensors = {
        "qweight": np.array([words(row.tolist(), bits) for row in matrix.q], np.int32).T.copy(),
        "qzeros": np.array([words(row.tolist(), bits) for row in zeros], np.int32),
        "scales": matrix.scales.T.copy(),
    }
    return tensors | ({"g_idx": matrix.groups.astype(np.int32)} if g_idx else {})


def pack_awq(matrix: Quantized) -> dict[str, Array]:
    """The tensors of a matrix in AWQ's layout."""

    def interleaved(row: Array) -> list[int]:
        return [int(row[start + place]) for start in range(0, len(row), 8) for place in (0, 2, 4, 6, 1, 3, 5, 7)]

    return {
        "qweight": np.array([words(interleaved(column), 4) for column in matrix.q.T], np.int32),
        "qzeros": np.array([words(interleaved(column), 4) for column in matrix.zeros.T], np.int32),
        "scales": matrix.scales.T.copy(),
    }
