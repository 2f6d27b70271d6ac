"""A database that goes and comes back under a server: requests go on, and the ledger catches up to the token."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

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


def test_a_database_that_is_not_there_at_the_start_is_said_to_be(tmp_path: Path, model_dir: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"(?s)did not start.*does not answer"),
        serving(tmp_path, model_dir, store="postgresql://nobody@127.0.0.1:1/none"),
    ):
        pass
