"""Courier: brings the journal's entries to one sink, in order, again and again until it takes them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from .entry import UsageEntry, to_line
from .journal import Journal
from .segments import Cursor

log = logging.getLogger("isotoken.ledger")

BATCH = 500
"""Entries that a sink is given at once, in one transaction."""


class EntryRejected(Exception):
    """A sink can never take one of these entries, however often it is tried."""


class Sink(Protocol):
    """Where entries go. Called in a thread of its own."""

    def write(self, entries: Sequence[UsageEntry]) -> None:
        """Take entries, all or none. Some may come a second time, after a crash: know them by their `id`.

        Whatever it raises, the entries come again later; EntryRejected: each alone, and then no more.
        """
        ...

    def close(self) -> None:
        """Nothing comes any more."""
        ...


class Courier(threading.Thread):
    """One sink's thread. It waits to be woken, or for the next try at a sink that is gone."""

    def __init__(
        self,
        name: str,
        sink: Sink,
        journal: Journal,
        *,
        interval_s: float = 0.1,
        retry_s: float = 2.0,
        on_delivered: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(name=f"isotoken-ledger-{name}", daemon=True)
        self.sink_name = name
        self.error = ""  # why the sink took nothing at the last try
        self.delivered_number = 0  # of the journal's own entries
        self.num_rejected = 0
        self.caught_up_at = time.monotonic()  # when all there was had been delivered
        self.num_turns = 0
        self._sink = sink
        self._journal = journal
        self._interval_s, self._retry_s = interval_s, retry_s
        self._on_delivered = on_delivered
        self._cursor = Cursor(journal.segments, journal.segments.load_place(name))
        self._wake = threading.Event()
        self._wake.set()  # what earlier processes left
        self._stopping = threading.Event()
        self._turned = threading.Condition()

    @property
    def num_pending(self) -> int:
        """Entries of this process that the sink does not have yet."""
        return self._journal.last_number - self.delivered_number

    @property
    def place_index(self) -> int:
        """The journal's file that it reads; those before it have been delivered."""
        return self._cursor.place.file

    def wake(self) -> None:
        """There is something to bring."""
        self._wake.set()

    def wait_for_turn(self, timeout: float) -> bool:
        """Wait until it has tried once more to bring everything. Returns whether the sink has it all."""
        with self._turned:
            turn = self.num_turns + 1
            self._wake.set()
            self._turned.wait_for(lambda: self.num_turns >= turn, timeout)
        return not self.error and not self.num_pending

    def stop(self, timeout: float) -> None:
        """Try for the last time, and end. What the sink does not take stays in the journal for the next start."""
        self._stopping.set()
        self._wake.set()
        if self.is_alive():
            self.join(timeout)

    def run(self) -> None:
        """Bring entries until told to stop."""
        while True:
            self._wake.wait(self._retry_s if self.error else None)
            self._wake.clear()
            is_last = self._stopping.is_set()
            self._turn()
            with self._turned:
                self.num_turns += 1
                self._turned.notify_all()
            if is_last:
                break
            self._stopping.wait(self._retry_s if self.error else self._interval_s)  # more may come meanwhile
            if self._stopping.is_set():
                self._wake.set()
        self._sink.close()

    def _turn(self) -> None:
        try:
            while self._bring():
                pass
        except Exception as error:  # a database's, or whatever a plugin's sink raises: it is tried again
            if not self.error:
                log.error("the ledger's %s takes no entries, they wait in the journal: %s", self.sink_name, error)
            self.error = str(error) or repr(error)
            return
        if self.error:
            log.warning("the ledger's %s takes entries again", self.sink_name)
        self.error = ""
        self.caught_up_at = time.monotonic()

    def _bring(self) -> bool:
        """Bring one batch. False: there is none."""
        place = self._cursor.place
        entries = self._cursor.read(BATCH) or self._journal.waiting(self.delivered_number, BATCH)
        if not entries:
            return False
        try:
            self._write(entries)
        except BaseException:
            self._cursor.place = place
            raise
        own = [entry.number for entry in entries if entry.journal == self._journal.id]
        self.delivered_number = max(own, default=self.delivered_number)
        self._save_place()
        if self._on_delivered is not None:
            self._on_delivered()
        return True

    def _write(self, entries: Sequence[UsageEntry]) -> None:
        try:
            self._sink.write(entries)
        except EntryRejected as error:
            if len(entries) == 1:
                self._reject(entries[0], error)
                return
            for entry in entries:
                self._write([entry])

    def _reject(self, entry: UsageEntry, error: EntryRejected) -> None:
        """Put an entry aside that would keep all others waiting for ever."""
        self.num_rejected += 1
        path = self._journal.folder / f"{self.sink_name}.rejected"
        log.error("the ledger's %s refuses an entry, which goes to %s: %s", self.sink_name, path, error)
        with path.open("ab") as file:
            file.write(to_line(entry))

    def _save_place(self) -> None:
        try:
            self._journal.segments.save_place(self.sink_name, self._cursor.place)
        except OSError as error:  # a full disk: it only spares reading again what was delivered
            log.debug("the place in the journal could not be saved: %s", error)
