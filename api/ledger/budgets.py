"""Budgets: stop a request before it starts, or in the middle, when whoever asks has used up what it may use."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from typing import TYPE_CHECKING

from ..server.errors import ApiError
from ..store.errors import StoreError
from .entry import UsageEntry
from .prices import Rates
from .purses import Amount, Purse, Purses
from .settings import Budget

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ..gateway.principal import Principal
    from ..store.database import Store

log = logging.getLogger("isotoken.ledger")


class Tab:
    """What one request has run up so far. Call it with each lot of output tokens; True: that was the last."""

    def __init__(self, purses: Sequence[Purse]) -> None:
        self._purses = purses
        self._own = Amount()
        self._rates = Rates()

    def prompt(self, num_tokens: int, rates: Rates) -> None:
        """Count a prompt, as if nothing of it were cached; what follows has these rates."""
        self._rates = rates
        self._add(num_tokens * rates.prompt, num_tokens)

    def __call__(self, num_tokens: int) -> bool:
        """Count output tokens. Returns whether a budget is used up."""
        self._add(num_tokens * self._rates.generated, num_tokens)
        return any(purse.is_spent() for purse in self._purses)

    def close(self) -> None:
        """The request ended: what it really used is counted elsewhere."""
        cost, tokens = self._own
        self._add(-cost, -tokens)

    def _add(self, cost: int, tokens: int) -> None:
        self._own = self._own.plus(cost, tokens)
        for purse in self._purses:
            purse.running = purse.running.plus(cost, tokens)


class Budgets:
    """The budgets of everybody. For one event loop."""

    def __init__(self, budgets: Sequence[Budget], store: Store, journal_id: str, *, interval_s: float) -> None:
        self._purses = Purses(budgets)
        self._store = store
        self._journal_id = journal_id
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None
        self._is_blind = False  # the database does not answer: this server knows of its own requests only

    def start(self) -> None:
        """Look now and then at what other servers have counted."""
        self._task = asyncio.create_task(self._look_now_and_then(), name="isotoken-budgets")

    async def open(self, principal: Principal) -> Tab | None:
        """Return a tab for a request; None: it has no budget. Raises ApiError 429 where nothing is left."""
        purses = self._purses.of(principal.tenant, principal.key_id)
        if not purses:
            return None
        unknown = [purse for purse in purses if not purse.is_known]
        if unknown and not self._is_blind:
            await self._look(unknown)
        _check(purses)
        return Tab(purses)

    def admit(self, tab: Tab, principal: Principal, num_prompt_tokens: int, rates: Rates) -> None:
        """Put a prompt on the tab. Raises ApiError 429 where it is more than what is left."""
        _check(self._purses.of(principal.tenant, principal.key_id), num_prompt_tokens * rates.cached, num_prompt_tokens)
        tab.prompt(num_prompt_tokens, rates)

    def ended(self, entry: UsageEntry) -> None:
        """Count a request that ended."""
        self._purses.ended(entry)

    async def describe(self, principal: Principal) -> list[dict[str, object]]:
        """Return each budget that requests of a principal are paid from, and what is used of it."""
        purses = self._purses.of(principal.tenant, principal.key_id)
        await self._look(purses)
        return [purse.shown() for purse in purses]

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def refresh(self) -> None:
        """Ask the database for all purses in use. Where it does not answer, what was known stays."""
        await self._look(self._purses.take_active())

    async def _look_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.refresh()
            except Exception:  # the next look may see more
                log.exception("budgets could not be looked up")

    async def _look(self, purses: Sequence[Purse]) -> None:
        if not purses:
            return
        asked = {purse: purse.since for purse in purses}
        try:
            delivered, sums = await self._store.read(partial(_sums, journal_id=self._journal_id, asked=asked))
        except StoreError as error:
            if not self._is_blind:
                log.warning("budgets are kept from what this server knows by itself: %s", error)
            self._is_blind = True
            return
        self._is_blind = False
        same_period = {purse: amount for purse, amount in sums.items() if purse.since == asked[purse]}
        self._purses.settle(delivered, same_period)


def _check(purses: Sequence[Purse], cost: int = 0, tokens: int = 0) -> None:
    for purse in purses:
        if purse.is_spent(cost, tokens):
            raise ApiError(429, purse.describe(), code="insufficient_quota", headers=(("x-should-retry", "false"),))


def _sums(connection: Connection, *, journal_id: str, asked: Mapping[Purse, date]) -> tuple[int, dict[Purse, Amount]]:
    """Return the number of this server's last entry in the database, and the purses' sums with it."""
    from .reports import journal_position, sums_since  # noqa: PLC0415  (sqlalchemy, which a store has brought)

    groups: dict[tuple[str, date], list[Purse]] = defaultdict(list)
    for purse, since in asked.items():
        groups[purse.owner.kind, since].append(purse)
    found: dict[Purse, Amount] = {}
    for (kind, since), purses in groups.items():
        sums = sums_since(connection, kind, since, {purse.owner.name for purse in purses})
        for purse in purses:
            found[purse] = Amount(*sums.get(purse.owner.name, (0, 0)))
    return journal_position(connection, journal_id), found
