"""Limits over HTTP: the headers, the refusals, what is given back; and the fair queue of a real server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest
from isotoken.api.gateway.principal import KeyLimits

from .conftest import Gated, Serve


@pytest.fixture(scope="module")
def server(serve_gated: Serve) -> Gated:
    return serve_gated(
        {
            "authenticator": "keys",
            "address_limits": {"requests_per_minute": 5000},
            "queue": {"enabled": True, "max_wait_s": 60.0, "max_waiting": 8},
        },
        step_ms=5.0,
        max_num_seqs=2,
    )


def limited(server: Gated, **limits: int) -> str:
    key = server.make(limits=KeyLimits(**limits))
    deadline = time.monotonic() + 30
    while server.client.get("/v1/models", headers={"x-api-key": key}).status_code == 401:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return key


def test_requests_a_minute(server: Gated) -> None:
    key = limited(server, requests_per_minute=4)  # the look at /v1/models was the first
    headers = [server.ask(key).headers for _ in range(3)]
    assert [each["x-ratelimit-remaining-requests"] for each in headers] == ["2", "1", "0"]
    assert headers[0]["x-ratelimit-limit-requests"] == "4"
    assert headers[2]["x-ratelimit-reset-requests"].endswith("s")
    refused = server.ask(key)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 15
    assert int(refused.headers["retry-after-ms"]) <= 15_000
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


def test_tokens_a_minute_are_reserved_and_what_was_not_used_comes_back(server: Gated) -> None:
    key = limited(server, tokens_per_minute=1000)
    first = server.ask(key, prompt=[7] * 100, max_tokens=90)
    assert first.headers["x-ratelimit-limit-tokens"] == "1000"
    assert int(first.headers["x-ratelimit-remaining-tokens"]) in range(810, 816)
    second = server.ask(key, prompt=[8] * 100, max_tokens=90, stop_token_ids=list(range(300)))  # ends at once
    used = second.json()["usage"]["completion_tokens"]
    third = server.ask(key, prompt=[9] * 100, max_tokens=90)
    expected = 1000 - 190 - (100 + used) - 190
    assert int(third.headers["x-ratelimit-remaining-tokens"]) in range(expected, expected + 80)
    refused = server.ask(key, prompt=[7] * 700, max_tokens=90)
    assert refused.status_code == 429
    assert "tokens a minute" in refused.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) >= 1


def test_an_answer_without_a_stated_length_keeps_others_waiting_a_minute_at_most(server: Gated) -> None:
    """Its room is the model's whole context, many minutes' worth: no more than a full bucket is reserved for it."""
    key = limited(server, tokens_per_minute=50)
    body = {"model": "tiny", "prompt": "x", "max_tokens": 1500, "stream": True, "ignore_eos": True}
    with server.client.stream("POST", "/v1/completions", json=body, headers={"x-api-key": key}) as stream:
        pieces = stream.iter_bytes()
        next(pieces)
        refused = server.ask(key)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) <= 60


def test_requests_at_once_and_a_client_that_leaves_gives_its_place_back(server: Gated) -> None:
    key = limited(server, max_concurrency=1)
    body = {"model": "tiny", "prompt": "x", "max_tokens": 1500, "stream": True, "ignore_eos": True}
    with server.client.stream("POST", "/v1/completions", json=body, headers={"x-api-key": key}) as stream:
        pieces = stream.iter_bytes()
        next(pieces)
        refused = server.ask(key)
        assert refused.status_code == 429
        assert "requests at once" in refused.json()["error"]["message"]
    deadline = time.monotonic() + 30
    while server.ask(key).status_code == 429:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_servers_share_their_limits_through_redis(serve_gated: Serve, redis_url: str, tmp_path: Path) -> None:
    shared = {"authenticator": "keys", "limiter": "redis", "redis_url": redis_url, "redis_timeout_s": 30}
    url = f"sqlite:///{tmp_path / 'store.db'}"
    first, second = (serve_gated(shared, url=url) for _ in range(2))
    key = first.make(limits=KeyLimits(requests_per_minute=3, tokens_per_minute=100_000))
    answers = [server.ask(key) for server in (first, second, first, second)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0"]


def test_an_address_is_limited_whatever_keys_it_tries(serve_gated: Serve) -> None:
    server = serve_gated(
        {"authenticator": "keys", "address_limits": {"requests_per_minute": 5}, "trusted_proxies": ["127.0.0.0/8"]}
    )
    key = server.make()
    time.sleep(0.1)

    def from_address(address: str, token: str) -> int:
        return server.ask(token, headers={"x-forwarded-for": address}).status_code

    assert [from_address("203.0.113.1", "itk_wrong") for _ in range(6)] == [401] * 5 + [429]
    assert from_address("203.0.113.1", key) == 429
    assert from_address("203.0.113.2", key) == 200
    assert from_address("2001:db8::1", "itk_wrong") == 401
    assert [from_address(f"2001:db8::{i}", "itk_wrong") for i in range(2, 7)] == [401] * 4 + [429]  # one /64
    assert server.client.get("/health").status_code == 200


def test_probes_of_health_are_not_limited_even_where_nobody_asks_for_keys(serve_gated: Serve) -> None:
    server = serve_gated({"address_limits": {"requests_per_minute": 2, "max_output": 5}})
    told = server.ask(max_tokens=6)
    assert (told.status_code, "your address's answers have at most 5" in told.text) == (400, True)
    statuses = [server.client.get("/v1/models").status_code for _ in range(4)]
    assert statuses == [200, 429, 429, 429]
    assert {server.client.get(path).status_code for path in ("/health", "/health/ready", "/health/live")} == {200}


def test_the_queue_is_fair_and_bounded(server: Gated) -> None:
    """One tenant fills the queue and more; another's request goes with the next ones all the same."""
    many, few, operator = limited(server), server.make(tenant="few"), server.make(is_admin=True)
    answered: list[str] = []
    refused: list[httpx.Response] = []
    is_full = asyncio.Event()

    async def ask(client: httpx.AsyncClient, key: str, name: str) -> None:
        body = {"model": "tiny", "prompt": [5] * 10, "max_tokens": 300, "ignore_eos": True}
        answer = await client.post("/v1/completions", json=body, headers={"x-api-key": key})
        if answer.status_code == 429:
            refused.append(answer)
            is_full.set()
        else:
            assert answer.status_code == 200
            answered.append(name)

    async def test() -> str:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
            crowd = [asyncio.create_task(ask(client, many, "many")) for _ in range(25)]
            await asyncio.wait_for(is_full.wait(), 60)
            answered.clear()
            told = await client.get("/metrics", headers={"x-api-key": operator})
            await ask(client, few, "few")
            for task in crowd:  # their places and turns are given to nobody in particular
                task.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)
            return told.text

    metrics = asyncio.run(test())
    assert answered[-1] == "few"
    assert len(answered) <= 6  # two that ran, two that went before it was there, and one a turn
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert all(answer.json()["error"]["type"] == "rate_limit_error" for answer in refused)
    assert 'llm_queue_requests{model="tiny"} 8.0' in metrics
    assert 'llm_queue_shed_total{model="tiny"}' in metrics
    deadline = time.monotonic() + 30  # those that left have left nothing behind
    while (
        'llm_queue_requests{model="tiny"} 0.0'
        not in server.client.get("/metrics", headers={"x-api-key": operator}).text
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert server.ask(few).status_code == 200
