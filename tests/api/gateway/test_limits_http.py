"""Limits over HTTP: the headers, the refusals, what is given back; and the fair queue of a real server."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
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
            "queue": {"enabled": True, "max_wait_s": 20.0, "max_waiting": 30},
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
    shared = {"authenticator": "keys", "limiter": "redis", "redis_url": redis_url}
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


def test_the_queue_is_fair_and_bounded(server: Gated) -> None:
    """Thirty requests of one tenant wait; one of another goes within the next few, and beyond the bound is 429."""
    many, few = limited(server), server.make(tenant="few")
    limited(server)
    finished: list[str] = []
    statuses: list[int] = []
    lock = threading.Lock()

    def ask(key: str, name: str) -> httpx.Response:
        answer = server.ask(key, prompt=[5] * 10, max_tokens=60, ignore_eos=True)
        with lock:
            finished.append(name)
            statuses.append(answer.status_code)
        return answer

    with ThreadPoolExecutor(60) as pool:
        crowd = [pool.submit(ask, many, "many") for _ in range(45)]
        deadline = time.monotonic() + 30
        while 429 not in statuses:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        answered = statuses.count(200)
        metrics = server.client.get("/metrics", headers={"x-api-key": few}).text
        assert ask(few, "few").status_code == 200
        before = statuses[: finished.index("few")].count(200)
        refused = [future.result() for future in crowd if future.result().status_code == 429]
    assert before - answered <= 8
    assert 'llm_queue_requests{model="tiny"} 30.0' in metrics
    assert 'llm_queue_shed_total{model="tiny"}' in metrics
    assert 45 - 32 - 6 <= len(refused) <= 45 - 30
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert all(answer.json()["error"]["type"] == "rate_limit_error" for answer in refused)
