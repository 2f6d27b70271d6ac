"""Main memory: how much can be had, and how sizes are written."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray


def gib(num_bytes: int) -> str:
    """Write a size in GiB."""
    return f"{num_bytes / 2**30:.2f} GiB"


def mib(num_bytes: int) -> str:
    """Write a size in MiB."""
    return f"{num_bytes / 2**20:.1f} MiB"


def available_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return main memory that can be had, the container's limit respected; what files take in it makes room."""
    free = int(psutil.virtual_memory().available)
    limit, used, stat = (cgroup / name for name in ("memory.max", "memory.current", "memory.stat"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdecimal():
        parts = dict(line.split() for line in stat.read_text().splitlines()) if stat.exists() else {}
        held = int(used.read_text()) - int(parts.get("inactive_file", 0))
        free = min(free, max(int(text) - held, 0))
    return free


def byte_bounds(array: NDArray[Any]) -> tuple[int, int]:
    """Return the address of an array's first byte and of the one behind its last, both the same where it is empty."""
    start = array.ctypes.data
    if not array.size:
        return start, start
    reaches = [(count - 1) * stride for count, stride in zip(array.shape, array.strides, strict=True)]
    low, high = (sum(pick(reach, 0) for reach in reaches) for pick in (min, max))
    return start + low, start + high + array.itemsize


def release_pages(array: NDArray[Any]) -> None:
    """Let the system take back the memory of a file mapping that has been copied; nothing where it is no mapping."""
    owner: Any = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    if not isinstance(owner, mmap.mmap) or not hasattr(owner, "madvise"):
        return
    base = np.frombuffer(owner, dtype=np.uint8).ctypes.data
    low, high = byte_bounds(array)
    start = -(-(low - base) // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages only: neighbours may still be in use
    stop = (high - base) // mmap.PAGESIZE * mmap.PAGESIZE
    if stop > start:
        owner.madvise(mmap.MADV_DONTNEED, start, stop - start)
