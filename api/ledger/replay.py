"""replay: bring a journal's entries to a database that lacks them, such as one restored from a backup."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..store.database import Store
from .courier import BATCH
from .database import add_entries
from .journal import taken
from .segments import Cursor, Segments


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of it."""

    read: int
    added: int
    damaged: int


def replay(folder: Path, store: Store) -> Replayed:
    """Bring all entries of a journal whose server is stopped. Raises StoreError where it is not."""
    read = added = 0
    with taken(folder):
        cursor = Cursor(Segments(folder))
        while entries := cursor.read(BATCH):
            read += len(entries)
            added += store.call(partial(add_entries, entries=entries))
    return Replayed(read, added, cursor.num_damaged)
