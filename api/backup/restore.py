"""restore_backup: put a backup's rows into a database, all of them or none."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, MetaData, Table, func, insert, inspect, select, text

from ..ledger.database import add_entries
from ..ledger.entry import from_line
from ..ledger.journal import taken
from ..ledger.segments import Segments
from ..store.database import Store
from ..store.migrate import bring_to, head, is_known
from .archive import ArchiveReader, BackupError, Manifest, opened
from .make import CONFIGURATION, JOURNAL
from .rows import from_lines

T = TypeVar("T")

VERSIONS = "alembic_version"

_BATCH = 1000


def restore_backup(
    path: Path,
    store: Store,
    *,
    journal: Path | None = None,
    configuration_to: Path | None = None,
    force: bool = False,
) -> Manifest:
    """Restore a backup and return its manifest. The servers of the database must be stopped.

    Everything is checked before anything is touched, and the database changes in one transaction. A journal that is
    still there is read again from its start when its server starts: requests that ended after the backup are counted
    again, those that are in it are not. Raises BackupError and StoreError.
    """
    with opened(path) as archive:
        manifest = archive.manifest
        if not is_known(manifest.tables):
            raise BackupError(f"{path} is of isotoken {manifest.isotoken}, which is newer: update isotoken")
        if configuration_to is not None and configuration_to.exists() and not force:
            raise BackupError(f"{configuration_to} exists already: name another file, or use --force")
        with nullcontext() if journal is None or not journal.is_dir() else taken(journal):
            store.call(partial(_put, archive=archive, force=force))
            if journal is not None and journal.is_dir():
                Segments(journal).forget_places()
        if configuration_to is not None:
            _write_configuration(archive, configuration_to)
    return manifest


def _put(connection: Connection, *, archive: ArchiveReader, force: bool) -> None:
    _clear(connection, force=force)
    bring_to(connection, archive.manifest.tables)
    tables = MetaData()
    tables.reflect(connection)  # as they are in that version
    for name, member in archive.manifest.members.items():
        if name.startswith("tables/"):
            table = tables.tables[name.removeprefix("tables/").removesuffix(".jsonl")]
            _insert(connection, table, archive.lines(name), member.kinds)
    bring_to(connection, head())
    for lines in _batches(archive.lines(JOURNAL)):
        add_entries(connection, [from_line(line) for line in lines])


def _clear(connection: Connection, *, force: bool) -> None:
    """Remove all tables. Raises BackupError where one has rows, unless `force`."""
    present = MetaData()
    present.reflect(connection)
    for table in present.tables.values():
        if force or table.name == VERSIONS:
            continue
        if connection.execute(select(func.count()).select_from(table)).scalar_one():
            raise BackupError(
                f"the database has rows already (in {table.name}): use --force to replace everything in it"
            )
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    present.drop_all(connection)


def _insert(connection: Connection, table: Table, lines: Iterable[bytes], kinds: dict[str, str]) -> None:
    has_zones = connection.dialect.name == "postgresql"
    for rows in _batches(from_lines(lines, kinds, has_zones=has_zones)):
        connection.execute(insert(table), rows)
    if connection.dialect.name == "postgresql":
        _advance_sequences(connection, table)


def _advance_sequences(connection: Connection, table: Table) -> None:
    """Let the database go on counting behind the numbers that were put in."""
    for column in inspect(connection).get_columns(table.name):
        query = text("SELECT pg_get_serial_sequence(:table, :column)")
        sequence = connection.execute(query, {"table": table.name, "column": column["name"]}).scalar_one()
        if sequence is not None:
            highest = connection.execute(select(func.max(table.c[column["name"]]))).scalar_one()
            if highest is not None:
                connection.execute(
                    text("SELECT setval(:sequence, :highest)"), {"sequence": sequence, "highest": highest}
                )


def _write_configuration(archive: ArchiveReader, path: Path) -> None:
    name = next((name for name in archive.manifest.members if name.startswith(CONFIGURATION)), None)
    if name is None:
        raise BackupError("the backup has no configuration in it: it was made without --config")
    path.touch(mode=0o600)
    path.write_bytes(archive.content(name))


def _batches(items: Iterable[T]) -> Iterator[list[Any]]:
    source = iter(items)
    while batch := list(itertools.islice(source, _BATCH)):
        yield batch
