"""make_backup: everything that is not weights, as it was at one moment, while servers go on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, Table, select

from ... import __version__
from ..ledger.entry import to_line
from ..ledger.segments import Cursor, Place, Segments
from ..store.database import Store
from ..store.metadata import metadata
from ..store.migrate import head
from ..store.tables.ledger import usage_journals
from .archive import ArchiveWriter, BackupError, Manifest, opened
from .rows import kinds, to_lines

JOURNAL = "journal.jsonl"
CONFIGURATION = "configuration"

_BATCH = 1000


def make_backup(
    path: Path, store: Store, *, journal: Path | None = None, configuration: Path | None = None, force: bool = False
) -> Manifest:
    """Write a backup, read it again to see that it is whole, and return its manifest.

    The rows are those of one moment: writers neither wait nor are seen half done. What the ledger's journal had
    for the database and had not brought yet goes along. Raises BackupError, StoreError and OSError.
    """
    if path.exists() and not force:
        raise BackupError(f"{path} exists already: name another file, or use --force")
    if not path.parent.is_dir():
        raise BackupError(f"{path.parent} is no folder")
    place = Place() if journal is None else Segments(journal).load_place("database")  # before the moment: nothing lacks
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=path.parent) as folder:
        writer = ArchiveWriter(path, Path(folder))
        positions = store.look(partial(_dump, writer=writer))
        writer.add(JOURNAL, () if journal is None else _undelivered(journal, place, positions))
        if configuration is not None:
            writer.add(f"{CONFIGURATION}{configuration.suffix}", [configuration.read_bytes()])
        manifest = Manifest(
            isotoken=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            database=store.dialect,
            tables=head(),
            members=writer.members,
        )
        writer.finish(manifest)
    with opened(path) as written:
        return written.manifest


def _dump(connection: Connection, *, writer: ArchiveWriter) -> dict[str, int]:
    """Write every table, and return how far each journal has come."""
    for table in metadata.sorted_tables:
        columns = kinds(table)
        writer.add(f"tables/{table.name}.jsonl", to_lines(_rows(connection, table), columns), kinds=columns)
    found = connection.execute(select(usage_journals.c.id, usage_journals.c.position))
    return {row.id: row.position for row in found}


def _rows(connection: Connection, table: Table) -> Iterator[Mapping[str, object]]:
    """Yield a table's rows, a few in memory at a time."""
    query = select(table).order_by(*table.primary_key)
    with connection.execution_options(yield_per=_BATCH).execute(query) as found:
        for row in found.mappings():
            yield {str(name): value for name, value in row.items()}


def _undelivered(folder: Path, place: Place, positions: Mapping[str, int]) -> Iterator[bytes]:
    cursor = Cursor(Segments(folder), place)
    while entries := cursor.read(_BATCH):
        for entry in entries:
            if entry.number > positions.get(entry.journal, 0):
                yield to_line(entry)
