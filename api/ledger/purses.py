"""Purses: what tenants and keys with a budget have used in its period, to the token, with what runs just now."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from .entry import UsageEntry
from .money import to_decimal, to_units
from .settings import Budget

BEGINNING = date(1970, 1, 1)


class Amount(NamedTuple):
    """Money and tokens."""

    cost: int = 0  # money.UNIT
    tokens: int = 0

    def plus(self, cost: int, tokens: int) -> Amount:
        """Return the sum."""
        return Amount(self.cost + cost, self.tokens + tokens)


class Owner(NamedTuple):
    """Whose budget it is."""

    kind: str  # "tenant" or "key"
    name: str


@dataclass(slots=True, eq=False)
class Purse:
    """One budget of one owner, in the present period."""

    owner: Owner
    budget: Budget
    since: date
    until: date | None  # the first day of the next period
    settled: Amount = field(default_factory=Amount)  # in the database
    pending: Amount = field(default_factory=Amount)  # ended, and not in the database yet
    running: Amount = field(default_factory=Amount)  # of requests that have not ended
    is_known: bool = False  # the database was asked, and not long ago
    is_touched: bool = True  # somebody looked into it since the database was last asked

    @property
    def used(self) -> Amount:
        """All together."""
        return self.settled.plus(*self.pending).plus(*self.running)

    def is_spent(self, cost: int = 0, tokens: int = 0) -> bool:
        """Whether nothing is left of it, or not so much."""
        used, budget = self.used.plus(cost, tokens), self.budget
        strictly = bool(cost or tokens)  # what is wanted may use up the very last
        return (budget.cost is not None and _beyond(used.cost, to_units(budget.cost), strictly=strictly)) or (
            budget.tokens is not None and _beyond(used.tokens, budget.tokens, strictly=strictly)
        )

    def describe(self) -> str:
        """Say what is spent."""
        limits = [] if self.budget.cost is None else [f"a cost of {self.budget.cost:f}"]
        limits += [] if self.budget.tokens is None else [f"{self.budget.tokens} tokens"]
        period = "" if self.budget.period == "total" else f" a {self.budget.period}"
        until = "" if self.until is None else f"; the next begins on {self.until}, UTC"
        return f"the {self.owner.kind}'s budget of {' and '.join(limits)}{period} is spent{until}"

    def shown(self) -> dict[str, object]:
        """Return it as JSON has it; costs are exact decimal numbers, in text."""
        used, budget = self.used, self.budget
        return {
            "of": self.owner.kind,
            "name": self.owner.name,
            "period": budget.period,
            "since": self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "cost": None if budget.cost is None else f"{budget.cost:f}",
            "tokens": budget.tokens,
            "used_cost": f"{to_decimal(used.cost):f}",
            "used_tokens": used.tokens,
        }

    def add(self, entry: UsageEntry) -> None:
        """Count an entry of its owner's that the database does not have yet."""
        if entry.day >= self.since:
            self.pending = self.pending.plus(entry.cost, entry.tokens)


class _Waiting:
    """What an owner's requests have used that is not in the database yet: added up, however long that is away."""

    __slots__ = ("_by_day", "_entries")

    def __init__(self) -> None:
        self._entries: deque[tuple[int, date, int, int]] = deque()  # number, day, cost, tokens
        self._by_day: dict[date, Amount] = {}

    def add(self, entry: UsageEntry) -> None:
        day, cost, tokens = entry.day, entry.cost, entry.tokens
        self._entries.append((entry.number, day, cost, tokens))
        self._by_day[day] = self._by_day.get(day, Amount()).plus(cost, tokens)

    def delivered(self, number: int) -> None:
        """The database has all up to this number."""
        while self._entries and self._entries[0][0] <= number:
            _, day, cost, tokens = self._entries.popleft()
            self._by_day[day] = self._by_day[day].plus(-cost, -tokens)
        if not self._entries:
            self._by_day.clear()

    def since(self, first: date) -> Amount:
        """Return the sum of what counts from a day on."""
        total = Amount()
        for day, amount in self._by_day.items():
            total = total.plus(*amount) if day >= first else total
        return total


class Purses:
    """All purses, made as their owners come. `today` is the day in UTC."""

    def __init__(self, budgets: Iterable[Budget], *, today: Callable[[], date] | None = None) -> None:
        self._budgets = list(budgets)
        self._today = today or (lambda: datetime.now(UTC).date())
        self._purses: dict[tuple[Owner, Budget], Purse] = {}
        self._by_principal: dict[tuple[str, str], list[Purse]] = {}
        self._day = self._today()
        self._waiting: defaultdict[Owner, _Waiting] = defaultdict(_Waiting)

    def take_active(self) -> list[Purse]:
        """Return those that are in use. What is known of the others is out of date from now on."""
        active = []
        for purse in self._purses.values():
            if purse.is_touched or purse.running != Amount():
                active.append(purse)
            else:
                purse.is_known = False
            purse.is_touched = False
        return active

    def of(self, tenant: str, key_id: str) -> list[Purse]:
        """Return the purses that a request by this tenant and key is paid from."""
        self._turn_the_page()
        found = self._by_principal.get((tenant, key_id))
        if found is None:
            owners = {"tenant": tenant, "key": key_id}
            found = [
                self._purse(Owner(kind, name), budget)
                for budget in self._budgets
                for kind, name in owners.items()
                if name and getattr(budget, kind) in (name, "*")
            ]
            self._by_principal[tenant, key_id] = found
        for purse in found:
            purse.is_touched = True
        return found

    def ended(self, entry: UsageEntry) -> None:
        """Count a request that ended."""
        purses = self.of(entry.tenant, entry.key_id)
        for owner in {purse.owner for purse in purses}:
            self._waiting[owner].add(entry)
        for purse in purses:
            purse.add(entry)

    def settle(self, delivered: int, sums: Mapping[Purse, Amount]) -> None:
        """Take what the database says, which has all of this server's entries up to number `delivered`."""
        for waiting in self._waiting.values():
            waiting.delivered(delivered)
        for purse, amount in sums.items():
            purse.settled, purse.pending, purse.is_known = amount, self._pending(purse), True

    def _purse(self, owner: Owner, budget: Budget) -> Purse:
        purse = self._purses.get((owner, budget))
        if purse is None:
            purse = self._purses[owner, budget] = Purse(owner, budget, *bounds(budget.period, self._day))
        return purse

    def _pending(self, purse: Purse) -> Amount:
        return self._waiting[purse.owner].since(purse.since)

    def _turn_the_page(self) -> None:
        """Begin new periods with a new day. What runs now is paid from the new one."""
        today = self._today()
        if today == self._day:
            return
        self._day = today
        for purse in self._purses.values():
            since, until = bounds(purse.budget.period, today)
            if since != purse.since:
                purse.since, purse.until = since, until
                purse.settled, purse.pending = Amount(), self._pending(purse)


def bounds(period: str, day: date) -> tuple[date, date | None]:
    """Return the first day of the period that `day` is in, and that of the next one."""
    if period == "day":
        return day, day + timedelta(days=1)
    if period == "month":
        first = day.replace(day=1)
        return first, (first + timedelta(days=31)).replace(day=1)
    return BEGINNING, None


def _beyond(used: int, limit: int, *, strictly: bool) -> bool:
    return used > limit if strictly else used >= limit
