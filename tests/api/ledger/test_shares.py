"""Who is charged for what, where several models worked on one request: each for its own, at its own price."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from isotoken.api.engine import RequestStats
from isotoken.api.ledger.journal import Journal
from isotoken.api.ledger.ledger import UsageLedger
from isotoken.api.ledger.segments import Cursor
from isotoken.api.ledger.settings import LedgerSettings
from isotoken.api.server.exchange import Exchange


class Model:
    """As much of a served model as the ledger looks at."""

    def __init__(self, family: str, folder: str, version: str = "") -> None:
        self.family = family
        self.version = version
        self.engine = SimpleNamespace(info=SimpleNamespace(model=folder))


def stats(folder: str, prompt: int, generated: int, *, ran: bool = True) -> RequestStats:
    return RequestStats(
        request_id="r",
        model=folder,
        num_prompt_tokens=prompt,
        num_cached_tokens=0,
        num_output_tokens=generated,
        finish_reasons=("stop",),
        queue_time=0.0 if ran else None,
        time_to_first_token=None,
        inter_token_latencies=(),
        total_latency=1.0,
    )


@pytest.mark.anyio
def test_a_cheap_model_first_and_a_strong_one_of_the_same_folder(journal: Journal) -> None:
    prices = [
        {"model": "chat@cheap", "prompt": 1, "generated": 2},
        {"model": "chat@strong", "prompt": 10, "generated": 20},
    ]
    ledger = UsageLedger(LedgerSettings(enabled=True, prices=prices), journal, [])
    exchange = Exchange({"type": "http", "headers": [], "state": {}}, None)  # type: ignore[arg-type, typeddict-item]
    asyncio.run(ledger.open(exchange, Model("chat", "/weights", "cheap"), 10))
    exchange.stats.append(stats("/weights", 10, 5))
    asyncio.run(ledger.open(exchange, Model("chat", "/weights", "strong"), 10))
    exchange.stats += [stats("/weights", 10, 7), stats("/weights", 99, 0, ran=False)]
    exchange.arm = "trial/b"
    assert ledger.cost(exchange) == pytest.approx((10 * 1 + 5 * 2 + 10 * 10 + 7 * 20) / 1e6)
    exchange.end()
    cheap, strong = Cursor(journal.segments).read(10)
    assert (cheap.version, cheap.prompt_tokens, cheap.generated_tokens, cheap.cost) == ("cheap", 10, 5, 20 * 10**6)
    assert (strong.version, strong.prompt_tokens, strong.generated_tokens, strong.cost) == (
        "strong",
        10,
        7,
        240 * 10**6,
    )
    assert cheap.arm == strong.arm == "trial/b" and cheap.id != strong.id


@pytest.mark.anyio
def test_a_request_that_never_ran_costs_nothing(journal: Journal) -> None:
    ledger = UsageLedger(LedgerSettings(enabled=True, prices=[{"model": "*", "prompt": 1}]), journal, [])
    exchange = Exchange({"type": "http", "headers": [], "state": {}}, None)  # type: ignore[arg-type, typeddict-item]
    asyncio.run(ledger.open(exchange, Model("chat", "/weights"), 10))
    exchange.stats.append(stats("/weights", 10, 0, ran=False))
    exchange.end()
    (entry,) = Cursor(journal.segments).read(10)
    assert (entry.prompt_tokens, entry.cost) == (0, 0)
