"""Bind a session's inputs and outputs to memory: K/V addresses once for each window of rows, the rest as needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from .forms import Form, Onward, advance_gqa, gqa_inputs

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

MAX_WINDOWS = 256
"""Bindings kept: each holds a value of some hundred bytes for every layer's keys and values."""


class Rows(Protocol):
    """K/V memory that a session can be bound to."""

    device: tuple[str, int]  # as ONNX Runtime calls it: ("cpu", 0)
    element_type: Any  # as ONNX Runtime's bind_input takes it

    @property
    def array(self) -> Any:
        """All rows [2 * layers, rows, kv_heads, positions, D]."""
        ...

    def address(self, index: int, row: int) -> int:
        """Where a row begins in keys or values number `index` of 2 * layers."""
        ...

    def feeds(self, io: ort.IOBinding) -> Feeds:
        """Return what feeds a binding's small inputs and takes its logits."""
        ...


class Feeds(Protocol):
    """A binding's small inputs and its logits."""

    def put(self, name: str, values: NDArray[Any]) -> None:
        """Give an input its values, in place while its shape stays."""
        ...

    def want(self, logits: Float32) -> None:
        """Say where the logits [L, V] are to go."""
        ...

    def fetch(self, logits: Float32) -> None:
        """Wait until they are there."""
        ...

    @property
    def bound(self) -> Mapping[str, NDArray[Any]] | None:
        """The inputs by name, to be written in place, where they are numpy arrays."""
        ...


class HostFeeds:
    """Inputs and logits in numpy arrays that the session reads and writes itself."""

    def __init__(self, io: ort.IOBinding) -> None:
        self._io = io
        self._inputs: dict[str, NDArray[Any]] = {}
        self._logits = (-1, -1)  # address and rows of the output

    def put(self, name: str, values: NDArray[Any]) -> None:
        """See Feeds."""
        bound = self._inputs.get(name)
        if bound is not None and bound.shape == values.shape:
            bound[...] = values
            return
        bound = self._inputs[name] = values.copy()
        self._io.bind_cpu_input(name, bound)

    def want(self, logits: Float32) -> None:
        """See Feeds."""
        address: int = logits.__array_interface__["data"][0]  # a quarter of the time that logits.ctypes.data takes
        if (address, len(logits)) != self._logits:
            self._logits = address, len(logits)
            self._io.bind_output("logits", "cpu", 0, np.float32, logits.shape, address)

    def fetch(self, logits: Float32) -> None:
        """See Feeds."""

    @property
    def bound(self) -> Mapping[str, NDArray[Any]]:
        """See Feeds."""
        return self._inputs


class WindowBinding:
    """A graph bound to `count` rows from `first` on."""

    def __init__(self, session: ort.InferenceSession, rows: Rows, form: Form, first: int, count: int) -> None:
        self._session, self._form = session, form
        self._io = session.io_binding()
        self._feeds = rows.feeds(self._io)
        shape = (count, *rows.array.shape[2:])
        for index in range(len(rows.array)):
            layer, is_value = divmod(index, 2)
            name = "value" if is_value else "key"
            place = (*rows.device, rows.element_type, shape, rows.address(index, first))
            self._io.bind_input(f"past_{name}.{layer}", *place)
            self._io.bind_output(f"present_{name}.{layer}", *place)

    def run(
        self,
        ids: Int64,
        places: Int64 | slice,
        ends: Int64,
        indices: Int64,
        logits: Float32,
        options: ort.RunOptions | None = None,
    ) -> None:
        """Run tokens `ids` [count, S] and write logits [L, V] of the flat tokens `indices` [L]. See Form."""
        feeds = self._feeds
        for name, values in self._form(ids, places, ends).items():
            feeds.put(name, values)
        feeds.put("logits_indices", indices)
        feeds.want(logits)
        self._session.run_with_iobinding(self._io, options)
        feeds.fetch(logits)

    def run_on(self, step: Onward, logits: Float32) -> None:
        """See Window."""
        bound = self._feeds.bound
        if bound is None or self._form is not gqa_inputs:
            run_anew(self, step, logits)
            return
        advance_gqa(bound, step)
        self._session.run_with_iobinding(self._io)


class Window(Protocol):
    """Some neighbouring rows that a graph can be run on."""

    def run(self, ids: Int64, places: Int64 | slice, ends: Int64, indices: Int64, logits: Float32) -> None:
        """Run tokens `ids` [count, S] and write logits [L, V] of the flat tokens `indices` [L]. See Form."""
        ...

    def run_on(self, step: Onward, logits: Float32) -> None:
        """Run one more token of each row after a run of one token each, with the same indices and logits."""
        ...


def run_anew(window: Window, step: Onward, logits: Float32) -> None:
    """Run a step that goes on as if nothing were known of the one before."""
    ids = np.empty((len(step.places), 1), np.int64)
    ids[step.places, 0] = step.tokens
    window.run(ids, step.places, step.positions.astype(np.int64) + 1, step.places, logits)


class Bindings:
    """The windows in use, most recently used last. `bind(first, count)` makes one."""

    def __init__(self, bind: Callable[[int, int], Window]) -> None:
        self._bind = bind
        self._windows: OrderedDict[tuple[int, int], Window] = OrderedDict()

    def window(self, first: int, count: int) -> Window:
        """The binding of `count` rows from `first` on."""
        window = self._windows.get((first, count))
        if window is None:
            if len(self._windows) >= MAX_WINDOWS:
                self._windows.popitem(last=False)
            window = self._windows[first, count] = self._bind(first, count)
        else:
            self._windows.move_to_end((first, count))
        return window

    def clear(self) -> None:
        """Let go of the memory."""
        self._windows.clear()
