"""The store in both databases: transactions, snapshots, failures in words that help."""

from __future__ import annotations

import asyncio
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from isotoken.api.store import StoreError, StoreSettings, StoreUnavailable, open_store
from isotoken.api.store.database import Store
from isotoken.api.store.metadata import Timestamp, metadata
from sqlalchemy import Column, Connection, Integer, MetaData, Table, insert, select
from sqlalchemy.exc import IntegrityError

notes = Table("notes", MetaData(), Column("id", Integer, primary_key=True), Column("moment", Timestamp()))


@pytest.fixture
def with_notes(store: Store) -> Store:
    store.call(notes.metadata.create_all)
    return store


def add(connection: Connection, *ids: int) -> None:
    connection.execute(insert(notes), [{"id": each, "moment": None} for each in ids])


def ids(connection: Connection) -> list[int]:
    return list(connection.execute(select(notes.c.id).order_by(notes.c.id)).scalars())


def test_what_returns_is_committed_and_what_raises_is_undone(with_notes: Store) -> None:
    with_notes.call(lambda connection: add(connection, 1))

    def fail(connection: Connection) -> None:
        add(connection, 2)
        raise KeyError("no")

    with pytest.raises(KeyError):
        with_notes.call(fail)
    with pytest.raises(IntegrityError):  # stays what it is, for callers to handle
        with_notes.call(lambda connection: add(connection, 3, 1))
    assert with_notes.look(ids) == [1]


def test_an_event_loop_goes_on_while_the_database_works(with_notes: Store) -> None:
    async def run() -> None:
        is_held, may_go = threading.Event(), threading.Event()

        def hold(connection: Connection) -> None:
            add(connection, 1)
            is_held.set()
            assert may_go.wait(30)

        work = asyncio.create_task(with_notes.run(hold))
        await asyncio.to_thread(is_held.wait, 30)
        assert not work.done()
        may_go.set()
        await work
        assert await with_notes.read(ids) == [1]

    asyncio.run(run())


def test_a_snapshot_sees_one_moment_and_holds_up_nobody(with_notes: Store) -> None:
    with_notes.call(lambda connection: add(connection, 1))

    def look(connection: Connection) -> tuple[list[int], list[int]]:
        before = ids(connection)
        writer = threading.Thread(target=with_notes.call, args=(lambda other: add(other, 2),))
        writer.start()
        writer.join(30)
        assert not writer.is_alive()
        return before, ids(connection)

    assert with_notes.look(look) == ([1], [1])
    assert with_notes.look(ids) == [1, 2]


def test_moments_come_back_in_utc(with_notes: Store) -> None:
    moment = datetime(2026, 3, 1, 12, 30, 0, 123456, timezone(timedelta(hours=5)))
    with_notes.call(lambda connection: connection.execute(insert(notes), [{"id": 1, "moment": moment}]))
    found = with_notes.look(lambda connection: connection.execute(select(notes.c.moment)).scalar_one())
    assert found == moment and found.tzinfo is UTC
    with pytest.raises(Exception, match="has no time zone"):
        naive = {"id": 2, "moment": datetime(2026, 3, 1)}
        with_notes.call(lambda connection: connection.execute(insert(notes), [naive]))


def test_several_writers_wait_for_each_other(database_url: str, open_now: Callable[..., Store]) -> None:
    """Two servers on one database: no write is lost, and none fails for another one being there."""
    stores = [open_now(database_url), open_now(database_url)]
    stores[0].call(notes.metadata.create_all)
    threads = [
        threading.Thread(target=lambda s=store, n=n: [s.call(lambda c, i=i: add(c, n * 100 + i)) for i in range(20)])
        for n, store in enumerate(stores * 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(stores[0].look(ids)) == 80


def test_a_database_that_is_gone_is_said_to_be_and_comes_back(postgres: object, postgres_url: str) -> None:
    async def run() -> None:
        store = await open_store(StoreSettings(url=postgres_url, connect_timeout_s=2))
        try:
            postgres.server.stop()  # type: ignore[attr-defined]
            with pytest.raises(StoreUnavailable, match="does not answer"):
                await store.run(lambda connection: None)
            with pytest.raises(StoreUnavailable, match="a moment ago"):
                await store.run(lambda connection: None)
            postgres.server.start()  # type: ignore[attr-defined]
            store._rests_until = 0.0
            assert await store.run(lambda connection: 5) == 5
        finally:
            await store.close()

    try:
        asyncio.run(run())
    finally:
        if not postgres.server.is_running:  # type: ignore[attr-defined]
            postgres.server.start()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://host/name", "SQLite and PostgreSQL are known"),
        ("no url at all", "is no database URL"),
        ("sqlite://", "names no file"),
        ("sqlite:////proc/no/such/folder/x.db", "No such file|cannot be"),
        ("postgresql://nobody@127.0.0.1:1/none", "does not answer"),
    ],
)
def test_a_database_that_cannot_be_had_is_told_in_words(url: str, words: str, open_now: Callable[..., Store]) -> None:
    with pytest.raises((StoreError, OSError), match=words) as caught:
        open_now(url, connect_timeout_s=2)
    assert "Traceback" not in str(caught.value)


def test_a_new_file_is_its_owners_alone(tmp_path: Path, open_now: Callable[..., Store]) -> None:
    open_now(f"sqlite:///{tmp_path / 'folder' / 'new.db'}").call(notes.metadata.create_all)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "folder").iterdir()} == {0o600}


def test_a_password_is_never_shown(open_now: Callable[..., Store]) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        open_now("postgresql://nobody:hunter2@127.0.0.1:1/none", connect_timeout_s=2)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path, open_now: Callable[..., Store]) -> None:
    path = tmp_path / "isotoken.db"
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreError, match="damaged or no database"):
        open_now(f"sqlite:///{path}")


def test_a_database_that_may_only_be_read_is_said_to_be(store: Store, open_now: Callable[..., Store]) -> None:
    if store.dialect == "sqlite":
        store.engine.dispose()
        reader = open_now(f"sqlite:///file:{store.engine.url.database}?mode=ro&uri=true", prepare=False)
    else:
        url = f"{store.engine.url.render_as_string(False).replace('+psycopg', '')}"
        store.call(
            lambda connection: connection.exec_driver_sql("ALTER ROLE isotoken SET default_transaction_read_only = on")
        )
        reader = open_now(url, prepare=False)
    try:
        with pytest.raises(StoreError, match="cannot be written to"):
            reader.call(notes.metadata.create_all)
    finally:
        if store.dialect == "postgresql":

            def reset(connection: Connection) -> None:
                connection.exec_driver_sql("SET TRANSACTION READ WRITE")
                connection.exec_driver_sql("ALTER ROLE isotoken RESET default_transaction_read_only")

            store.call(reset)


def test_every_table_has_names_for_its_constraints() -> None:
    from isotoken.api.store import tables as _tables  # noqa: F401

    assert metadata.tables
    for table in metadata.tables.values():
        assert all(constraint.name for constraint in table.constraints), table.name
