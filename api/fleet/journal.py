"""Journal: what names stood for, kept in the store so that a restart knows it; in memory alone where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .names import Move
from .settings import ModelSettings

if TYPE_CHECKING:
    from ..store.database import Store

log = logging.getLogger("isotoken.fleet")

_RETRY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A version that was served once, and how to load it again."""

    key: str  # name@version
    digest: str
    contents: str
    settings: ModelSettings


@dataclass(slots=True)
class Recorded:
    """What a journal holds."""

    moves: list[Move] = field(default_factory=list)  # the oldest first
    versions: dict[str, Known] = field(default_factory=dict)  # by key


class Journal:
    """Forgets everything with the process."""

    async def read(self) -> Recorded:
        """Return what was recorded. Raises StoreError."""
        return Recorded()

    def record(self, moves: Sequence[Move] = (), version: Known | None = None) -> None:
        """Keep these, soon: an operator's command does not wait for a database that is away."""

    async def close(self) -> None:
        """Write what is still to be written, if the store is there."""


class StoreJournal(Journal):
    """Writes to the store, in order; while that is away it tries again and again. What is written twice counts once."""

    def __init__(self, store: Store, group: str) -> None:
        """Keep the state of the servers that call themselves `group`."""
        self._store = store
        self._group = group
        self._waiting: list[Move | Known] = []
        self._writer: asyncio.Task[None] | None = None

    async def read(self) -> Recorded:
        """Return what was recorded. Raises StoreError."""
        from ..store.tables.fleet import read_fleet  # noqa: PLC0415  (sqlalchemy, which only a store needs)

        moves, versions = await self._store.read(lambda connection: read_fleet(connection, self._group))
        known = {row[0]: each for row in versions if (each := _known(*row)) is not None}
        return Recorded([Move(name, action, key) for name, action, key in moves], known)

    def record(self, moves: Sequence[Move] = (), version: Known | None = None) -> None:
        """Keep these, soon."""
        self._waiting += [*([] if version is None else [version]), *moves]
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    @property
    def num_waiting(self) -> int:
        """Of records that are not in the store yet."""
        return len(self._waiting)

    async def close(self) -> None:
        """Write what is still to be written, if the store is there."""
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer
        if self._waiting and not await self._try():
            log.error("%d changes of the fleet are lost: the store does not take them", len(self._waiting))

    async def _write(self) -> None:
        while self._waiting and not await self._try():
            await asyncio.sleep(_RETRY_S)

    async def _try(self) -> bool:
        from ..store.errors import StoreError  # noqa: PLC0415
        from ..store.tables.fleet import write_fleet  # noqa: PLC0415

        batch = list(self._waiting)
        moves = [(move.name, move.action, move.key) for move in batch if isinstance(move, Move)]
        versions = [
            (known.key, known.digest, known.contents, known.settings.model_dump_json(exclude_defaults=True))
            for known in batch
            if isinstance(known, Known)
        ]
        try:
            await self._store.run(lambda connection: write_fleet(connection, self._group, moves, versions))
        except StoreError as error:
            log.warning("a change of the fleet waits to be written: %s", error)
            return False
        del self._waiting[: len(batch)]
        return True


def _known(key: str, digest: str, contents: str, settings: str) -> Known | None:
    """Read a version; None for one that this isotoken does not understand: the server starts all the same."""
    try:
        return Known(key=key, digest=digest, contents=contents, settings=ModelSettings.model_validate_json(settings))
    except ValueError as error:
        log.error("%s was loaded by another version of isotoken, with settings unknown here: %s", key, error)
        return None
