"""Memory of our own: private mappings that begin as zeros, aligned, in huge pages, and given back at once."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

HUGE = 2 << 20
LINE = 64  # bytes of a cache line: everything begins at one
Array = NDArray[Any]


def round_up(size: int, multiple: int) -> int:
    """The smallest multiple that is no less than size."""
    return -(-size // multiple) * multiple


class Layout:
    """Places one behind the other, by name: sizes first, memory later."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._places: dict[str, tuple[int, int]] = {}

    def add(self, name: str, num_bytes: int) -> None:
        """Put a place of that many bytes behind those that are there."""
        assert name not in self._places, name
        self._places[name] = (self.num_bytes, num_bytes)
        self.num_bytes += round_up(num_bytes, LINE)

    def over(self, *others: Layout) -> None:
        """Put all places of each of the others at this layout's end: where one is in use, no other is."""
        base = self.num_bytes
        for other in others:
            self._places |= {name: (base + start, size) for name, (start, size) in other._places.items()}
            self.num_bytes = max(self.num_bytes, base + other.num_bytes)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def offset(self, name: str) -> int:
        """Where a place begins."""
        return self._places[name][0]

    def size(self, name: str) -> int:
        """How many bytes it has."""
        return self._places[name][1]


class Arena:
    """One private mapping of zeros, which the system commits as it is first written: in huge pages where it can."""

    def __init__(self, num_bytes: int) -> None:
        """Map at least one byte. Raises MemoryError saying how much was asked for."""
        self.num_bytes = max(num_bytes, 1)
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
        try:
            self._map = mmap.mmap(-1, self.num_bytes + HUGE, **private)
        except (OSError, ValueError) as error:
            raise MemoryError(f"backend native: the system gives no {self.num_bytes} bytes: {error}") from error
        _advise(self._map, "MADV_HUGEPAGE")
        _advise(self._map, "MADV_DONTDUMP")
        whole = np.frombuffer(self._map, np.uint8)
        start = -whole.ctypes.data % HUGE
        self.bytes: NDArray[np.uint8] = whole[start : start + self.num_bytes]  # beginning at a huge page
        self.address: int = self.bytes.ctypes.data

    def view(self, offset: int, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array in this memory."""
        item = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * item.itemsize
        assert offset + size <= self.num_bytes
        return self.bytes[offset : offset + size].view(item).reshape(shape)

    def close(self) -> None:
        """Give the memory back, whoever still looks at it: they see zeros. Twice is harmless."""
        _advise(self._map, "MADV_DONTNEED")
        self.bytes = np.empty(0, np.uint8)


def _advise(mapping: mmap.mmap, advice: str) -> None:
    """Tell the system how the memory is used, where it listens."""
    number = getattr(mmap, advice, None)
    if number is None:
        return
    try:
        mapping.madvise(number)
    except OSError:  # a kernel without huge pages
        return
