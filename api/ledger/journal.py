"""Journal: entries on the disk, appended before anything else happens to them, so that no crash forgets a request.

A folder of numbered segments, each line with a checksum. Every start draws a new name for its entries and begins a new
segment: no number is ever given twice, and what a power cut tore stays where it is and is passed over. `append` writes
to the system's page cache, which outlives the process; `sync`, in a thread, brings what was written to the disk itself.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..store.errors import StoreError
from .entry import UsageEntry, to_line
from .segments import Segments

log = logging.getLogger("isotoken.ledger")

SEGMENT_BYTES = 16 << 20


class Journal:
    """The one writer of a folder. `append` is for one thread, `sync` for another one."""

    def __init__(self, folder: Path, *, max_unwritten: int = 100_000, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Take the folder. Raises StoreError where another process has it, OSError where it cannot be written to."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.segments = Segments(folder)
        self._lock = _take(folder)
        self.id = secrets.token_hex(8)
        self.last_number = 0  # of the newest entry
        self.written_number = 0  # of the newest one that is in a file
        self.unwritten: deque[UsageEntry] = deque(maxlen=max_unwritten)  # the disk would not take them
        self.num_dropped = 0
        self.error = ""  # why the disk does not take entries now
        self._segment_bytes = segment_bytes
        self._descriptor = -1
        self._size = 0
        self._is_dirty = False  # something was written that may not be on the disk yet
        self._retired: list[int] = []  # descriptors of files that are full, to be flushed for the last time
        self._guard = threading.Lock()  # of the descriptor, between appending and syncing

    @property
    def is_full(self) -> bool:
        """Whether one more entry would push out another one."""
        return len(self.unwritten) == self.unwritten.maxlen

    def append(self, make: Callable[[str, int], UsageEntry]) -> UsageEntry:
        """Number an entry and write it. Where the disk does not take it, it is kept in memory until it does."""
        with self._guard:
            entry = make(self.id, self.last_number + 1)
            self.last_number = entry.number
            if self.error:  # in order: what waits goes first
                self._keep(entry)
            else:
                try:
                    self._write(entry)
                except OSError as error:
                    self._fail(error)
                    self._keep(entry)
        return entry

    def sync(self) -> None:
        """Bring all that was written to the disk, and write what waits."""
        with self._guard:
            if self.error:
                self._write_unwritten()
            if not self._is_dirty or self._descriptor < 0:
                return
            self._is_dirty = False
            written, self._retired = [*self._retired, os.dup(self._descriptor)], []
        for descriptor in written:  # appending goes on meanwhile
            try:
                os.fdatasync(descriptor)
            except OSError as error:  # the sinks read the cache: all that is lost is safety from a power cut
                log.error("the ledger's journal in %s could not be flushed to the disk: %s", self.folder, error)
            finally:
                os.close(descriptor)
        _sync_folder(self.folder)

    def delivered(self, number: int) -> None:
        """Forget what waits in memory up to `number`: it is in the database."""
        with self._guard:
            while self.unwritten and self.unwritten[0].number <= number:
                self.unwritten.popleft()

    def waiting(self, after: int, limit: int) -> list[UsageEntry]:
        """Return entries behind number `after` that only memory has; none while files have some behind it too."""
        with self._guard:
            if after < self.written_number:
                return []
            return [entry for entry in self.unwritten if entry.number > after][:limit]

    def close(self) -> None:
        """Flush, and let go of the folder."""
        self.sync()
        with self._guard:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _write(self, entry: UsageEntry) -> None:
        if self._descriptor < 0 or self._size >= self._segment_bytes:
            self._begin()
        line = to_line(entry)
        written = os.write(self._descriptor, line)
        if written < len(line):  # the disk became full in the middle of it
            os.ftruncate(self._descriptor, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written
        self._is_dirty = True
        self.written_number = entry.number

    def _begin(self) -> None:
        path = self.segments.path(self.segments.last_index() + 1)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        if self._descriptor >= 0:
            self._retired.append(self._descriptor)
        self._descriptor, self._size = descriptor, 0

    def _write_unwritten(self) -> None:
        try:
            _probe(self.folder)
            while self.unwritten:
                self._write(self.unwritten[0])
                self.unwritten.popleft()
        except OSError as error:
            self.error = str(error)
        else:
            log.warning("the ledger's journal in %s can be written to again", self.folder)
            self.error = ""

    def _keep(self, entry: UsageEntry) -> None:
        if self.is_full:
            self.num_dropped += 1
        self.unwritten.append(entry)

    def _fail(self, error: OSError) -> None:
        log.error("the ledger's journal in %s cannot be written to: %s; entries are kept in memory", self.folder, error)
        self.error = str(error)


@contextmanager
def taken(folder: Path) -> Iterator[None]:
    """Keep every server away from a folder. Raises StoreError where one has it."""
    descriptor = _take(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def _take(folder: Path) -> int:
    """Lock the folder for this process; the lock goes with it, however it ends."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreError(
            f"another server writes its ledger to {folder}: give each server a ledger.folder of its own"
        ) from None
    return descriptor


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _probe(folder: Path) -> None:
    """Raise OSError where nothing can be written: what waited may all be delivered by now, and say nothing."""
    path = folder / "probe"
    try:
        path.write_bytes(bytes(4096))
    finally:
        path.unlink(missing_ok=True)
