"""The same tests for both databases: a real SQLite file, and a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
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
def open_now() -> Iterator[Callable[..., Store]]:
    """Open stores, whose tables are made unless prepare=False, and close them at the end."""
    stores: list[Store] = []

    def open_one(url: str, *, prepare: bool = True, **settings: object) -> Store:
        store = connect(StoreSettings(url=url, **settings))
        stores.append(store)
        if prepare:
            store.prepare_now()
        return store

    yield open_one
    for store in stores:
        store.close_now()


@pytest.fixture
def store(database_url: str, open_now: Callable[..., Store]) -> Store:
    """A store with its tables, in each kind of database."""
    return open_now(database_url)
