"""Segments: the journal's files, and a cursor that reads entries from them in order."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .entry import UsageEntry, from_line

log = logging.getLogger("isotoken.ledger")

_SUFFIX = ".jsonl"


class Place(NamedTuple):
    """A place between two entries."""

    file: int = 0  # its number
    offset: int = 0  # bytes


class Segments:
    """The files of one journal's folder, numbered from 1 on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, index: int) -> Path:
        """Return a file's path."""
        return self.folder / f"{index:08d}{_SUFFIX}"

    def indices(self) -> list[int]:
        """Return the numbers of the files that are there, in order."""
        return sorted(int(path.stem) for path in self.folder.glob(f"*{_SUFFIX}") if path.stem.isdigit())

    def last_index(self) -> int:
        """Return the number of the newest file; 0 where there is none."""
        return max(self.indices(), default=0)

    def remove_before(self, index: int, *, older_than_s: float) -> int:
        """Remove files before `index` to which nothing was added for so long. Returns how many."""
        oldest = time.time() - older_than_s
        old = [self.path(each) for each in self.indices() if each < index]
        gone = [path for path in old if path.stat().st_mtime < oldest]
        for path in gone:
            path.unlink()
        return len(gone)

    def load_place(self, name: str) -> Place:
        """Return how far the reader called `name` has come: the beginning, where that is not known.

        Whoever reads knows an entry again by its id. A place behind all files is of files that somebody has removed:
        those to come begin to count anew, and would not be read.
        """
        try:
            index, offset = (self.folder / f"{name}.place").read_text().split()
            place = Place(int(index), int(offset))
        except (FileNotFoundError, ValueError):
            return Place()
        return place if place.file <= self.last_index() else Place()

    def save_place(self, name: str, place: Place) -> None:
        """Note how far the reader called `name` has come. Raises OSError."""
        draft = self.folder / f"{name}.place.new"
        draft.write_text(f"{place.file} {place.offset}")
        draft.replace(self.folder / f"{name}.place")

    def forget_places(self) -> None:
        """Let every reader begin anew, after its database was set back."""
        for path in self.folder.glob("*.place"):
            path.unlink()


class Cursor:
    """Reads entries from a place on, and later those that were added since."""

    def __init__(self, segments: Segments, place: Place | None = None) -> None:
        self._segments = segments
        self.place = place or Place()
        self.num_damaged = 0  # lines passed over

    def read(self, limit: int) -> list[UsageEntry]:
        """Return the next entries, at most `limit`."""
        entries: list[UsageEntry] = []
        while True:
            following = self._following()  # before the file is read: where there is one, this one is complete
            for entry, end in self._rest_of_file():
                self.place = self.place._replace(offset=end)
                if entry is not None:
                    entries.append(entry)
                if len(entries) == limit:
                    return entries
            if following is None:
                return entries
            self.place = Place(following)

    def _following(self) -> int | None:
        return next((index for index in self._segments.indices() if index > self.place.file), None)

    def _rest_of_file(self) -> Iterator[tuple[UsageEntry | None, int]]:
        """Yield each whole line's entry, None for a damaged one, and where it ends."""
        try:
            file = self._segments.path(self.place.file).open("rb")
        except FileNotFoundError:  # none yet, or removed since: all in it was delivered
            return
        with file:
            offset = self.place.offset
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):  # still being written, or torn
                    return
                offset += len(line)
                yield self._parse(line), offset

    def _parse(self, line: bytes) -> UsageEntry | None:
        try:
            return from_line(line)
        except ValueError as error:
            self.num_damaged += 1
            log.error("a line of the ledger's journal in %s is damaged: %s", self._segments.folder, error)
            return None
