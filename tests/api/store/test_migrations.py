"""Migrations in both databases: they make what the tables say, once, and refuse what is newer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from isotoken.api.store import StoreError, migrate
from isotoken.api.store.database import Store
from isotoken.api.store.draft import draft
from isotoken.api.store.metadata import Id, Timestamp, metadata
from sqlalchemy import Column, Connection, MetaData, Table, inspect, text


def test_the_migrations_make_what_the_tables_say(store: Store) -> None:
    def compare(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    assert store.look(compare) == []


def test_an_empty_database_and_one_of_this_version(database_url: str, open_now: Callable[..., Store]) -> None:
    store = open_now(database_url, prepare=False)
    assert migrate.status(store)["version"] == migrate.NOTHING
    assert migrate.upgrade(store) == (migrate.NOTHING, migrate.head())
    assert migrate.upgrade(store) == (migrate.head(), migrate.head())
    found = migrate.status(store)
    assert found["state"].endswith("up to date") and set(found["rows"]) == set(metadata.tables)


def test_a_newer_database_is_refused_and_left_alone(store: Store, open_now: Callable[..., Store]) -> None:
    store.call(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = 'later'")))
    with pytest.raises(StoreError, match=r"newer isotoken.*later.*update isotoken"):
        store.prepare_now()
    with pytest.raises(StoreError, match="newer isotoken"):
        migrate.upgrade(store)


def test_without_leave_to_migrate_it_says_what_to_run(database_url: str, open_now: Callable[..., Store]) -> None:
    with pytest.raises(StoreError, match="run `isotoken store upgrade`"):
        open_now(database_url, migrate=False)
    open_now(database_url)
    open_now(database_url, migrate=False)


def test_a_migration_that_fails_leaves_nothing(
    database_url: str, open_now: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_now(database_url, prepare=False)
    real = migrate.command.upgrade

    def fail(*arguments: object) -> None:
        real(*arguments)
        raise RuntimeError("the power went")

    monkeypatch.setattr(migrate.command, "upgrade", fail)
    with pytest.raises(RuntimeError):
        store.prepare_now()
    assert store.look(lambda connection: inspect(connection).get_table_names()) == []


def test_the_next_migration_can_be_drafted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it makes can be taken back."""
    changed = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.tables.values():
        table.to_metadata(changed)
    Table("colours", changed, Column("id", Id, primary_key=True), Column("seen", Timestamp(), nullable=False))
    monkeypatch.setattr("isotoken.api.store.metadata.metadata", changed)
    path = draft("colours are kept", tmp_path)
    assert path.name == f"{int(migrate.head()) + 1:04d}_colours_are_kept.py"
    written = path.read_text()
    assert 'op.create_table("colours"' in written.replace("'", '"').replace("(\n", "(")
    assert "sa.DateTime(timezone=True)" in written and "with_variant" in written
    assert f"down_revision = '{migrate.head()}'" in written


def test_the_first_migration_can_be_taken_back(store: Store) -> None:
    store.call(lambda connection: migrate.command.downgrade(migrate.config_for(connection), "base"))
    assert store.look(lambda connection: inspect(connection).get_table_names()) == ["alembic_version"]
    store.prepare_now()


def test_servers_that_start_together_migrate_once(database_url: str, open_now: Callable[..., Store]) -> None:
    stores = [open_now(database_url, prepare=False) for _ in range(4)]
    failures: list[BaseException] = []

    def prepare(store: Store) -> None:
        try:
            store.prepare_now()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=prepare, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
