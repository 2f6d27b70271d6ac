"""open_ledger: the ledger as the settings want it, with its journal, its sinks and its budgets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...plugins.manager import Plugins
from ..store.settings import data_folder
from .budgets import Budgets
from .courier import Courier, Sink
from .journal import Journal
from .ledger import UsageLedger
from .settings import LedgerSettings

if TYPE_CHECKING:
    from ..store.database import Store

CATCH_UP_S = 10.0
"""Seconds that a start waits for what earlier processes left to reach the sinks. More comes there while it serves."""


@dataclass(frozen=True, slots=True)
class LedgerContext:
    """What the factories of ledgers are given."""

    settings: LedgerSettings
    open_store: Callable[[], Awaitable[Store]]  # the database; opened for the first who asks


async def open_ledger(
    settings: LedgerSettings, open_store: Callable[[], Awaitable[Store]], plugins: Plugins
) -> UsageLedger | None:
    """Return the ledger, at work; None: there is to be none. Raises PluginError, StoreError, OSError and ValueError."""
    if not settings.enabled:
        return None
    context = LedgerContext(settings, open_store)
    sinks = {name: await _open_sink(plugins, name, context) for name in settings.sinks}
    folder = settings.folder or data_folder() / "ledger"
    journal = Journal(folder, max_unwritten=settings.max_unwritten)
    couriers = [
        Courier(name, sink, journal, interval_s=settings.sync_interval_s, retry_s=settings.retry_interval_s)
        for name, sink in sinks.items()
    ]
    store = await open_store() if "database" in sinks else None
    budgets = None
    if settings.budgets and store is not None:
        budgets = Budgets(settings.budgets, store, journal.id, interval_s=settings.refresh_interval_s)
    ledger = UsageLedger(settings, journal, couriers, store=store, budgets=budgets)
    ledger.start()
    for courier in couriers:
        await asyncio.to_thread(courier.wait_for_turn, CATCH_UP_S)
    return ledger


async def _open_sink(plugins: Plugins, name: str, context: LedgerContext) -> Sink:
    sink: Sink = await plugins.ledgers.get_factory(name)(context)
    return sink


async def open_database(context: LedgerContext) -> Sink:
    """Return the ledger `database`."""
    from .database import DatabaseSink  # noqa: PLC0415  (sqlalchemy, which only a database needs)
    from .retention import Keeper  # noqa: PLC0415

    store = await context.open_store()
    return DatabaseSink(store, Keeper(store, context.settings.retention))
