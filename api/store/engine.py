"""SQLAlchemy engines as the store wants them: SQLite that several processes may share, PostgreSQL that may vanish."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from .errors import StoreError
from .settings import StoreSettings

SNAPSHOT = "isotoken_snapshot"
"""Execution option of connections that only read, and all of it as it was at one moment."""

_BUSY_TIMEOUT_MS = 10_000  # that a writer waits for another one

# FULL: what was committed is there after a power cut, for the ledger's journal forgets what the database has.
# secure_delete: what was deleted is not in the file any more.
_PRAGMAS = (
    f"busy_timeout = {_BUSY_TIMEOUT_MS}",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = ON",
)


def make_engine(settings: StoreSettings) -> Engine:
    """Return the engine, nothing connected yet. Raises StoreError for a URL that is none or of another database."""
    try:
        url = make_url(settings.resolved_url())
    except ArgumentError as error:
        raise StoreError(f"store.url is no database URL: {error}") from error
    match url.get_backend_name():
        case "sqlite":
            return _sqlite(url)
        case "postgresql" | "postgres":
            return _postgresql(url.set(drivername="postgresql+psycopg"), settings)
        case other:
            raise StoreError(f"store.url names the database {other!r}: SQLite and PostgreSQL are known")


def shown(engine: Engine) -> str:
    """Name the database for people, without its password."""
    return engine.url.render_as_string(hide_password=True)


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise StoreError("store.url names no file: a database in memory would be lost, write sqlite:///FILE")
    if not url.database.startswith("file:"):
        path = Path(url.database).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # hashes of keys are for its owner alone; what is there already keeps its permissions
    engine = create_engine(url)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # sqlite3 would begin transactions by rules of its own
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    _write_ahead(connection)


def _write_ahead(connection: Any) -> None:
    """Have readers and a writer not wait for each other, which the file remembers.

    SQLite does not wait for others by itself here: two servers that start together may meet on a new file.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    """Begin a transaction. A writer says so at once: one that reads first may find that it cannot write any more."""
    reads = connection.get_execution_options().get(SNAPSHOT, False)
    connection.exec_driver_sql("BEGIN DEFERRED" if reads else "BEGIN IMMEDIATE")


def _postgresql(url: URL, settings: StoreSettings) -> Engine:
    timeout_ms = int(settings.statement_timeout_s * 1000)
    return create_engine(
        url,
        pool_pre_ping=True,  # the server may have been restarted since
        pool_size=4,
        pool_timeout=settings.connect_timeout_s,
        connect_args={
            "connect_timeout": max(2, round(settings.connect_timeout_s)),
            "application_name": "isotoken",
            "options": f"-c statement_timeout={timeout_ms} -c timezone=UTC",
            "keepalives_idle": 10,
            "tcp_user_timeout": timeout_ms,
        },
    )
