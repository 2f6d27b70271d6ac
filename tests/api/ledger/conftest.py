"""A journal, a store in either kind of database, and entries to put in them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from isotoken.api.ledger.entry import UsageEntry
from isotoken.api.ledger.journal import Journal
from isotoken.api.store import StoreSettings, connect
from isotoken.api.store.database import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with nothing in it."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return f"sqlite:///{tmp_path / 'isotoken.db'}"


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A store with its tables, in each kind of database."""
    opened = connect(StoreSettings(url=database_url, connect_timeout_s=2))
    opened.prepare_now()
    yield opened
    opened.close_now()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """A store in SQLite, where the kind does not matter."""
    opened = connect(StoreSettings(url=f"sqlite:///{tmp_path / 'one.db'}"))
    opened.prepare_now()
    yield opened
    opened.close_now()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal in a folder of its own."""
    opened = Journal(tmp_path / "ledger")
    yield opened
    opened.close()


Make = Callable[..., Callable[[str, int], UsageEntry]]


@pytest.fixture
def make() -> Make:
    """Describe an entry: all of its fields but its number."""

    def describe(**fields: Any) -> Callable[[str, int], UsageEntry]:
        defaults: dict[str, Any] = {"request_id": "r", "tenant": "acme", "model": "m", "ended": time.time()}
        defaults |= {"prompt_tokens": 10, "generated_tokens": 5, "cost": 7}
        return lambda journal, number: UsageEntry(journal=journal, number=number, **{**defaults, **fields})

    return describe


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, which is full soon."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)
