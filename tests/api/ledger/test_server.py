"""A server with budgets and a ledger: routes, the command line, and requests that end when the money does."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from isotoken.api.ledger.journal import Journal
from isotoken.api.ledger.ledger import UsageLedger
from isotoken.api.ledger.routes import report
from isotoken.api.ledger.settings import LedgerSettings
from isotoken.api.store.database import Store

from .serving import Server, serving
from .test_exactness import GENERATED, PRICES, PROMPT, read

BUDGET = 120
"""Tokens that the tenant has, prompt and output together."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder: Path, model_dir: Path) -> Iterator[Server]:
    budgets = [{"tenant": "default", "period": "total", "tokens": BUDGET}]
    url = f"sqlite:///{folder / 'usage.db'}"
    with serving(folder, model_dir, store=url, prices=PRICES, budgets=budgets, sync_interval_s=0.01) as started:
        yield started


def ask(server: Server, **body: Any) -> httpx.Response:
    return server.client.post("/v1/completions", json={"prompt": "one two", "ignore_eos": True, **body})


def test_reports_that_many_ask_for_at_once_leave_the_database_to_others_between_them(
    journal: Journal, sqlite_store: Store
) -> None:
    """A tenant that asks for its usage a thousand times is in nobody's way who looks a key up."""

    async def run() -> None:
        ledger = UsageLedger(LedgerSettings(), journal, [], store=sqlite_store)
        read, asked, most = sqlite_store.read, 0, 0

        async def counted(work: Any) -> Any:
            nonlocal asked, most
            asked, most = asked + 1, max(most, asked + 1)
            try:
                return await read(work)
            finally:
                asked -= 1

        sqlite_store.read = counted  # type: ignore[method-assign]
        await asyncio.gather(*(report(ledger, by="day", tenant="a") for _ in range(20)))
        assert (asked, most) == (0, 1)

    asyncio.run(run())


def test_a_request_ends_when_its_budget_does(server: Server, folder: Path, command: Any) -> None:
    """In this order: a small request, one that runs out in its middle, one that is refused, and what they left."""
    first = ask(server, max_tokens=5)
    assert first.status_code == 200 and first.json()["usage"]["completion_tokens"] == 5
    num_prompt = first.json()["usage"]["prompt_tokens"]

    body = {"prompt": "one two", "max_tokens": 1000, "stream": True, "ignore_eos": True}
    body["stream_options"] = {"include_usage": True}
    with server.client.stream("POST", "/v1/completions", json=body) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
    ends = [choice for event in events for choice in event["choices"] if choice["finish_reason"]]
    assert [(end["finish_reason"], end["stop_reason"]) for end in ends] == [("length", "budget_exceeded")]
    usage = events[-1]["usage"]
    assert first.json()["usage"]["total_tokens"] + usage["total_tokens"] == BUDGET

    refused = ask(server, max_tokens=5)
    assert refused.status_code == 429 and refused.headers["x-should-retry"] == "false"
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert "120 tokens" in refused.json()["error"]["message"]

    server.settle()
    url = f"sqlite:///{folder / 'usage.db'}"
    rows, sums = read(url)
    assert sums["requests"] == 2 and sums["prompt_tokens"] == 2 * num_prompt
    cost = 2 * num_prompt * PROMPT + sums["generated_tokens"] * GENERATED
    cached = sums["cached_tokens"]
    assert sums["cost"] == cost - cached * (PROMPT - 15_000)

    told = server.client.get("/v1/usage").json()
    assert told["tenant"] == "default" and told["currency"] == "USD"
    assert told["total"]["requests"] == 2 and told["data"][0]["model"] == "tiny"
    assert told["budgets"][0]["used_tokens"] == BUDGET and told["budgets"][0]["tokens"] == BUDGET
    everything = server.client.get("/admin/usage", params={"by": "tenant", "tenant": "default"}).json()
    assert everything["data"] == [{"tenant": "default", **told["total"]}]
    assert server.client.get("/admin/usage", params={"tenant": "other"}).json()["data"] == []
    assert server.client.get("/v1/usage", params={"by": "colour"}).status_code == 400
    for wrong in ({"by": ""}, {"by": "day,day"}, {"since": "yesterday"}, {"since": "2026-13-01"}):
        assert server.client.get("/v1/usage", params=wrong).status_code == 400, wrong
    assert server.client.get("/admin/usage", params={"tenant": "a\x00b"}).status_code == 400
    assert server.metric("llm_cost_total") == pytest.approx(sums["cost"] / 1e12)

    printed = command("usage", "--csv", "--by", "tenant,model", "--database", url)
    (row,) = csv.DictReader(io.StringIO(printed.stdout))
    assert row["tenant"] == "default" and int(row["generated_tokens"]) == sums["generated_tokens"]
    assert row["cost"] == told["total"]["cost"]
    table = command("usage", "--database", url)
    assert table.stdout.splitlines()[-1].startswith("total")
    each = command("usage", "entries", "--database", url)
    assert {row["request_id"] for row in csv.DictReader(io.StringIO(each.stdout))} == set(rows)


def test_no_text_is_kept(server: Server, folder: Path) -> None:
    """Neither the journal nor the database has anything of a prompt."""
    kept = b"".join(path.read_bytes() for path in [*folder.glob("ledger/*"), *folder.glob("usage.db*")])
    assert b"default" in kept and b"one two" not in kept


def test_a_server_without_a_ledger_has_no_routes_for_it(model_dir: Path) -> None:
    from isotoken.api.server.assembly import feature_routes
    from isotoken.api.server.features import Features

    assert feature_routes(Features()) == []
