"""The database's side: each entry once, whatever is brought twice; sums that outlive entries; exact money."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial

import pytest
from isotoken.api.ledger import retention
from isotoken.api.ledger.courier import Courier, EntryRejected
from isotoken.api.ledger.database import DatabaseSink, add_entries
from isotoken.api.ledger.entry import UsageEntry
from isotoken.api.ledger.journal import Journal
from isotoken.api.ledger.reports import Wanted, entries, for_people, total, usage
from isotoken.api.ledger.retention import DELETED, Keeper, delete_tenant
from isotoken.api.ledger.settings import Retention
from isotoken.api.store.database import Store

from .conftest import Make

NOON = datetime(2026, 5, 31, 12, tzinfo=UTC)


def add(store: Store, entries: Sequence[UsageEntry]) -> int:
    return store.call(partial(add_entries, entries=entries))


def report(store: Store, *by: str, **chosen: object) -> list[dict[str, object]]:
    return store.look(partial(usage, wanted=Wanted(by=by, **chosen)))


def test_what_is_brought_twice_counts_once(store: Store, make: Make) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    all_entries = {
        journal: [
            make(tenant=rng.choice("ab"), model=rng.choice("mn"), cost=rng.randrange(10**13))(journal, number)
            for number in range(1, 60)
        ]
        for journal in ("one", "two")
    }
    for journal, own in all_entries.items():
        position = 0
        while position < len(own):
            start = rng.randint(0, position)  # some again, as after a crash before the place was saved
            end = rng.randint(position + 1, len(own))
            add(store, own[start:end])
            position = end
        assert add(store, own) == 0, journal
    everything = [entry for own in all_entries.values() for entry in own]
    found = total(report(store, "tenant", "model"))
    assert found["requests"] == len(everything)
    assert found["cost"] == sum(entry.cost for entry in everything)
    assert found["prompt_tokens"] == sum(entry.prompt_tokens for entry in everything)
    assert len(store.look(lambda connection: entries(connection, tenant=None, limit=1000))) == len(everything)


def test_sums_are_by_every_field_and_exact_beyond_what_sqlite_adds(store: Store, make: Make) -> None:
    much = 2**62  # two of them are more than a column holds
    add(
        store,
        [make(cost=much, ended=NOON.timestamp() + day * 86400, key_id=f"k{day}")("j", day + 1) for day in range(4)],
    )
    (row,) = report(store, "tenant")
    assert row["cost"] == 4 * much
    assert for_people(row)["cost"] == "18446744.073709551616"
    by_month = report(store, "month")
    assert [(each["month"], each["requests"]) for each in by_month] == [("2026-05", 1), ("2026-06", 3)]
    assert [each["key_id"] for each in report(store, "key_id", since=date(2026, 6, 1), until=date(2026, 6, 2))] == [
        "k1",
        "k2",
    ]
    assert total(report(store, "day", tenant="someone else"))["requests"] == 0
    with pytest.raises(ValueError, match="is not counted by colour"):
        Wanted(by=("colour",))


def test_retention_removes_entries_and_keeps_sums(store: Store, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "CHUNK", 7)
    own = [make(ended=(NOON - timedelta(days=number)).timestamp())("j", number + 1) for number in range(30)]
    add(store, own)
    keeper = Keeper(store, Retention(entries_days=10), today=NOON.date)
    removed = keeper.remove_old()
    assert (removed.entries, removed.sums) == (19, 0)
    assert total(report(store, "tenant"))["requests"] == 30
    assert add(store, own) == 0, "what was removed for its age is not counted again"
    assert Keeper(store, Retention(entries_days=0, totals_days=10), today=NOON.date).remove_old().sums == 19
    assert total(report(store, "tenant"))["requests"] == 11


@pytest.mark.parametrize("keep_totals", [False, True])
def test_a_deleted_tenant_is_gone(store: Store, make: Make, keep_totals: bool) -> None:
    owners = ["acme", "acme", "other", DELETED]
    add(store, [make(tenant=owner, key_id=f"key of {owner}")("j", number) for number, owner in enumerate(owners, 1)])
    removed = delete_tenant(store, "acme", keep_totals=keep_totals)
    assert removed.entries == 2
    left = {row["tenant"]: row["requests"] for row in report(store, "tenant")}
    assert left == ({"other": 1, DELETED: 3} if keep_totals else {"other": 1, DELETED: 1})
    rows = store.look(lambda connection: entries(connection, tenant=None, limit=100))
    assert "acme" not in str(rows) + str(report(store, "tenant", "key_id"))


def test_the_courier_waits_for_a_database_that_is_gone(
    postgres: object, postgres_url: str, journal: Journal, make: Make
) -> None:
    """Stopped, killed and started again while entries come: all of them are there, none twice."""
    from isotoken.api.store import StoreSettings, connect

    server = postgres.server  # type: ignore[attr-defined]
    store = connect(StoreSettings(url=postgres_url, connect_timeout_s=2))
    store.prepare_now()
    courier = Courier("database", DatabaseSink(store), journal, interval_s=0.01, retry_s=0.05)
    courier.start()
    try:
        for signal_name in ("SIGINT", "SIGKILL"):
            import signal

            for _ in range(40):
                journal.append(make())
                courier.wake()
            server.stop(getattr(signal, signal_name))
            for _ in range(40):
                journal.append(make())
                courier.wake()
            assert not courier.wait_for_turn(30)
            assert "does not answer" in courier.error or "a moment ago" in courier.error
            assert courier.num_pending > 0
            server.start()
            for _ in range(600):
                if courier.wait_for_turn(30):
                    break
            assert not courier.num_pending and not courier.error
        assert total(report(store, "tenant"))["requests"] == 160
    finally:
        if not server.is_running:
            server.start()
        courier.stop(30)
        store.close_now()


def test_a_courier_goes_on_where_another_ended(sqlite_store: Store, journal: Journal, make: Make) -> None:
    for _ in range(1200):
        journal.append(make())
    first = Courier("database", DatabaseSink(sqlite_store), journal)
    first.start()
    assert first.wait_for_turn(30)
    first.stop(30)
    journal.append(make())
    second = Courier("database", DatabaseSink(sqlite_store), journal)
    second.start()
    assert second.wait_for_turn(30)
    second.stop(30)
    assert total(report(sqlite_store, "tenant"))["requests"] == 1201


def test_a_disk_that_is_full_does_not_keep_entries_from_the_database(
    sqlite_store: Store, journal: Journal, make: Make
) -> None:
    journal.append(make())
    journal.error = "pretend that the disk is full"
    journal.append(make())
    journal.append(make())
    courier = Courier("database", DatabaseSink(sqlite_store), journal)
    courier.start()
    assert courier.wait_for_turn(30)
    journal.delivered(courier.delivered_number)
    assert not journal.unwritten
    journal.sync()
    assert not journal.error
    journal.append(make())
    assert courier.wait_for_turn(30)
    courier.stop(30)
    assert total(report(sqlite_store, "tenant"))["requests"] == 4


class Picky:
    """A company's own ledger, which cannot take some entries, and fails now and then."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.num_failures = 2

    def write(self, entries: Sequence[UsageEntry]) -> None:
        if self.num_failures:
            self.num_failures -= 1
            raise ConnectionError("not now")
        if any(entry.tenant == "unknown" for entry in entries):
            raise EntryRejected("no such tenant")
        self.taken += [entry.request_id for entry in entries]

    def close(self) -> None:
        self.taken.append("closed")


def test_an_entry_that_a_sink_can_never_take_is_put_aside(journal: Journal, make: Make) -> None:
    for number in range(5):
        journal.append(make(request_id=str(number), tenant="unknown" if number == 2 else "acme"))
    sink = Picky()
    courier = Courier("picky", sink, journal, retry_s=0.01)
    courier.start()
    for _ in range(10):
        if courier.wait_for_turn(30):
            break
    courier.stop(30)
    assert sink.taken == ["0", "1", "3", "4", "closed"]
    assert courier.num_rejected == 1
    assert b'"request_id":"2"' in (journal.folder / "picky.rejected").read_bytes()
