"""Store: the database behind a thread of its own, so that the event loop never waits for a disk or a network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError

from .engine import SNAPSHOT, make_engine, shown
from .errors import StoreError, StoreUnavailable
from .settings import StoreSettings

T = TypeVar("T")

_REST_S = 1.0
"""Seconds after a failure to connect in which callers are told so without another try: they would queue up."""


class Store:
    """The database. Give `run` a function of a connection: it runs in the store's thread, in one transaction."""

    def __init__(self, settings: StoreSettings) -> None:
        """Connect to nothing yet. Raises StoreError for a URL that is none."""
        self.settings = settings
        self.engine = make_engine(settings)
        self.name = shown(self.engine)  # for people
        self._thread = ThreadPoolExecutor(1, "isotoken-store")
        self._rests_until = 0.0  # time.monotonic() seconds

    @property
    def dialect(self) -> str:
        """What it is: "sqlite" or "postgresql"."""
        return self.engine.dialect.name

    async def prepare(self) -> None:
        """Bring the tables up to this version, or check that they are. Raises StoreError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self.prepare_now)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction: committed when it returns, undone when it raises.

        Raises what `work` raises, StoreUnavailable when the database does not answer, StoreError when it refuses.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.call, work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads: all it reads is of one moment, and it waits for no writer. Raises as `run`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.look, work)

    async def close(self) -> None:
        """Let go of the database once what was asked for is done. Harmless when repeated."""
        await asyncio.get_running_loop().run_in_executor(None, self.close_now)

    # --- for threads other than an event loop's, and for the command line ------------------------

    def prepare_now(self) -> None:
        """Do as `prepare`, in this thread."""
        from .migrate import prepare  # noqa: PLC0415  (alembic, which only this needs)

        prepare(self)

    def call(self, work: Callable[[Connection], T]) -> T:
        """Do as `run`, in this thread."""
        with self._explained(), self.engine.begin() as connection:
            return work(connection)

    def look(self, work: Callable[[Connection], T]) -> T:
        """Do as `read`, in this thread."""
        options: dict[str, Any] = {SNAPSHOT: True}
        if self.dialect == "postgresql":
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with (
            self._explained(),
            self.engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            return work(connection)

    def close_now(self) -> None:
        """Do as `close`, in this thread."""
        self._thread.shutdown()
        self.engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Tell failures of the database in words that help."""
        if time.monotonic() < self._rests_until:
            raise StoreUnavailable(f"the database {self.name} did not answer a moment ago")
        try:
            yield
        except TimeoutError as error:
            raise StoreUnavailable(f"the database {self.name} is busy: {error}") from error
        except DBAPIError as error:
            if _is_gone(error):
                self._rests_until = time.monotonic() + _REST_S
            raise _explain(error, self.name) from error


def _is_gone(error: DBAPIError) -> bool:
    """Whether there is no connection, rather than a statement that failed."""
    return error.connection_invalidated or (isinstance(error, OperationalError) and error.statement is None)


def _explain(error: DBAPIError, name: str) -> Exception:
    """Say what a person can do. What a caller may expect, such as an IntegrityError, stays what it is."""
    reason = " ".join(str(error.orig).split())
    if "readonly database" in reason or "read-only transaction" in reason:
        return StoreError(f"the database {name} cannot be written to: {reason}; check its owner and permissions")
    if "file is not a database" in reason or "malformed" in reason:
        return StoreError(f"{name} is damaged or no database: {reason}; restore a backup (isotoken restore)")
    if "unable to open database file" in reason:
        return StoreUnavailable(f"the database {name} cannot be opened: check that its folder can be written to")
    if error.connection_invalidated or (isinstance(error, OperationalError) and "no such" not in reason):
        return StoreUnavailable(f"the database {name} does not answer: {reason}")
    return error
