"""UsageLedger: watches over every exchange that uses an engine, and writes down at its end what it used."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..server.errors import ApiError
from .courier import Courier
from .entry import UsageEntry, plain
from .flusher import Flusher
from .journal import Journal
from .money import UNIT
from .prices import PriceTable
from .shares import Sums, Use, shares

if TYPE_CHECKING:
    from ..engine import RequestStats
    from ..engine.in_flight import Meter
    from ..server.exchange import Exchange
    from ..server.metrics import Metrics
    from ..server.served import ServedModel
    from ..store.database import Store
    from .budgets import Budgets
    from .settings import LedgerSettings

log = logging.getLogger("isotoken.ledger")

CLOSE_TIMEOUT_S = 5.0
"""Seconds for the last entries to reach the database. After it they wait in the journal for the next start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatus:
    """The ledger in numbers, for metrics and readiness."""

    num_recorded: int  # since the start
    num_pending: int  # not in every sink yet
    lag_s: float  # since every sink had everything; 0: they have
    num_unwritten: int  # that only memory has, since the journal's disk is full or broken
    num_dropped: int  # lost: more than memory is allowed to hold
    num_rejected: int  # that a sink can never take; they are in a file
    journal_error: str  # empty: the journal is written
    sink_errors: dict[str, str]  # by name, of those that take nothing now

    @property
    def problem(self) -> str:
        """What is wrong, for whoever asks for the server's health; empty: nothing. Why is in the log."""
        problems = ["the journal cannot be written to"] if self.journal_error else []
        problems += [f"the sink {name} takes no entries" for name in self.sink_errors]
        return "; ".join(problems)


_GAUGES: Sequence[tuple[str, str, Callable[[LedgerStatus], float]]] = (
    ("lag_seconds", "Since all usage was in the database; 0: it is", lambda status: status.lag_s),
    ("pending_entries", "Usage entries that are not in the database yet", lambda status: status.num_pending),
    ("unwritten_entries", "Usage entries that only memory has", lambda status: status.num_unwritten),
    ("lost_entries", "Usage entries lost or put aside since the start", lambda s: s.num_dropped + s.num_rejected),
    ("journal_broken", "1: the journal cannot be written to", lambda status: bool(status.journal_error)),
    ("database_gone", "1: the database takes no entries", lambda status: bool(status.sink_errors)),
)


class UsageLedger:
    """The ledger of one server. For one event loop; the database and the disk's flushes have threads of their own."""

    def __init__(
        self,
        settings: LedgerSettings,
        journal: Journal,
        couriers: Sequence[Courier],
        *,
        store: Store | None = None,
        budgets: Budgets | None = None,
        on_entry: Callable[[UsageEntry], None] | None = None,
    ) -> None:
        self.settings = settings
        self.journal = journal
        self.couriers = list(couriers)
        self.store = store  # where reports come from
        self.reporting = asyncio.Lock()  # one at a time: keys and budgets are looked up in the same thread
        self.budgets = budgets
        self.on_entry = on_entry  # hears of each, for metrics
        self._prices = PriceTable(settings.prices)
        self._flusher = Flusher(journal, self.couriers, settings)
        self._uses: dict[Exchange, Use] = {}

    def start(self) -> None:
        """Begin to bring entries to the sinks, those that earlier processes left first."""
        for courier in self.couriers:
            courier.start()
        self._flusher.start()
        if self.budgets is not None:
            self.budgets.start()

    async def open(self, exchange: Exchange, model: ServedModel, num_prompt_tokens: int) -> Meter | None:
        """Watch over an exchange that is about to use an engine; the meter ends it when its budget is used up.

        Raises ApiError 429 for a budget that is spent, and 503 where nothing more can be written down.
        """
        if self.is_full:
            raise ApiError(503, "usage cannot be recorded now", headers=(("retry-after", "10"),))
        use = self._uses.get(exchange)
        if use is None:
            tab = None if self.budgets is None else await self.budgets.open(exchange.principal)
            use = self._uses[exchange] = Use(tab=tab)
            exchange.on_end.append(self._end)
        use.models.append((len(exchange.stats), model))
        if use.tab is not None and self.budgets is not None:
            rates = self._prices.rates(model.family, model.version)
            self.budgets.admit(use.tab, exchange.principal, num_prompt_tokens, rates)
        return use.tab

    def cost(self, exchange: Exchange) -> float:
        """Return what an exchange has cost so far, in the price table's money; what was recorded is not counted."""
        use = self._uses.get(exchange)
        if use is None:
            return 0.0
        return sum(self._cost(model, Sums.of(group)) for model, group in shares(exchange, use).items()) / UNIT

    @property
    def is_full(self) -> bool:
        """Whether requests are refused, since nothing more can be written down."""
        return self.settings.when_full == "refuse" and self.journal.is_full

    @property
    def problem(self) -> str:
        """What is wrong, for people; empty: nothing."""
        return self.status.problem

    @property
    def status(self) -> LedgerStatus:
        """The ledger in numbers."""
        journal, now = self.journal, time.monotonic()
        lags = [now - courier.caught_up_at for courier in self.couriers if courier.num_pending or courier.error]
        return LedgerStatus(
            num_recorded=journal.last_number,
            num_pending=max((courier.num_pending for courier in self.couriers), default=0),
            lag_s=max(lags, default=0.0),
            num_unwritten=len(journal.unwritten),
            num_dropped=journal.num_dropped,
            num_rejected=sum(courier.num_rejected for courier in self.couriers),
            journal_error=journal.error,
            sink_errors={courier.sink_name: courier.error for courier in self.couriers if courier.error},
        )

    def show_in(self, metrics: Metrics) -> None:
        """Show the ledger, and what each tenant costs, in the server's metrics."""
        self.on_entry = lambda entry: metrics.charged(entry.tenant, entry.model, entry.cost / UNIT)
        for name, text, read in _GAUGES:
            metrics.watch(f"llm_ledger_{name}", text, partial(self._gauge, read))

    def _gauge(self, read: Callable[[LedgerStatus], float]) -> float:
        return float(read(self.status))

    async def close(self) -> None:
        """Bring what is left to the sinks, as far as they take it, and end."""
        if self.budgets is not None:
            await self.budgets.close()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._flusher.stop()
        for courier in self.couriers:
            courier.stop(CLOSE_TIMEOUT_S)
        self.journal.close()

    def _end(self, exchange: Exchange) -> None:
        use = self._uses.pop(exchange)
        if use.tab is not None:
            use.tab.close()
        for model, group in shares(exchange, use).items():
            self._record(exchange, model, group)

    def _cost(self, model: ServedModel, sums: Sums) -> int:
        rates = self._prices.rates(model.family, model.version)
        return rates.cost(sums.prompt, sums.cached, sums.generated)

    def _record(self, exchange: Exchange, model: ServedModel, group: Sequence[RequestStats]) -> None:
        """Write down what one model did for an exchange."""
        sums = Sums.of(group)
        cost = self._cost(model, sums)

        def make(journal: str, number: int) -> UsageEntry:
            return UsageEntry(
                journal=journal,
                number=number,
                request_id=plain(exchange.id),
                tenant=plain(exchange.principal.tenant),
                key_id=plain(exchange.principal.key_id),
                model=plain(model.family, 256),
                version=plain(model.version),
                arm=plain(exchange.arm),
                route=plain(exchange.route),
                status=exchange.status,
                finish_reason=group[0].finish_reasons[0],
                prompt_tokens=sums.prompt,
                cached_tokens=sums.cached,
                generated_tokens=sums.generated,
                drafted_tokens=sums.drafted,
                accepted_tokens=sums.accepted,
                cost=cost,
                ended=time.time(),
                seconds=round(time.monotonic() - exchange.started, 6),
            )

        entry = self.journal.append(make)
        if self.budgets is not None:
            self.budgets.ended(entry)
        if self.on_entry is not None:
            self.on_entry(entry)
        self._flusher.wake()
