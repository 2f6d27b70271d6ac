"""Flusher: the thread that brings the journal to the disk, wakes the couriers, and removes what is too old."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .courier import Courier
    from .journal import Journal
    from .settings import LedgerSettings

log = logging.getLogger("isotoken.ledger")

TIDY_INTERVAL_S = 600.0
_DAY_S = 86400.0


class Flusher(threading.Thread):
    """Sleeps until something was written, then does what is due, at most once an interval."""

    def __init__(self, journal: Journal, couriers: Sequence[Courier], settings: LedgerSettings) -> None:
        super().__init__(name="isotoken-ledger-journal", daemon=True)
        self._journal = journal
        self._couriers = couriers
        self._settings = settings
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._tidied = time.monotonic()

    def wake(self) -> None:
        """Something was written."""
        self._wake.set()

    def stop(self) -> None:
        """End, after the last flush."""
        self._stopping.set()
        self._wake.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Flush until told to stop."""
        while not self._stopping.is_set():
            self._wake.wait(self._settings.retry_interval_s if self._journal.error else None)
            self._wake.clear()
            try:
                self._turn()
            except Exception:  # such as a folder that vanished: entries go on to the sinks
                log.exception("the ledger's journal could not be looked after")
            self._stopping.wait(self._settings.sync_interval_s)  # more may come meanwhile

    def _turn(self) -> None:
        for courier in self._couriers:
            courier.wake()
        self._journal.sync()
        delivered = min((courier.delivered_number for courier in self._couriers), default=0)
        self._journal.delivered(delivered)
        if time.monotonic() - self._tidied > TIDY_INTERVAL_S:
            self._tidied = time.monotonic()
            index = min((courier.place_index for courier in self._couriers), default=0)
            older_than_s = self._settings.retention.journal_days * _DAY_S
            self._journal.segments.remove_before(index, older_than_s=older_than_s)
