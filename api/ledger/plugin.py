"""The plugin of the ledger: the ledger `database`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from .assembly import LedgerContext
    from .courier import Sink

ISOTOKEN_API = "1.3"


async def _database(context: LedgerContext) -> Sink:
    from .assembly import open_database  # noqa: PLC0415  (listing plugins imports nothing)

    return await open_database(context)


@hookimpl
def register_ledgers(register: Register) -> None:
    """Claim database."""
    register("database", _database, description="the tables of the store, for reports and budgets")
