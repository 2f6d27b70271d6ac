"""Prices to the last part, and budgets that stop a request before it starts or in its middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import partial

import pytest
from isotoken.api.gateway.principal import Principal
from isotoken.api.ledger.budgets import Budgets
from isotoken.api.ledger.database import add_entries
from isotoken.api.ledger.entry import UsageEntry
from isotoken.api.ledger.money import per_token, shown, to_decimal
from isotoken.api.ledger.prices import PriceTable, Rates
from isotoken.api.ledger.purses import Amount, Purses, bounds
from isotoken.api.ledger.settings import Budget, LedgerSettings, Price
from isotoken.api.server.errors import ApiError
from isotoken.api.store.database import Store
from pydantic import ValidationError

from .conftest import Make

ACME = Principal(tenant="acme", key_id="k1")


def test_money_is_exact() -> None:
    assert per_token(Decimal("0.15")) == 150_000
    assert per_token(Decimal("0.000001")) == 1
    with pytest.raises(ValueError, match="up to 6 decimals"):
        per_token(Decimal("0.0000001"))
    assert to_decimal(3 * 150_000) == Decimal("0.00000045")
    assert shown(1_234_567_890_123) == "1.234568"
    assert Price(model="m", prompt=0.15).prompt == Decimal("0.15"), "as a configuration file has it"
    with pytest.raises(ValidationError, match="decimals"):
        Price(model="m", generated="0.12345678")


def test_the_first_price_that_fits_counts(caplog: pytest.LogCaptureFixture) -> None:
    table = PriceTable(
        [
            Price(model="chat@2b*", prompt="3", generated="4"),
            Price(model="chat", prompt="1", cached="0.5", generated="2"),
            Price(model="llama-*", prompt="5"),
        ]
    )
    assert table.rates("chat", "2bcd") == Rates(3_000_000, 3_000_000, 4_000_000)
    assert table.rates("chat", "1abc").cost(10, 4, 3) == 6 * 1_000_000 + 4 * 500_000 + 3 * 2_000_000
    assert table.rates("llama-3").prompt == 5_000_000
    assert table.rates("unknown") == Rates()
    assert "has no price" in caplog.text


def test_periods_are_the_calendars() -> None:
    assert bounds("day", date(2026, 2, 28)) == (date(2026, 2, 28), date(2026, 3, 1))
    assert bounds("month", date(2026, 12, 31)) == (date(2026, 12, 1), date(2027, 1, 1))
    assert bounds("total", date(2026, 12, 31)) == (date(1970, 1, 1), None)


@pytest.mark.parametrize(
    "settings",
    [
        {"budgets": [{"tenant": "a", "key": "b", "cost": 1}]},
        {"budgets": [{"cost": 1}]},
        {"budgets": [{"tenant": "a"}]},
        {"budgets": [{"tenant": "a", "cost": 1}], "sinks": ["mine"]},
        {"prices": [{"model": "m", "prompt": -1}]},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LedgerSettings(**settings)


def test_a_new_day_begins_a_new_purse(make: Make) -> None:
    today = date(2026, 5, 31)
    budgets = [Budget(tenant="*", period=period, tokens=100) for period in ("day", "month", "total")]
    purses = Purses(budgets, today=lambda: today)

    def end(number: int) -> None:
        ended = datetime.combine(today, time(12), UTC).timestamp()
        purses.ended(make(prompt_tokens=30, generated_tokens=0, ended=ended)("j", number))

    def used() -> list[int]:
        return [purse.used.tokens for purse in purses.of("acme", "")]

    end(1)
    assert used() == [30, 30, 30]
    today = date(2026, 6, 1)
    assert used() == [0, 0, 30]
    end(2)
    today = date(2026, 6, 2)
    assert used() == [0, 30, 60]
    day, month, ever = purses.of("acme", "")
    purses.settle(1, {day: Amount(0, 0), month: Amount(0, 5), ever: Amount(0, 35)})
    assert used() == [0, 35, 65], "entry 2 is not in the database's sums yet, and is not of this day"
    purses.settle(2, {month: Amount(0, 35), ever: Amount(0, 65)})
    assert used() == [0, 35, 65]


def test_what_waits_for_the_database_is_added_up_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an hour without it there may be a million entries: no look at it may go through them all."""
    purses = Purses([Budget(tenant="*", tokens=10**9)], today=lambda: date(2026, 5, 31))
    ended = datetime(2026, 5, 31, 12, tzinfo=UTC).timestamp()
    looked = 0
    day = UsageEntry.day.fget  # type: ignore[attr-defined]

    def counted(entry: UsageEntry) -> date:
        nonlocal looked
        looked += 1
        return day(entry)  # type: ignore[no-any-return]

    monkeypatch.setattr(UsageEntry, "day", property(counted))
    for number in range(1, 1001):
        purses.ended(make(tenant=f"t{number % 10}", prompt_tokens=3, generated_tokens=0, ended=ended)("j", number))
    every = [purses.of(f"t{number}", "")[0] for number in range(10)]
    for delivered in range(0, 1001, 50):
        purses.settle(delivered, {purse: Amount(0, 3 * delivered // 10) for purse in every})
        assert [purse.used.tokens for purse in every] == [300] * 10
    assert looked <= 3000


def with_budgets(store: Store, body: Callable[[Budgets], object], *budgets: Budget) -> None:
    async def run() -> None:
        await body(Budgets(budgets, store, "j", interval_s=60))  # type: ignore[misc]

    asyncio.run(run())


def test_what_was_used_before_counts_after_a_restart(store: Store, make: Make) -> None:
    store.call(partial(add_entries, entries=[make(prompt_tokens=90, generated_tokens=9, key_id="k1")("old", 1)]))

    async def body(budgets: Budgets) -> None:
        tab = await budgets.open(ACME)
        assert tab is not None
        with pytest.raises(ApiError, match="tenant's budget of 100 tokens a month is spent; the next") as caught:
            budgets.admit(tab, ACME, 2, Rates())
        assert caught.value.failure.status == 429 and caught.value.failure.code == "insufficient_quota"
        budgets.admit(tab, ACME, 1, Rates())
        with pytest.raises(ApiError, match="is spent"):
            await budgets.open(ACME)
        tab.close()
        assert await budgets.open(ACME) is not None, "what was put on a tab and not used is given back"
        assert await budgets.open(Principal(tenant="other")) is None

    with_budgets(store, body, Budget(tenant="acme", tokens=100))


def test_several_requests_share_one_budget_to_the_token(store: Store, make: Make) -> None:
    async def body(budgets: Budgets) -> None:
        rates = Rates(prompt=10, cached=1, generated=100)
        tabs = [await budgets.open(ACME) for _ in range(3)]
        for tab in tabs:
            assert tab is not None
            budgets.admit(tab, ACME, 5, rates)
        assert [tab(2) for tab in tabs if tab] == [False, False, True], "3 x (5 x 10 + 2 x 100) is over 700"
        for number, tab in enumerate(tabs, 1):
            assert tab is not None
            tab.close()
            used = make(key_id="k1", prompt_tokens=5, cached_tokens=5, generated_tokens=2, cost=205)
            budgets.ended(used("j", number))
        (told,) = await budgets.describe(ACME)
        assert told["used_cost"] == "0.000000000615", "what it really was: the prompts came from the cache"
        assert await budgets.open(ACME) is not None

    with_budgets(store, body, Budget(key="k1", period="day", cost=Decimal("0.0000000007")))


def test_what_another_server_counted_is_seen(store: Store, make: Make) -> None:
    """At the next look while a budget is in use, and at once when it is used again."""

    async def body(budgets: Budgets) -> None:
        for number, is_in_use in enumerate((True, False, True), 1):
            assert await budgets.open(ACME) is not None
            await budgets.refresh()
            if not is_in_use:
                await budgets.refresh()  # nobody has asked since: what is known is out of date
            used = make(prompt_tokens=30, generated_tokens=0)("another server", number)
            await store.run(partial(add_entries, entries=[used]))
            if is_in_use:
                await budgets.open(ACME)
                await budgets.refresh()
        with pytest.raises(ApiError, match="is spent"):
            await budgets.open(ACME)

    with_budgets(store, body, Budget(tenant="acme", tokens=90))


def test_a_database_that_is_gone_leaves_what_this_server_knows(
    sqlite_store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(budgets: Budgets) -> None:
        monkeypatch.setattr(sqlite_store, "_rests_until", float("inf"))
        assert await budgets.open(ACME) is not None
        budgets.ended(make(prompt_tokens=100, generated_tokens=0)("j", 1))
        with pytest.raises(ApiError, match="is spent"):
            await budgets.open(ACME)

    with_budgets(sqlite_store, body, Budget(tenant="*", tokens=100))
