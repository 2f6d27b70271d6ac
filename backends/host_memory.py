"""Main memory: how much can be had, and how sizes are written."""

from __future__ import annotations

from pathlib import Path

import psutil


def gib(num_bytes: int) -> str:
    """Write a size in GiB."""
    return f"{num_bytes / 2**30:.2f} GiB"


def available_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return main memory that can be had, the container's limit respected; what files take in it makes room."""
    free = int(psutil.virtual_memory().available)
    limit, used, stat = (cgroup / name for name in ("memory.max", "memory.current", "memory.stat"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdecimal():
        parts = dict(line.split() for line in stat.read_text().splitlines()) if stat.exists() else {}
        held = int(used.read_text()) - int(parts.get("inactive_file", 0))
        free = min(free, max(int(text) - held, 0))
    return free
