"""The journal in a real database: what is recorded is read again, also when the database was away meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from isotoken.api.fleet.journal import Known, Recorded, StoreJournal
from isotoken.api.fleet.names import Move
from isotoken.api.fleet.settings import ModelSettings
from isotoken.api.store import StoreSettings, open_store

pytest.importorskip("sqlalchemy", reason="the store needs the extra isotoken[production]")

MOVES = [Move("a", "declare", "a@1"), Move("chat", "set", "a@1"), Move("a", "rollback", "a@0"), Move("chat", "remove")]


def known(key: str, **settings: Any) -> Known:
    return Known(key=key, digest="ab" * 32, contents="cd" * 32, settings=ModelSettings(name="a", **settings))


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    async def main() -> tuple[Recorded, Recorded]:
        store = await open_store(StoreSettings(url=f"sqlite:///{tmp_path / 'isotoken.db'}"))
        journal = StoreJournal(store, "one")
        journal.record(MOVES[:2], known("a@1", kv_memory="1MiB", options={"x": "y"}))
        journal.record(MOVES[2:], known("a@0"))
        journal.record(version=known("a@0", max_num_seqs=3))
        await journal.close()
        found = await StoreJournal(store, "one").read(), await StoreJournal(store, "two").read()
        await store.close()
        return found

    one, two = asyncio.run(main())
    assert one.moves == MOVES
    assert one.versions == {
        "a@1": known("a@1", kv_memory=2**20, options={"x": "y"}),
        "a@0": known("a@0", max_num_seqs=3),
    }
    assert (two.moves, two.versions) == ([], {})


def test_a_version_that_a_newer_isotoken_loaded_keeps_no_older_one_from_starting(tmp_path: Path) -> None:
    from isotoken.api.store.tables.fleet import write_fleet

    async def main() -> Recorded:
        store = await open_store(StoreSettings(url=f"sqlite:///{tmp_path / 'isotoken.db'}"))
        rows = [("a@1", "ab", "cd", '{"name": "a", "of_tomorrow": 1}'), ("a@0", "ab", "cd", '{"name": "a"}')]
        await store.run(lambda connection: write_fleet(connection, "one", [], rows))
        found = await StoreJournal(store, "one").read()
        await store.close()
        return found

    assert list(asyncio.run(main()).versions) == ["a@0"]


def test_changes_wait_for_a_database_that_is_away(postgres: Any, postgres_url: str) -> None:
    async def main() -> list[Move]:
        settings = StoreSettings(url=postgres_url, connect_timeout_s=2)
        store = await open_store(settings)
        journal = StoreJournal(store, "one")
        journal.record(MOVES[:1])
        while journal.num_waiting:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(postgres.server.stop)
        try:
            journal.record(MOVES[1:])  # nobody waits for it
            await asyncio.sleep(0.1)
            assert journal.num_waiting == len(MOVES) - 1
        finally:
            await asyncio.to_thread(postgres.server.start)
        while journal.num_waiting:
            await asyncio.sleep(0.01)
        await journal.close()
        found = await StoreJournal(store, "one").read()
        await store.close()
        return found.moves

    assert asyncio.run(asyncio.wait_for(main(), 60)) == MOVES
