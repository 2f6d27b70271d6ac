"""The ledger is exact: what clients were told, what the engine counted and what was written down are the same.

Random requests of every kind, clients that leave at random points, an engine that is killed again and again, and a
server that is killed too.
"""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

from isotoken.api.ledger.reports import Wanted, entries, total, usage
from isotoken.api.store import StoreSettings, connect

from .serving import Client, Seen, Server, serving

PRICES = [{"model": "*", "prompt": "0.15", "cached": "0.015", "generated": "0.6"}]
PROMPT, CACHED, GENERATED = 150_000, 15_000, 600_000  # the same, in parts of 10^-12 for one token


def read(url: str) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Return the entries by request id, and the sums by day all together."""
    store = connect(StoreSettings(url=url))
    try:
        rows = store.look(lambda connection: entries(connection, tenant=None, limit=10**6))
        sums = total(store.look(lambda connection: usage(connection, Wanted(by=("tenant",)))))
    finally:
        store.close_now()
    found = {row["request_id"]: row for row in rows}
    assert len(found) == len(rows), "a request is in the ledger twice"
    return found, sums


def make_requests(server: Server, rng: random.Random, name: str, *, each: int, kills: int) -> list[Seen]:
    """Let clients loose, kill the engine while they are at it, and return what they saw."""
    clients = [Client(server, random.Random(rng.random()), f"{name}{number}") for number in range(6)]
    failures: list[BaseException] = []

    def run(client: Client) -> None:
        try:
            client.run(each)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for _ in range(kills):
        before = server.metric("llm_tokens_generated_total")
        enough = rng.randint(5, 60)
        server.wait_for(
            lambda before=before, enough=enough: (
                server.metric("llm_tokens_generated_total") > before + enough
                or not any(thread.is_alive() for thread in threads)
            )
        )
        server.kill_engine()
    for thread in threads:
        thread.join()
    assert not failures, failures
    return [seen for client in clients for seen in client.seen]


def check(seen: list[Seen], rows: dict[str, dict[str, Any]], counted: dict[str, tuple[int, int, int]]) -> None:
    """Compare all three."""
    assert set(rows) <= {request.id for request in seen}
    for request in seen:
        row = rows.get(request.id)
        if row is None:
            assert request.usage is None, f"{request.id} is not in the ledger"
            continue
        written = row["prompt_tokens"], row["cached_tokens"], row["generated_tokens"]
        assert written == counted[request.id], request
        prompt, cached, generated = written
        assert row["cost"] == (prompt - cached) * PROMPT + cached * CACHED + generated * GENERATED
        if request.usage is not None:
            told = request.usage["prompt_tokens"], request.usage["completion_tokens"]
            if request.is_whole:
                assert told == (prompt, generated), request
                assert request.usage["prompt_tokens_details"]["cached_tokens"] == cached, request
            else:  # a prompt that never came to its turn costs nothing, and more may have been on its way to the client
                assert told[0] >= prompt and told[1] <= generated, request


def test_the_ledger_is_exact(tmp_path: Path, model_dir: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    rng = random.Random(seed)
    url = f"sqlite:///{tmp_path / 'usage.db'}"
    start = {"store": url, "prices": PRICES, "limits": {"backoff_s": 0.0}}
    config = {"drafter": rng.choice(["none", "ngram"]), "max_num_seqs": 8, "block_size": 4, "max_model_len": 256}
    with serving(tmp_path, model_dir, config=config, **start) as server:
        seen = make_requests(server, rng, "a", each=5, kills=2)
        server.settle()
        seen += make_requests(server, rng, "b", each=1, kills=0)
        server.wait_for(lambda: server.metric("llm_requests_in_flight") == 0)
        server.process.kill()  # what ended is in the journal, wherever it was on its way to the database
        server.process.wait()
    counted = server.engine_counts()
    with serving(tmp_path, model_dir, config=config, **start) as server:
        server.settle()
        rows, sums = read(url)
    check(seen, rows, counted)
    assert sums["requests"] == len(rows) and sum(request.is_whole for request in seen) > 10
    for name in ("prompt_tokens", "cached_tokens", "generated_tokens", "drafted_tokens", "accepted_tokens", "cost"):
        assert sums[name] == sum(row[name] for row in rows.values()), name
    if config["drafter"] == "ngram":
        assert sums["drafted_tokens"] >= sums["accepted_tokens"] > 0
