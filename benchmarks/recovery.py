"""How long a backup, a restore and a journal's return take, and what an entry costs: `python -m benchmarks.recovery`.

    python -m benchmarks.recovery --entries 100000 --database postgresql://user@host/empty

The database must be empty, for it is filled, lost and restored.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from isotoken.api.backup.make import make_backup
from isotoken.api.backup.restore import restore_backup
from isotoken.api.ledger.entry import UsageEntry
from isotoken.api.ledger.journal import Journal
from isotoken.api.ledger.replay import replay
from isotoken.api.store import StoreSettings, connect

Times = dict[str, float]


def timed(times: Times, name: str, work: Callable[[], object]) -> None:
    began = time.perf_counter()
    work()
    times[name] = time.perf_counter() - began


def fill_journal(folder: Path, num_entries: int) -> None:
    journal = Journal(folder)
    now = time.time()

    def make(name: str, number: int) -> UsageEntry:
        return UsageEntry(
            journal=name, number=number, request_id=f"cmpl-{number:032d}", tenant=f"tenant-{number % 100}",
            key_id=f"key_{number % 200:016d}", model="chat", version="0" * 64, route="/v1/chat/completions",
            finish_reason="stop", prompt_tokens=900, cached_tokens=640, generated_tokens=250, cost=250_000_000,
            ended=now - number % 2_592_000, seconds=4.2,
        )  # fmt: skip

    for _ in range(num_entries):
        journal.append(make)
    journal.close()


def measure(database: str, num_entries: int, folder: Path) -> Times:
    """Return seconds by name, all for `num_entries`."""
    times: Times = {}
    journal, file = folder / "ledger", folder / "isotoken.backup"
    store = connect(StoreSettings(url=database or f"sqlite:///{folder / 'isotoken.db'}"))
    store.prepare_now()
    try:
        timed(times, "append to the journal, as a server does", lambda: fill_journal(journal, num_entries))
        timed(times, "from the journal to the database", lambda: replay(journal, store))
        timed(times, "backup", lambda: make_backup(file, store, journal=journal))
        times["size of the backup, MB"] = file.stat().st_size / 1e6
        timed(times, "restore", lambda: restore_backup(file, store, force=True))
        timed(times, "read the journal again, with nothing missing", lambda: replay(journal, store))
    finally:
        store.close_now()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--database", default="", help="its URL; SQLite in a temporary folder unless given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = measure(arguments.database, arguments.entries, Path(folder))
    print(f"{arguments.entries:,} entries")
    for name, value in times.items():
        each = "" if "MB" in name else f"  {value / arguments.entries * 1e6:8.1f} us each"
        print(f"  {name:<46} {value:8.2f}{each}")


if __name__ == "__main__":
    main()
