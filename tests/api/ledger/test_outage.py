"""A database that goes and comes back under a server: requests go on, and the ledger catches up to the token."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from isotoken.api.ledger.journal import Journal
from isotoken.api.ledger.ledger import UsageLedger
from isotoken.api.ledger.settings import LedgerSettings
from isotoken.api.server.errors import ApiError
from isotoken.api.store.database import Store

from .conftest import Make
from .serving import Client, serving
from .test_exactness import PRICES, check, read


def test_requests_go_on_while_the_database_is_gone(
    tmp_path: Path, model_dir: Path, postgres: Any, postgres_url: str
) -> None:
    """It is killed, requests run, and when it is back everything is there, once."""
    settings = {"retry_interval_s": 0.1, "budgets": [{"tenant": "*", "tokens": 10**9}], "refresh_interval_s": 0.1}
    config = {"max_model_len": 256, "block_size": 4}
    with serving(tmp_path, model_dir, store=postgres_url, config=config, prices=PRICES, **settings) as server:
        first = Client(server, random.Random(9), "first")
        first.run(1)
        clients = [Client(server, random.Random(number), f"o{number}") for number in range(2)]
        server.settle()
        postgres.server.stop(signal.SIGKILL)
        try:
            threads = [threading.Thread(target=client.run, args=(3,)) for client in clients]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            server.wait_for(lambda: server.metric("llm_ledger_database_gone") == 1)
            assert server.metric("llm_ledger_pending_entries") > 0 and server.metric("llm_ledger_lag_seconds") > 0
            assert server.client.get("/health/ready").status_code == 200
            assert server.client.get("/v1/usage").status_code == 503
        finally:
            postgres.server.start()
        server.settle()
        assert server.metric("llm_ledger_database_gone") == 0 and server.metric("llm_ledger_lag_seconds") == 0
        assert server.client.get("/v1/usage").status_code == 200
        rows, sums = read(postgres_url)
        counted = server.engine_counts()
    check([request for client in (first, *clients) for request in client.seen], rows, counted)
    assert sums["requests"] == len(rows)


def test_requests_go_on_while_the_journals_disk_is_full(
    tmp_path: Path, model_dir: Path, small_disk: Path, sqlite_store: Store
) -> None:
    """The database has the entries all the same, and readiness says what is wrong."""
    url = f"sqlite:///{sqlite_store.engine.url.database}"
    ballast = small_disk / "ballast"
    settings = {"folder": str(small_disk / "ledger"), "retry_interval_s": 0.1}
    with serving(tmp_path, model_dir, store=url, prices=PRICES, **settings) as server:
        with ballast.open("wb") as file, pytest.raises(OSError, match="No space"):
            while True:
                os.write(file.fileno(), bytes(512))
        client = Client(server, random.Random(3), "f")
        client.run(3)
        server.wait_for(lambda: server.metric("llm_ledger_journal_broken") == 1)
        ready = server.client.get("/health/ready")
        assert ready.status_code == 200 and ready.json()["ledger"] == "the journal cannot be written to"
        server.settle()
        ballast.unlink()
        server.wait_for(lambda: server.metric("llm_ledger_journal_broken") == 0)
        assert "ledger" not in server.client.get("/health/ready").json()
        server.settle()
        rows, _ = read(url)
        counted = server.engine_counts()
    check(client.seen, rows, counted)


@pytest.mark.parametrize("when_full", ["refuse", "serve"])
def test_what_happens_when_memory_is_full_too(tmp_path: Path, journal: Journal, make: Make, when_full: Any) -> None:
    journal.unwritten = deque(maxlen=2)
    journal.error = "pretend that the disk is full"
    ledger = UsageLedger(LedgerSettings(enabled=True, when_full=when_full), journal, [])
    for _ in range(3):
        assert ledger.is_full == (when_full == "refuse" and journal.last_number >= 2)
        journal.append(make())
    assert ledger.status.num_dropped == 1 and "cannot be written to" in ledger.problem
    if when_full == "refuse":
        with pytest.raises(ApiError, match="cannot be recorded") as caught:
            asyncio.run(ledger.open(None, None, 1))  # type: ignore[arg-type]  (it looks at neither)
        assert caught.value.failure.status == 503


def test_a_database_that_is_not_there_at_the_start_is_said_to_be(tmp_path: Path, model_dir: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"(?s)did not start.*does not answer"),
        serving(tmp_path, model_dir, store="postgresql://nobody@127.0.0.1:1/none"),
    ):
        pass
