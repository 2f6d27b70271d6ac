"""Packed matrices: the 32-bit words of GPTQ and AWQ unpacked, to whole numbers with scales or to floats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .packed_format import PackedFormat
from .safetensors_file import DTYPES, StoredTensor
from .weight_names import Source

Array = NDArray[Any]
Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of 8 outputs lies in each four bits of a word, the lowest first: as AWQ's kernels like to unpack them."""
ROWS_BYTES = 1 << 20  # of float32 at a time


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A matrix [N, K] as whole numbers: weight[n, order[k]] = values[n, k] * scales[n, k // group_size], exactly.

    The zero points of asymmetric weights are in the values. Without `order` inputs stand as they are. With it, whoever
    multiplies by the values takes the inputs in that order: y = (x[order] * values * scales).sum().
    """

    values: NDArray[np.int8]  # [N, K]; of 4 bits with zero points within -15 ... 15
    scales: Array  # [N, ceil(K / group_size)] float16, bfloat16 or float32, as stored
    group_size: int
    bits: int  # the fewest, of 4 and 8, that hold every value in two's complement
    order: NDArray[np.int64] | None = None  # [K] a permutation


@dataclass(frozen=True, slots=True)
class QuantizedGrid:
    """What is known of a QuantizedMatrix before its numbers are read: group_size, scales and order are as there."""

    scales: Array
    group_size: int
    bits: int  # the fewest, of 4 and 8, that hold every value whatever the numbers; 0: they may be beyond 8 bits
    order: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """Where the parts of one packed matrix [N, K] lie, checked. N counts the rows of `source` that are wanted."""

    source: Source
    parts: Mapping[str, StoredTensor]  # qweight, qzeros, scales and maybe g_idx
    form: PackedFormat  # with this matrix's own bits and group_size, which is not 0

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        begin, end = self.source.rows or (0, self.source.shape[0])
        return end - begin, self.source.shape[1]

    @property
    def num_bytes(self) -> int:
        """As stored; of a fused matrix its share."""
        return sum(part.entry.num_bytes for part in self.parts.values()) * self.shape[0] // self.source.shape[0]

    @property
    def dtype(self) -> str:
        """Of the scales: what the weights were before they were quantised, or near it."""
        return DTYPES[self.parts["scales"].entry.dtype].name

    @property
    def tensor_names(self) -> list[str]:
        """In the files."""
        return [part.entry.name for part in self.parts.values()]

    def arrays(self) -> list[tuple[str, Array]]:
        """What is stored, by kind; of a fused matrix all of it."""
        return [(f".{kind}", part.array()) for kind, part in self.parts.items()]

    def dequantized(self) -> Float32:
        """Return the matrix [N, K] in float32, where (q - zero) * scale is exact for scales of 16 bits."""
        q, (zeros, scales), groups = self._integers(), self._grid(), self._groups()
        out = np.empty(self.shape, np.float32)
        step = max(1, ROWS_BYTES // (4 * out.shape[1]))
        for begin in range(0, len(out), step):
            rows = slice(begin, begin + step)
            np.subtract(q[rows], zeros[rows].astype(np.float32)[:, groups], out=out[rows])
            out[rows] *= scales[rows].astype(np.float32)[:, groups]
        return out

    def quantized(self) -> QuantizedMatrix | None:
        """Return the matrix as whole numbers, or None where they do not fit int8 or groups differ in size."""
        grid = self.grid()
        if grid is None:
            return None
        q = self._integers().astype(np.int16)
        q -= self._grid()[0][:, self._groups()]
        bits = _bits(int(q.min()), int(q.max()))
        if not bits:
            return None
        values = q.astype(np.int8)
        return QuantizedMatrix(
            values=values if grid.order is None else np.ascontiguousarray(values[:, grid.order]),
            scales=np.ascontiguousarray(grid.scales),
            group_size=grid.group_size,
            bits=bits,
            order=grid.order,
        )

    def grid(self) -> QuantizedGrid | None:
        """Return what zero points, scales and groups alone tell of `quantized`, None where groups differ in size."""
        (zeros, scales), groups, group_size = self._grid(), self._groups(), self.form.group_size
        order = np.argsort(groups, kind="stable")
        if (groups[order] != np.arange(len(groups)) // group_size).any():
            return None
        return QuantizedGrid(
            scales=scales,
            group_size=group_size,
            bits=_bits(-int(zeros.max()), 2**self.form.bits - 1 - int(zeros.min())),
            order=None if (order[1:] > order[:-1]).all() else order,
        )

    def _rows(self) -> slice:
        return slice(*self.source.rows) if self.source.rows else slice(None)

    def _integers(self) -> UInt8:
        """q [N, K]: GPTQ packs neighbouring inputs into a word, AWQ outputs."""
        words = self.parts["qweight"].array()
        if self.form.method == "gptq":
            return unpack(words[:, self._rows()].T, self.form.bits)
        return np.ascontiguousarray(_in_order(unpack(words, self.form.bits))[:, self._rows()].T)

    def _grid(self) -> tuple[NDArray[np.int16], Array]:
        """Zero points and scales, each [N, groups]."""
        zeros = unpack(self.parts["qzeros"].array(), self.form.bits)
        if self.form.method == "awq":
            zeros = _in_order(zeros)
        shifted = (zeros.astype(np.int16) + self.form.zero_offset) & (2**self.form.bits - 1)  # AutoGPTQ wraps so too
        return np.ascontiguousarray(shifted[:, self._rows()].T), self.parts["scales"].array()[:, self._rows()].T

    def _groups(self) -> NDArray[np.int64]:
        """The group of each input [K]."""
        if "g_idx" in self.parts:
            return self.parts["g_idx"].array().astype(np.int64)
        return np.arange(self.source.shape[1]) // self.form.group_size


def _bits(least: int, most: int) -> int:
    """The fewest bits, of 4 and 8, that hold these numbers in two's complement; 0 where 8 do not."""
    return next((bits for bits in (4, 8) if -(2 ** (bits - 1)) <= least and most < 2 ** (bits - 1)), 0)


def unpack(words: Array, bits: int) -> UInt8:
    """Unpack 32-bit words [..., W] to numbers [..., W * 32 / bits] of 4 or 8 bits, the lowest bits of a word first."""
    octets = np.ascontiguousarray(words, "<i4").view(np.uint8)
    if bits == 8:
        return octets
    numbers = np.empty((*octets.shape[:-1], 2 * octets.shape[-1]), np.uint8)
    np.bitwise_and(octets, 15, out=numbers[..., 0::2])
    np.right_shift(octets, 4, out=numbers[..., 1::2])
    return numbers


def _in_order(numbers: UInt8) -> UInt8:
    """Undo AWQ_ORDER in each 8 numbers of [..., W * 8]."""
    return numbers.reshape(*numbers.shape[:-1], -1, 8)[..., np.argsort(AWQ_ORDER)].reshape(numbers.shape)
