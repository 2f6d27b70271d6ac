"""Retention: entries and sums go when their time is up, and a tenant's go when it is told to."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial

from sqlalchemy import ColumnElement, Connection, Table, delete, select, tuple_

from ..store.database import Store
from ..store.tables.ledger import usage_days, usage_entries, usage_journals
from .database import GROUP, SUMS, upsert
from .settings import Retention

log = logging.getLogger("isotoken.ledger")

INTERVAL_S = 3600.0
CHUNK = 1000
"""Rows deleted in one transaction: others get their turn between."""

JOURNALS_DAYS = 400
"""How long the place of a journal is remembered to which nothing is added any more."""

DELETED = "deleted"
"""The tenant that the sums of deleted tenants are counted for, where they are kept."""


@dataclass(frozen=True, slots=True)
class Removed:
    """How much went."""

    entries: int = 0
    sums: int = 0


class Keeper:
    """Removes what is too old, now and then. Called in the ledger's thread."""

    def __init__(self, store: Store, retention: Retention, *, today: Callable[[], date] | None = None) -> None:
        self._store = store
        self._retention = retention
        self._today = today or (lambda: datetime.now(UTC).date())
        self._last = 0.0  # time.monotonic()

    def now_and_then(self) -> None:
        """Look whether anything is due. Raises StoreError."""
        if self._last and time.monotonic() - self._last < INTERVAL_S:
            return
        self._last = time.monotonic()
        removed = self.remove_old()
        if removed.entries or removed.sums:
            log.info("retention: %d usage entries and %d sums went", removed.entries, removed.sums)

    def remove_old(self) -> Removed:
        """Remove what is too old and return how much that was. Raises StoreError."""
        kept = self._retention
        entries = sums = 0
        if kept.entries_days:
            entries = remove(self._store, usage_entries, usage_entries.c.day < self._before(kept.entries_days))
        if kept.totals_days:
            sums = remove(self._store, usage_days, usage_days.c.day < self._before(kept.totals_days))
        oldest = datetime.now(UTC) - timedelta(days=JOURNALS_DAYS)
        remove(self._store, usage_journals, usage_journals.c.updated < oldest)
        return Removed(entries, sums)

    def _before(self, days: int) -> date:
        return self._today() - timedelta(days=days)


def remove(store: Store, table: Table, condition: ColumnElement[bool]) -> int:
    """Remove rows, some at a time. Returns how many."""
    key = list(table.primary_key)
    removed = 0
    while True:
        count = store.call(partial(_remove_some, table=table, key=key, condition=condition))
        removed += count
        if count < CHUNK:
            return removed


def _remove_some(
    connection: Connection, *, table: Table, key: Sequence[ColumnElement[object]], condition: ColumnElement[bool]
) -> int:
    some = select(*key).where(condition).limit(CHUNK)
    return connection.execute(delete(table).where(tuple_(*key).in_(some))).rowcount


def delete_tenant(store: Store, tenant: str, *, keep_totals: bool) -> Removed:
    """Remove a tenant's entries, and its sums; `keep_totals`: they are counted for DELETED, without its keys.

    What the law wants kept of bills is the sums; what it wants deleted of persons is all that leads to them.
    """
    entries = remove(store, usage_entries, usage_entries.c.tenant == tenant)
    sums = store.call(partial(_delete_sums, tenant=tenant, keep_totals=keep_totals))
    return Removed(entries, sums)


def _delete_sums(connection: Connection, *, tenant: str, keep_totals: bool) -> int:
    rows = [dict(row) for row in connection.execute(select(usage_days).where(usage_days.c.tenant == tenant)).mappings()]
    if keep_totals:
        for row in rows:
            _count_for_nobody(connection, row)
    connection.execute(delete(usage_days).where(usage_days.c.tenant == tenant))
    return len(rows)


def _count_for_nobody(connection: Connection, row: dict[str, object]) -> None:
    statement = upsert(connection, usage_days)
    names = ("requests", "failed", *SUMS)
    added = {name: usage_days.c[name] + statement.excluded[name] for name in names}
    statement = statement.on_conflict_do_update(index_elements=GROUP, set_=added)
    connection.execute(statement, row | {"tenant": DELETED, "key_id": ""})
