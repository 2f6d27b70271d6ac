"""Logits on their way to the host, where tokens are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.batch import Float32, Int64
from .device import Bytes, Device, Memory


class Logits:
    """Float32 logits [L, V] that the device may still be computing: reading them as an array waits for it."""

    def __init__(self, device: Device, rows: Float32) -> None:
        self._device, self._rows = device, rows

    @property
    def shape(self) -> tuple[int, ...]:
        """[L, V]."""
        return self._rows.shape

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Rows, as of an array. Waits for the device."""
        chosen: NDArray[Any] = np.asarray(self)[rows]
        return chosen

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Wait for the device."""
        self._device.synchronize()
        return np.array(self._rows, dtype=dtype, copy=copy)


class Outbox:
    """Host memory that each run's logits are copied to, every row to its place in the batch."""

    def __init__(self, device: Device, max_rows: int, vocab_size: int) -> None:
        self._device, self._row_bytes = device, 4 * vocab_size
        self._bytes: Bytes = device.allocate_host(max_rows * self._row_bytes)
        self._rows: Float32 = self._bytes.view(np.float32).reshape(max_rows, vocab_size)

    def collect(self, memory: Memory, sources: Int64, targets: Int64) -> None:
        """Copy rows of device memory [_, V]: sources[i] to targets[i], neighbours in one piece."""
        if not len(sources):
            return
        size = self._row_bytes
        cuts = np.flatnonzero((np.diff(sources) != 1) | (np.diff(targets) != 1)) + 1
        for source, target in zip(np.split(sources, cuts), np.split(targets, cuts), strict=True):
            start = int(target[0]) * size
            memory.download(int(source[0]) * size, self._bytes[start : start + len(target) * size])

    def logits(self, num_rows: int) -> Logits:
        """Return the rows of the forward that was put on the stream; valid until the next."""
        return Logits(self._device, self._rows[:num_rows])
