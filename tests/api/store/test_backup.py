"""Backup and restore: every row comes back, in either kind of database, and nothing half done is ever left."""

from __future__ import annotations

import gzip
import io
import json
import stat
import tarfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from isotoken.api.backup import archive
from isotoken.api.backup.archive import BackupError
from isotoken.api.backup.make import make_backup
from isotoken.api.backup.restore import restore_backup
from isotoken.api.ledger.database import DatabaseSink, add_entries
from isotoken.api.ledger.entry import UsageEntry
from isotoken.api.ledger.journal import Journal
from isotoken.api.ledger.reports import Wanted, entries, total, usage
from isotoken.api.store import StoreError
from isotoken.api.store.database import Store
from isotoken.api.store.metadata import metadata
from sqlalchemy import Connection, insert, select

NOW = datetime(2026, 5, 31, 12, 0, 0, 123456, UTC)


def entry(number: int, journal: str = "j", **fields: Any) -> UsageEntry:
    ended = (NOW + timedelta(hours=number)).timestamp()
    return UsageEntry(
        journal=journal, number=number, request_id="r ü", tenant="acme", cost=2**53 + number, ended=ended, **fields
    )


def fill(store: Store) -> None:
    """Put rows of every kind in: numbers, texts, moments, JSON, nothing."""
    from isotoken.api.store.tables.fleet import moves
    from isotoken.api.store.tables.keys import api_keys

    key = {
        "id": "key_1", "digest": "d" * 64, "hint": "sk-1", "tenant": "acme", "name": "ü", "models": ["a", "b"],
        "routes": None, "is_admin": True, "limits": {"max_output": 5}, "priority": -1, "weight": 0.1,
        "created": NOW, "expires": None, "revoked": None, "revision": 2**40,
    }  # fmt: skip
    move = {"fleet": "f", "moved": NOW, "name": "chat", "action": "set", "key": "m@1"}

    def put(connection: Connection) -> None:
        connection.execute(insert(api_keys), [key])
        connection.execute(insert(moves), [move, move])
        add_entries(connection, [entry(number) for number in range(1, 1101)])

    store.call(put)


def contents(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    def read(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
        tables = metadata.sorted_tables
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in tables
        }

    return store.look(read)


@pytest.fixture(params=["sqlite", "postgresql"])
def other_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Another database with nothing in it."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres").new_database()
        return url
    return f"sqlite:///{tmp_path / 'other.db'}"


def test_every_row_comes_back_in_either_database(
    store: Store, other_url: str, open_now: Callable[..., Store], tmp_path: Path
) -> None:
    fill(store)
    file = tmp_path / "isotoken.backup"
    manifest = make_backup(file, store)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert manifest.members["tables/usage_entries.jsonl"].rows == 1100
    restored = open_now(other_url, prepare=False)
    restore_backup(file, restored)
    assert contents(restored) == contents(store)
    restored.prepare_now()

    from isotoken.api.store.tables.fleet import moves

    more = {"fleet": "f", "moved": NOW, "name": "chat", "action": "set", "key": "m@2"}
    restored.call(lambda connection: connection.execute(insert(moves), [more]))  # numbers go on behind those that came
    assert [row[0] for row in contents(restored)["fleet_moves"]] == [1, 2, 3]


def test_a_backup_is_of_one_moment_while_others_write(
    store: Store, open_now: Callable[..., Store], tmp_path: Path
) -> None:
    """The sums are changed in the transaction that adds entries: in a backup they agree, whenever it was made."""
    may_end = threading.Event()
    has_begun = threading.Event()

    def write() -> None:
        number = 0
        while not may_end.is_set():
            batch = [entry(number := number + 1, generated_tokens=3) for _ in range(20)]
            store.call(partial(add_entries, entries=batch))
            has_begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert has_begun.wait(60)
        for number in range(3):
            make_backup(tmp_path / f"{number}.backup", store)
    finally:
        may_end.set()
        writer.join(60)
    for number in range(3):
        restored = open_now(f"sqlite:///{tmp_path / f'{number}.db'}", prepare=False)
        restore_backup(tmp_path / f"{number}.backup", restored)
        sums = total(restored.look(partial(usage, wanted=Wanted(by=("day",)))))
        rows = restored.look(partial(entries, tenant=None, limit=10**6))
        assert sums["requests"] == len(rows) > 0
        assert sums["cost"] == sum(row["cost"] for row in rows)
        assert len(rows) % 20 == 0


def test_what_the_journal_had_not_brought_goes_along(
    store: Store, open_now: Callable[..., Store], tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "ledger")
    made = [journal.append(lambda name, number: entry(number, name)) for _ in range(10)]
    DatabaseSink(store).write(made[:4])
    manifest = make_backup(tmp_path / "b", store, journal=journal.folder)
    assert manifest.members["journal.jsonl"].rows == 6
    restored = open_now(f"sqlite:///{tmp_path / 'restored.db'}", prepare=False)
    with pytest.raises(StoreError, match="another server writes"):
        restore_backup(tmp_path / "b", restored, journal=journal.folder)
    journal.close()
    restore_backup(tmp_path / "b", restored, journal=journal.folder)
    assert {row["id"] for row in restored.look(partial(entries, tenant=None, limit=99))} == {each.id for each in made}
    DatabaseSink(restored).write(made)  # as its server does when it starts, from the journal's beginning
    assert total(restored.look(partial(usage, wanted=Wanted(by=("tenant",)))))["requests"] == 10


def test_nothing_is_overwritten_without_force(store: Store, tmp_path: Path) -> None:
    fill(store)
    file = tmp_path / "b"
    configuration = tmp_path / "server.yaml"
    configuration.write_text("server: {port: 1}")
    make_backup(file, store, configuration=configuration)
    with pytest.raises(BackupError, match=r"exists already.*--force"):
        make_backup(file, store)
    store.call(partial(add_entries, entries=[entry(9000)]))
    before = contents(store)
    with pytest.raises(BackupError, match=r"has rows already.*--force"):
        restore_backup(file, store)
    with pytest.raises(BackupError, match=r"server\.yaml exists already"):
        restore_backup(file, store, configuration_to=configuration)
    assert contents(store) == before
    restore_backup(file, store, configuration_to=tmp_path / "new.yaml", force=True)
    assert len(contents(store)["usage_entries"]) == 1100
    assert (tmp_path / "new.yaml").read_text() == "server: {port: 1}"


def test_a_restore_that_fails_changes_nothing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store)
    make_backup(tmp_path / "b", store)
    before = contents(store)
    monkeypatch.setattr("isotoken.api.backup.restore.head", lambda: 1 / 0)  # when all rows are in
    with pytest.raises(ZeroDivisionError):
        restore_backup(tmp_path / "b", store, force=True)
    assert contents(store) == before


def damaged(file: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Write a copy with other members, its gzip and tar in order."""
    with tarfile.open(file) as tar:
        members = {each.name: (tar.extractfile(each) or io.BytesIO()).read() for each in tar.getmembers()}
    change(members)
    path = file.with_name("damaged")
    with tarfile.open(path, "w:gz") as tar:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return path


def stated(**changes: object) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        members["manifest.json"] = json.dumps(json.loads(members["manifest.json"]) | changes).encode()

    return change


def test_a_backup_that_is_not_whole_is_refused(store: Store, open_now: Callable[..., Store], tmp_path: Path) -> None:
    fill(store)
    file = tmp_path / "b"
    make_backup(file, store)
    whole = file.read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text").write_text("a letter")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "other.gz").write_bytes(gzip.compress(b"something else"))
    member = "tables/usage_entries.jsonl"
    cases = [
        (tmp_path / "cut", "no whole backup"),
        (tmp_path / "text", "no whole backup"),
        (tmp_path / "empty", "no whole backup"),
        (tmp_path / "other.gz", "no whole backup"),
        (partial(damaged, file, lambda m: m.update({member: m[member].replace(b"acme", b"acne", 1)})), "checksum"),
        (partial(damaged, file, lambda m: m.pop(member)), "lacks tables/usage_entries"),
        (partial(damaged, file, lambda m: m.pop("manifest.json")), "has no manifest"),
        (partial(damaged, file, stated(format=archive.FORMAT + 1)), "format 2.*update isotoken"),
        (partial(damaged, file, stated(tables="9999")), "newer: update isotoken"),
        (partial(damaged, file, stated(members=[])), "damaged manifest"),
    ]
    target = open_now(f"sqlite:///{tmp_path / 'target.db'}")
    for path, words in cases:
        with pytest.raises(BackupError, match=words):
            restore_backup(path if isinstance(path, Path) else path(), target)
    assert not any(contents(target).values())


def test_a_disk_that_fills_leaves_no_half_backup(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "add", fail)
    with pytest.raises(OSError, match="No space"):
        make_backup(tmp_path / "b", store)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("b", ".backup"))]
