"""DatabaseSink: entries and their sums in the store, each exactly once, however often the journal brings them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Insert, Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError

from ..store.database import Store
from ..store.tables.ledger import usage_days, usage_entries, usage_journals
from .courier import EntryRejected
from .entry import UsageEntry

if TYPE_CHECKING:
    from .retention import Keeper

SUMS = ("prompt_tokens", "cached_tokens", "generated_tokens", "drafted_tokens", "accepted_tokens", "cost")
GROUP = ("day", "tenant", "key_id", "model", "version", "arm")

_COPIED = ("id", "request_id", "tenant", "key_id", "model", "version", "arm", "route", "status", "finish_reason", *SUMS)


class DatabaseSink:
    """The ledger's own sink; a keeper removes what is too old."""

    def __init__(self, store: Store, keeper: Keeper | None = None) -> None:
        self._store = store
        self._keeper = keeper

    def write(self, entries: Sequence[UsageEntry]) -> None:
        """Add entries in one transaction. Raises StoreError when the database is gone."""
        try:
            self._store.call(partial(add_entries, entries=entries))
        except DataError as error:
            raise EntryRejected(str(error.orig)) from error
        if self._keeper is not None:
            self._keeper.now_and_then()

    def close(self) -> None:
        """Leave the store to whoever opened it."""


def add_entries(connection: Connection, entries: Sequence[UsageEntry]) -> int:
    """Add those entries that are not there yet, and count them in the sums. Returns how many.

    Two things keep an entry from being counted twice: each journal's position, which outlives entries that were
    deleted for their age, and the entry's own id.
    """
    by_journal: dict[str, list[UsageEntry]] = defaultdict(list)
    for entry in entries:
        by_journal[entry.journal].append(entry)
    num_added = 0
    for journal, own in sorted(by_journal.items()):
        position = _position(connection, journal)
        fresh = _insert(connection, [entry for entry in own if entry.number > position])
        _add_to_days(connection, fresh)
        _advance(connection, journal, max(position, own[-1].number))
        num_added += len(fresh)
    return num_added


def _position(connection: Connection, journal: str) -> int:
    query = select(usage_journals.c.position).where(usage_journals.c.id == journal)
    return connection.execute(query.with_for_update()).scalar_one_or_none() or 0


def _insert(connection: Connection, entries: Sequence[UsageEntry]) -> list[UsageEntry]:
    """Insert entries and return those that were not there."""
    if not entries:
        return []
    by_id = {entry.id: entry for entry in entries}
    statement = upsert(connection, usage_entries).on_conflict_do_nothing().returning(usage_entries.c.id)
    added = connection.execute(statement, [_row(entry) for entry in by_id.values()]).scalars()
    return [by_id[each] for each in added]


def _row(entry: UsageEntry) -> dict[str, Any]:
    row = {name: getattr(entry, name) for name in _COPIED}
    return row | {"started": entry.started_at, "ended": entry.ended_at, "day": entry.day}


def _add_to_days(connection: Connection, entries: Iterable[UsageEntry]) -> None:
    sums: dict[tuple[Any, ...], dict[str, int]] = {}
    group_of = attrgetter(*GROUP)
    for entry in entries:
        total = sums.setdefault(group_of(entry), dict.fromkeys(("requests", "failed", *SUMS), 0))
        total["requests"] += 1
        total["failed"] += entry.status >= 400
        for name in SUMS:
            total[name] += getattr(entry, name)
    if not sums:
        return
    statement = upsert(connection, usage_days)
    added = {name: usage_days.c[name] + statement.excluded[name] for name in ("requests", "failed", *SUMS)}
    statement = statement.on_conflict_do_update(index_elements=GROUP, set_=added)
    # In one order everywhere, so that no two servers wait for each other.
    connection.execute(
        statement, [dict(zip(GROUP, group, strict=True)) | total for group, total in sorted(sums.items())]
    )


def _advance(connection: Connection, journal: str, position: int) -> None:
    statement = upsert(connection, usage_journals)
    statement = statement.on_conflict_do_update(
        index_elements=("id",), set_={"position": statement.excluded.position, "updated": statement.excluded.updated}
    )
    connection.execute(statement, {"id": journal, "position": position, "updated": datetime.now(UTC)})


def upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert | Any:
    """Return the database's own INSERT, which knows ON CONFLICT."""
    insert: Insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
    return insert
