"""Bind a session's inputs and outputs to memory: K/V addresses once for each window of rows, the rest as needed."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from .memory import HostRows

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

MAX_WINDOWS = 256
"""Bindings kept: each holds a value of some hundred bytes for every layer's keys and values."""


class WindowBinding:
    """A graph bound to `count` rows from `first` on. Small inputs are written in place while their shape stays."""

    def __init__(self, session: ort.InferenceSession, rows: HostRows, first: int, count: int) -> None:
        self._session = session
        self._io = session.io_binding()
        self._count = count
        shape = (count, *rows.array.shape[2:])
        for index in range(len(rows.array)):
            layer, is_value = divmod(index, 2)
            name, address = ("value" if is_value else "key"), rows.address(index, first)
            self._io.bind_input(f"past_{name}.{layer}", "cpu", 0, rows.array.dtype.type, shape, address)
            self._io.bind_output(f"present_{name}.{layer}", "cpu", 0, rows.array.dtype.type, shape, address)
        self._seqlens = np.zeros(count, np.int32)  # tokens of each row after the run, less one
        self._total = np.zeros((), np.int32)
        self._io.bind_cpu_input("seqlens_k", self._seqlens)
        self._io.bind_cpu_input("total_sequence_length", self._total)
        self._ids = np.empty((0, 0), np.int64)
        self._indices: Int64 | None = None
        self._logits = (-1, -1)  # address and rows of the output

    def run(self, ids: Int64, places: Int64 | slice, ends: Int64, indices: Int64, logits: Float32) -> None:
        """Run tokens `ids` [count, S] and write logits [L, V] of the flat tokens `indices` [L].

        `ends` [n] are the lengths, this run's tokens included, of the rows at `places` of the window; the others are
        as if empty: one token of theirs is computed, at position 0.
        """
        if ids.shape == self._ids.shape:
            self._ids[:] = ids
        else:
            self._ids = np.ascontiguousarray(ids)
            self._io.bind_cpu_input("input_ids", self._ids)
        if self._indices is not None and len(indices) == len(self._indices):
            self._indices[:] = indices
        else:
            self._indices = indices.copy()
            self._io.bind_cpu_input("logits_indices", self._indices)
        if self._logits != (logits.ctypes.data, len(logits)):
            self._logits = (logits.ctypes.data, len(logits))
            self._io.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        self._seqlens.fill(0)
        self._seqlens[places] = ends - 1
        self._total[...] = ends.max()
        self._session.run_with_iobinding(self._io)


class Bindings:
    """The windows in use, most recently used last."""

    def __init__(self, session: ort.InferenceSession, rows: HostRows) -> None:
        self._session = session
        self._rows = rows
        self._windows: OrderedDict[tuple[int, int], WindowBinding] = OrderedDict()

    def window(self, first: int, count: int) -> WindowBinding:
        """The binding of `count` rows from `first` on."""
        window = self._windows.get((first, count))
        if window is None:
            if len(self._windows) >= MAX_WINDOWS:
                self._windows.popitem(last=False)
            window = self._windows[first, count] = WindowBinding(self._session, self._rows, first, count)
        else:
            self._windows.move_to_end((first, count))
        return window

    def clear(self) -> None:
        """Let go of the memory."""
        self._windows.clear()
