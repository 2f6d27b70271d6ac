"""K/V memory: one row for each request, in every layer, where the engine writes it in place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...core.batch import Int32
from ..rows import Run
from .device import ALIGNMENT, Device

ROW_STEP = 64  # positions; rows are made a multiple long


@dataclass(frozen=True, slots=True)
class CacheShape:
    """[2 * layers, rows, kv_heads, row_len, head_dim]: all keys and values, layer by layer."""

    num_layers: int
    num_rows: int
    num_kv_heads: int
    row_len: int
    head_dim: int
    itemsize: int

    @classmethod
    def make(
        cls, *, num_layers: int, num_rows: int, num_kv_heads: int, max_model_len: int, spare: int, head_dim: int,
        itemsize: int,
    ) -> CacheShape:  # fmt: skip
        """Choose row_len: room for max_model_len, `spare` positions that padding is written to, and alignment."""
        shape = cls(num_layers, num_rows, num_kv_heads, 1, head_dim, itemsize)
        step = math.lcm(ROW_STEP, ALIGNMENT // math.gcd(ALIGNMENT, shape.row_bytes))
        row_len = -(-(max_model_len + spare) // step) * step
        return cls(num_layers, num_rows, num_kv_heads, row_len, head_dim, itemsize)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one layer's keys (or values)."""
        return self.num_kv_heads * self.row_len * self.head_dim * self.itemsize

    @property
    def num_bytes(self) -> int:
        """Bytes of everything."""
        return 2 * self.num_layers * self.num_rows * self.row_bytes

    @property
    def position_bytes(self) -> int:
        """Bytes of one head at one position."""
        return self.head_dim * self.itemsize

    @property
    def as_bytes(self) -> tuple[int, int, int, int]:
        """The shape with positions and elements run together to bytes."""
        return 2 * self.num_layers, self.num_rows, self.num_kv_heads, self.row_len * self.position_bytes


class Cache:
    """The memory. What an earlier request left in a row is zeroed before a later one could attend to it.

    Positions past a request's end are masked, but a mask only multiplies by zero, and zero times NaN is NaN: so a row
    is finite beyond what its request wrote itself.
    """

    def __init__(self, device: Device, shape: CacheShape) -> None:
        self.shape = shape
        self._memory = device.allocate(shape.num_bytes, f"{shape.num_rows} rows of K/V cache")
        self._written = np.zeros(shape.num_rows, np.int64)  # positions of each row that may not be zero

    def address(self, name: str, first_row: int) -> int:
        """Return where the rows from first_row on begin of past_key.{i} or past_value.{i}."""
        kind, _, layer = name.partition(".")
        index = 2 * int(layer) + (kind == "past_value")
        return self._memory.address + (index * self.shape.num_rows + first_row) * self.shape.row_bytes

    def copy_rows(self, copies: Int32) -> None:
        """Carry out a batch's block copies [C, 3] (from row, to row, tokens), in order."""
        size, every = self.shape.position_bytes, slice(None)
        for source, target, tokens in copies.tolist():
            if source != target:
                width = slice(0, tokens * size)
                self._memory.copy(self.shape.as_bytes, (every, target, every, width), (every, source, every, width))
                self._clear(target, tokens, self.shape.row_len)
                self._written[target] = tokens

    def begin(self, run: Run) -> None:
        """Zero what lies beyond the requests' contexts, and remember how far the run will write.

        A row that begins anew is zeroed to its end, where the padding of other requests' runs may have written.
        """
        rows = run.first_row + run.rows
        for row, context in zip(rows.tolist(), run.context_lens.tolist(), strict=True):
            stale = int(self._written[row])
            if context < stale:
                self._clear(row, context, stale if context else self.shape.row_len)
        self._written[rows] = run.context_lens + run.width

    def _clear(self, row: int, start: int, end: int) -> None:
        size, every = self.shape.position_bytes, slice(None)
        self._memory.clear(self.shape.as_bytes, (every, row, every, slice(start * size, end * size)))
