"""The store: what the server keeps (keys, usage, model versions), in SQLite by default or in PostgreSQL.

`store = await open_store(settings)`, then `await store.run(lambda connection: connection.execute(...))`.
Nothing here needs a library until a store is opened; then it is the extra `isotoken[production]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import StoreError, StoreUnavailable
from .settings import StoreSettings

if TYPE_CHECKING:
    from .database import Store

__all__ = ["StoreError", "StoreSettings", "StoreUnavailable", "connect", "open_store"]


def connect(settings: StoreSettings) -> Store:
    """Return the store without looking at it. Raises StoreError where a library is missing or the URL is none."""
    try:
        from .database import Store  # noqa: PLC0415  (sqlalchemy, which only a store needs)
    except ImportError as error:
        raise StoreError(f"a database needs {error.name}: pip install 'isotoken[production]'") from error
    return Store(settings)


async def open_store(settings: StoreSettings) -> Store:
    """Return the store, brought up to this version of isotoken. Raises StoreError, which says what to do."""
    store = connect(settings)
    try:
        await store.prepare()
    except BaseException:
        await store.close()
        raise
    return store
