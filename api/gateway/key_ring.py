"""KeyRing: the authenticator of isotoken's own keys. All of them lie in memory; the store is asked for changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import NotReady
from .api_key import digest_of, is_well_formed
from .authentication import Credential
from .principal import Principal

if TYPE_CHECKING:
    from ..store.database import Store

log = logging.getLogger("isotoken.gateway")

_LEAST_S = 0.05  # between looks for keys that are not known


class KeyRing:
    """Knows every key that is good, at most `refresh_s` seconds late.

    A key that is not known waits for a look at the store, which all who ask share and which comes at most every 50 ms:
    one that was made a moment ago is good, and strangers who try keys cost next to nothing. When the store does not
    answer, the keys that are known go on being good.
    """

    def __init__(self, store: Store, *, refresh_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._refresh_s = refresh_s
        self._clock = clock
        self._principals: dict[str, Principal] = {}  # by the digest of the key: the good ones only
        self._digests: dict[str, str] = {}  # of all keys, by their ids
        self._revision = -1
        self._looked = -1e9  # when the last look began
        self._looking: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    async def open(self) -> None:
        """Read the keys. Raises StoreError."""
        await self._look()
        self._task = asyncio.create_task(self._keep_looking(), name="isotoken-keys")

    async def close(self) -> None:
        """Look no more."""
        for task in (self._task, self._looking):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    def __len__(self) -> int:
        return len(self._principals)

    async def authenticate(self, credential: Credential) -> Principal | None:
        """Return the bearer of a key that is good. Raises NotReady when that cannot be told now."""
        if not is_well_formed(credential.token):
            return None
        digest = digest_of(credential.token)
        principal, asked = self._principals.get(digest), self._clock()
        while principal is None and not self._failing and self._looked < asked:
            await self.look_again()
            principal = self._principals.get(digest)
        if principal is None and self._failing:
            raise NotReady("running", "API keys cannot be looked up now: the database does not answer")
        return principal

    async def look_again(self) -> None:
        """Look at the store now; one look serves all who ask meanwhile."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._try_to_look())
        await asyncio.shield(self._looking)  # one who leaves does not take the look away from the others

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_s)
            await self.look_again()

    async def _try_to_look(self) -> None:
        if (rest := self._looked + _LEAST_S - self._clock()) > 0:
            await asyncio.sleep(rest)
        try:
            await self._look()
        except Exception as error:
            if not self._failing:
                log.error("API keys cannot be looked up; those that are known stay good: %s", error)
            self._failing = True
        else:
            if self._failing:
                log.info("API keys can be looked up again")
            self._failing = False

    async def _look(self) -> None:
        from .keys import changed_keys  # noqa: PLC0415  (sqlalchemy, which only a store needs)

        self._looked = self._clock()
        known = self._revision
        revision, number, changed = await self._store.read(lambda connection: changed_keys(connection, known))
        if revision < known or number < len(self._digests):  # another database, or rows were taken out of it
            self._principals.clear()
            self._digests.clear()
            revision, number, changed = await self._store.read(lambda connection: changed_keys(connection, -1))
        for key in changed:
            self._digests[key.id] = key.digest
            if key.revoked is None:
                self._principals[key.digest] = key.principal()
            else:
                self._principals.pop(key.digest, None)
        self._revision = revision
