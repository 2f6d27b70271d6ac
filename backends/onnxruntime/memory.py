"""K/V memory in rows that a compiled graph writes in place, committed by the system as it is first written."""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..host_memory import gib
from .bindings import HostFeeds

Int64 = NDArray[np.int64]

RELEASE_BYTES = 4 << 20
"""Of a row's memory beyond what its new owner fills: less is not worth giving back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowShape:
    """The K/V memory of one model: keys and values [2 * layers, rows, kv_heads, positions, D].

    Keys of layer i are at index 2 * i, values at 2 * i + 1. A window of neighbouring rows is contiguous in each.
    """

    num_layers: int
    num_kv_heads: int
    num_positions: int
    head_dim: int
    itemsize: int

    @property
    def position_bytes(self) -> int:
        """Bytes of one position of one head."""
        return self.head_dim * self.itemsize

    @property
    def token_bytes(self) -> int:
        """Bytes of one token, all layers together."""
        return 2 * self.num_layers * self.num_kv_heads * self.position_bytes

    @property
    def part_bytes(self) -> int:
        """Bytes of one row in one layer's keys or values."""
        return self.num_kv_heads * self.num_positions * self.position_bytes

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, all layers together."""
        return self.num_positions * self.token_bytes

    def array(self, num_rows: int) -> tuple[int, int, int, int, int]:
        """Return the shape of the whole."""
        return 2 * self.num_layers, num_rows, self.num_kv_heads, self.num_positions, self.head_dim


class HostRows:
    """Rows in anonymous memory: untouched pages take no room, and pages that nobody needs any more are given back."""

    device = "cpu", 0

    def __init__(self, shape: RowShape, num_rows: int, dtype: np.dtype[Any]) -> None:
        self.shape = shape
        num_bytes = shape.row_bytes * num_rows
        try:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
            self._memory = mmap.mmap(-1, num_bytes, flags=flags)
        except (OSError, ValueError, OverflowError) as error:
            raise ValueError(
                f"backend onnxruntime: no address space for {num_rows} rows of K/V cache ({gib(num_bytes)}): lower "
                "num_blocks, or max_model_len and max_num_seqs"
            ) from error
        if hasattr(mmap, "MADV_NOHUGEPAGE"):  # a huge page would commit 2 MiB for the first token of each head
            self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.element_type = dtype.type
        self.array: NDArray[Any] = np.frombuffer(self._memory, dtype).reshape(shape.array(num_rows))
        self._base = self.array.ctypes.data
        self._num_rows = num_rows
        self._touched = np.zeros(num_rows, np.int64)  # [rows] positions that may have been committed

    def address(self, index: int, row: int) -> int:
        """Where a row begins in keys or values number `index` of 2 * layers."""
        return self._base + (index * self._num_rows + row) * self.shape.part_bytes

    @property
    def token_bytes(self) -> int:
        """Bytes of one token, all layers together."""
        return self.shape.token_bytes

    def touch(self, rows: Int64 | int, ends: Int64 | int) -> None:
        """Take note that positions up to `ends` of `rows` are about to be written."""
        self._touched[rows] = np.maximum(self._touched[rows], ends)

    def renew(self, row: int, end: int) -> None:
        """Take note that a row begins anew and is filled up to `end`; give back what lies behind that."""
        if (self._touched[row] - end) * self.shape.token_bytes >= RELEASE_BYTES:
            self._release(row, end)
        self.touch(row, end)

    def _release(self, row: int, start: int) -> None:
        """Give back the whole pages between `start` and the last position touched."""
        shape, stop = self.shape, int(self._touched[row])
        head_bytes = shape.num_positions * shape.position_bytes
        for index in range(2 * shape.num_layers):
            first = self.address(index, row) - self._base
            for head in range(first, first + shape.part_bytes, head_bytes):
                low = -(-(head + start * shape.position_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
                high = (head + stop * shape.position_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
                if low < high:
                    self._memory.madvise(mmap.MADV_DONTNEED, low, high - low)
        self._touched[row] = start

    def feeds(self, io: ort.IOBinding) -> HostFeeds:
        """Return what feeds a binding's small inputs and takes its logits."""
        return HostFeeds(io)

    def close(self) -> None:
        """Give back everything. Calling it twice is harmless."""
        self.array = np.empty((0,), self.array.dtype)
        with suppress(BufferError):  # somebody holds a view: the memory goes with it
            self._memory.close()


def trim_heap() -> None:
    """Give freed memory back to the system where the C library can: a session's weights lie in many small pieces."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
