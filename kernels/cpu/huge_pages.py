"""Memory for weights and caches: zeros, aligned, and in huge pages where the system has them."""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

HUGE_PAGE = 2 << 20  # bytes
ALIGNMENT = 64  # bytes, of anything


def allocate(num_bytes: int) -> NDArray[np.uint8]:
    """Return zeros [num_bytes], aligned to 64 bytes; what is large, to 2 MiB and in huge pages.

    Memory is taken from the system as it is first touched, and given back when the last view of it is gone.
    """
    large = num_bytes >= HUGE_PAGE
    alignment = HUGE_PAGE if large else ALIGNMENT
    if large and hasattr(mmap, "MAP_PRIVATE"):
        pages = mmap.mmap(-1, num_bytes + alignment, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            pages.madvise(mmap.MADV_HUGEPAGE)
        memory = np.frombuffer(pages, np.uint8)
    else:
        memory = np.zeros(num_bytes + alignment, np.uint8)
    begin = -memory.ctypes.data % alignment
    return memory[begin : begin + num_bytes]
