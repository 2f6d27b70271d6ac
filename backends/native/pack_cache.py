"""Packed weights on disk: a file for each model and form, written whole or not at all; the oldest make room."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.checkpoint import Checkpoint
from .weights_plan import Plan

log = logging.getLogger("isotoken.native")

MAX_BYTES = 32 << 30  # of all files together
MAX_FILES = 64
ABANDONED_SECONDS = 3600.0  # without a byte written: nobody does that to a file any more
HEADER = 4096  # bytes before the weights
BLOCK_BYTES = 8 << 20  # read at a time
MAGIC = b"isotoken packed weights 1\n"
UInt8 = NDArray[np.uint8]


class PackCache:
    """One file of the cache: what a plan makes of a checkpoint.

    Its name is a hash of the checkpoint's config, headers, sizes and times, and of the forms and places of all pieces,
    so a changed model has another. Instruction sets share files. Deleting files, or the folder, is always safe.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint, plan: Plan, max_bytes: int = MAX_BYTES) -> None:
        key = hashlib.sha256(f"{checkpoint.path.resolve()}\n{checkpoint.key}\n{plan.digest}".encode()).hexdigest()
        self.path = folder / f"{key}.packed"
        self._max_bytes = max_bytes

    def load(self, memory: UInt8) -> bool:
        """Fill memory from the file. False, with the memory in any state, where there is none or it is damaged."""
        try:
            with self.path.open("rb") as file:
                header = file.read(HEADER)
                if os.fstat(file.fileno()).st_size != HEADER + len(memory) or not header.startswith(MAGIC):
                    return self._damaged()
                for start in range(0, len(memory), BLOCK_BYTES):
                    file.readinto(memory[start : start + BLOCK_BYTES].data)
                if header != _header(memory):
                    return self._damaged()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            log.warning("backend native: packed weights %s cannot be read: %s", self.path, error)
            return False
        with contextlib.suppress(OSError):
            os.utime(self.path)  # used last
        log.info("backend native: packed weights were read from %s", self.path)
        return True

    def save(self, memory: UInt8) -> bool:
        """Keep what was packed, and say whether. A failure, or a full disk, costs the next start some time, no more."""
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep()
            size = HEADER + len(memory)
            if size > self._max_bytes or size > shutil.disk_usage(folder).free // 2:
                log.warning("backend native: there is no room to keep %d bytes of packed weights in %s", size, folder)
                return False
            self._make_room(size)
            self._write(memory)
        except OSError as error:
            log.warning(
                "backend native: option pack_cache: packed weights cannot be kept in %s (%s): name a folder that can "
                "be written, or off",
                folder,
                error,
            )
            return False
        log.info("backend native: packed weights are kept in %s", self.path)
        return True

    def _write(self, memory: UInt8) -> None:
        """Write beside the file, then rename: a reader sees nothing or all of it."""
        handle, name = tempfile.mkstemp(suffix=".tmp", dir=self.path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_header(memory))
                file.write(memory.data)
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _sweep(self) -> None:
        """Delete what processes left that were killed as they wrote."""
        for path, status in self._files("*.tmp"):
            if time.time() - status.st_mtime > ABANDONED_SECONDS:
                _delete(path)

    def _make_room(self, num_bytes: int) -> None:
        """Delete files, the least recently used first, until so many bytes more are within the bounds.

        What other processes are writing counts, and stays.
        """
        num_bytes += sum(status.st_size for _, status in self._files("*.tmp"))
        found = [(path, status) for path, status in self._files("*.packed") if path != self.path]
        found.sort(key=lambda pair: pair[1].st_mtime, reverse=True)
        for place, (path, status) in enumerate(found, start=2):
            num_bytes += status.st_size
            if num_bytes > self._max_bytes or place > MAX_FILES:
                _delete(path)

    def _files(self, pattern: str) -> Iterator[tuple[Path, os.stat_result]]:
        """Files of the folder. Others may delete them at any time: those are no more."""
        for path in self.path.parent.glob(pattern):
            with contextlib.suppress(OSError):
                yield path, path.stat()

    def _damaged(self) -> bool:
        log.warning("backend native: packed weights %s are damaged and will be made anew", self.path)
        return False


def _delete(path: Path) -> None:
    """Delete a file that others may have deleted, or may own."""
    with contextlib.suppress(OSError):
        path.unlink()


def _header(memory: UInt8) -> bytes:
    """What stands before the weights: their size and sum, which a file that was cut off or lost pages has not."""
    total = int(memory.view(np.uint64).sum(dtype=np.uint64))
    return (MAGIC + f"{len(memory)} {total}\n".encode()).ljust(HEADER, b"\0")
