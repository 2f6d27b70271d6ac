"""A company's own ledger: a plugin claims a name, the configuration asks for it, entries come in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from isotoken.api.ledger.assembly import LedgerContext, open_ledger
from isotoken.api.ledger.entry import UsageEntry
from isotoken.api.ledger.ledger import UsageLedger
from isotoken.api.ledger.settings import LedgerSettings
from isotoken.plugins.hookspecs import Register, hookimpl
from isotoken.plugins.manager import PluginError, Plugins

from .conftest import Make


class Billing:
    """A plugin with a ledger that lacks nothing."""

    ISOTOKEN_API = "1.3"

    def __init__(self) -> None:
        self.entries: list[UsageEntry] = []
        self.threads: set[int] = set()
        self.is_closed = False

    @hookimpl
    def register_ledgers(self, register: Register) -> None:
        """Claim billing."""
        register("billing", self._open, description="a company's billing")

    async def _open(self, context: LedgerContext) -> Billing:
        assert context.settings.enabled
        return self

    def write(self, entries: Sequence[UsageEntry]) -> None:
        self.entries += entries
        self.threads.add(threading.get_ident())

    def close(self) -> None:
        self.is_closed = True


async def no_store() -> None:
    raise AssertionError("nobody needs a database")


async def opened(billing: Billing, folder: Path, *sinks: str) -> UsageLedger:
    settings = LedgerSettings(enabled=True, folder=folder, sinks=list(sinks), sync_interval_s=0.01)
    ledger = await open_ledger(settings, no_store, Plugins.load([("billing", billing)]))  # type: ignore[arg-type]
    assert ledger is not None
    return ledger


def test_a_plugins_ledger_gets_every_entry(tmp_path: Path, make: Make) -> None:
    async def run() -> None:
        billing = Billing()
        ledger = await opened(billing, tmp_path / "ledger", "billing")
        assert ledger.store is None and ledger.budgets is None
        for _ in range(3):
            ledger.journal.append(make())
        await ledger.close()
        assert [entry.number for entry in billing.entries] == [1, 2, 3] and billing.is_closed
        assert threading.get_ident() not in billing.threads
        again = Billing()
        ledger = await opened(again, tmp_path / "ledger", "billing")
        await ledger.close()
        assert again.entries == [], "it goes on where it ended"

    asyncio.run(run())


def test_a_ledger_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"(?s)bilding.*billing"):
        asyncio.run(opened(Billing(), tmp_path / "ledger", "bilding"))


def test_without_a_ledger_nothing_is_opened() -> None:
    assert asyncio.run(open_ledger(LedgerSettings(), no_store, Plugins.load())) is None  # type: ignore[arg-type]
