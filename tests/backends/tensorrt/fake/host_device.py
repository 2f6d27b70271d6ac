"""Device memory that is host memory, for the fake: every operation waits in the stream until somebody waits for it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from isotoken.backends.tensorrt.device import ALIGNMENT, Bytes, Where

HANDLES = itertools.count(0x1000)


class HostDevice:
    """A device named cuda:0 that lives in host memory."""

    name = "cuda:0"
    open: int = 0  # devices in `active` now

    def __init__(self, total: int = 1 << 30) -> None:
        from tensorrt import _world

        self._world = _world
        self.model = _world.GPU
        self.total = total
        self.used = 0
        self.num_recordings = 0
        self._stream = _world.Stream(next(HANDLES))
        self.stream = self._stream.handle

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        HostDevice.open += 1
        try:
            yield
        finally:
            HostDevice.open -= 1

    def free_bytes(self) -> tuple[int, int]:
        return self.total - self.used, self.total

    def allocate(self, num_bytes: int, what: str) -> HostMemory:
        if self.used + num_bytes > self.total:
            raise ValueError(f"no memory for {what}")
        return HostMemory(self, num_bytes)

    def allocate_host(self, num_bytes: int) -> Bytes:
        return np.full(num_bytes, 0xFF, np.uint8)  # NaN, for whoever does not wait

    def synchronize(self) -> None:
        self._stream.synchronize()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self._stream.recording = recorded = []
        try:
            work()
        finally:
            self._stream.recording = None
        self.num_recordings += 1

        def replay() -> None:
            for step in recorded:
                self.put(step)

        return replay

    def put(self, work: Callable[[], None]) -> None:
        assert HostDevice.open, "work for a device that is not the current one"
        self._stream.put(work)


class HostMemory:
    """Aligned as TensorRT asks, and no more: the next multiple of 512 is avoided."""

    def __init__(self, device: HostDevice, num_bytes: int) -> None:
        self._device = device
        self.num_bytes = max(num_bytes, 1)
        whole = np.zeros(self.num_bytes + 2 * ALIGNMENT, np.uint8)
        shift = -whole.ctypes.data % ALIGNMENT
        shift += ALIGNMENT * ((whole.ctypes.data + shift) % (2 * ALIGNMENT) == 0)
        self._bytes: Bytes = whole[shift : shift + self.num_bytes]
        self.address = self._bytes.ctypes.data
        device.used += self.num_bytes
        device._world.ALLOCATIONS[self.address] = self.num_bytes

    def __del__(self) -> None:
        self._device.used -= self.num_bytes
        self._device._world.ALLOCATIONS.pop(self.address, None)

    def upload(self, data: Bytes) -> None:
        kept = data.copy()
        assert len(kept) <= self.num_bytes
        self._later(lambda: np.copyto(self._bytes[: len(kept)], kept))

    def download(self, start: int, into: Bytes) -> None:
        assert start + len(into) <= self.num_bytes
        self._later(lambda: np.copyto(into, self._bytes[start : start + len(into)]))

    def copy(self, shape: tuple[int, ...], target: Where, source: Where) -> None:
        def copy() -> None:
            view: Any = self._bytes.reshape(shape)
            view[target] = view[source]

        self._later(copy)

    def clear(self, shape: tuple[int, ...], where: Where) -> None:
        def clear() -> None:
            self._bytes.reshape(shape)[where] = 0

        self._later(clear)

    def _later(self, work: Callable[[], None]) -> None:
        self._device.put(work)
