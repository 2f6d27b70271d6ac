"""KeyAdmin: the keys in a running server's store, for whoever administers them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..server.errors import ApiError
from ..store.errors import StoreError
from .key_ring import KeyRing

if TYPE_CHECKING:
    from ..store.database import Store
    from .keys import Key, KeyRequest


class KeyAdmin:
    """Changes keys, and tells this server's own ring of them at once. Raises ApiError 503 without a database."""

    def __init__(self, store: Store, ring: KeyRing) -> None:
        self._store = store
        self._ring = ring

    async def create(self, asked: KeyRequest) -> tuple[str, Key]:
        """Make a key; return it and what is kept of it."""
        from .keys import create_key  # noqa: PLC0415  (sqlalchemy, which only a store needs)

        with _explained():
            made = await self._store.run(lambda connection: create_key(connection, asked))
        await self._ring.look_again()
        return made

    async def list(self, tenant: str | None) -> list[Key]:
        """Return every key, or every one of a tenant."""
        from .keys import list_keys  # noqa: PLC0415

        with _explained():
            return await self._store.read(lambda connection: list_keys(connection, tenant))

    async def find(self, key_id: str) -> Key:
        """Return a key. Raises ApiError 404."""
        from .keys import KeyNotFound, find_key  # noqa: PLC0415

        try:
            with _explained():
                return await self._store.read(lambda connection: find_key(connection, key_id))
        except KeyNotFound as error:
            raise ApiError(404, f"there is no key {key_id!r}", code="key_not_found") from error

    async def revoke(self, key_id: str) -> Key:
        """Revoke a key. Raises ApiError 404."""
        from .keys import revoke_key  # noqa: PLC0415

        await self.find(key_id)
        with _explained():
            key = await self._store.run(lambda connection: revoke_key(connection, key_id))
        await self._ring.look_again()
        return key


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise ApiError(503, "the database of keys does not answer", headers=(("retry-after", "5"),)) from error
