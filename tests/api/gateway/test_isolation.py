"""Prefix caches between tenants: none finds out by cached tokens, or by work done, what another one asked."""

from __future__ import annotations

import time
from typing import Any

import pytest

from .conftest import Gated, Serve

PROMPT = list(range(40, 140)) * 2  # 200 tokens: twelve blocks


@pytest.fixture(scope="module")
def server(serve_gated: Serve) -> Gated:
    return serve_gated({"authenticator": "keys", "cache_groups": {"house": ["shop", "desk"]}})


def key_of(server: Gated, tenant: str) -> str:
    key = server.make(tenant=tenant)
    deadline = time.monotonic() + 30
    while server.client.get("/v1/models", headers={"x-api-key": key}).status_code == 401:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return key


def cached(server: Gated, key: str, prompt: list[int], **more: Any) -> int:
    answer = server.ask(key, prompt=prompt, **more)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def computed(server: Gated, key: str, prompt: list[int], **more: Any) -> tuple[float, float]:
    """Tokens and steps that the engine computed for a request: what its time depends on."""
    operator = server.make(is_admin=True)

    def numbers() -> tuple[float, float]:
        lines = server.client.get("/metrics", headers={"x-api-key": operator}).text.splitlines()
        found = {
            line.split(" ")[0].split("{")[0]: float(line.rsplit(" ", 1)[1])
            for line in lines
            if not line.startswith("#")
        }
        return found["llm_engine_tokens_total"], found["llm_engine_steps_total"]

    before = numbers()
    server.ask(key, prompt=prompt, **more)
    after = numbers()
    return after[0] - before[0], after[1] - before[1]


def test_a_tenant_finds_its_own_prefix_and_no_others(server: Gated) -> None:
    first, second = key_of(server, "a"), key_of(server, "b")
    assert cached(server, first, PROMPT) == 0
    assert cached(server, first, PROMPT) >= 180
    assert cached(server, key_of(server, "a"), PROMPT) >= 180  # another key of the same tenant
    assert cached(server, second, PROMPT) == 0


def test_no_salt_of_a_clients_gets_it_into_anothers(server: Gated) -> None:
    victim, thief = key_of(server, "victim"), key_of(server, "thief")
    prompt = [7, *PROMPT]
    cached(server, victim, prompt)
    for salt in ("", "victim", "tenant victim", "\x00", "a" * 32):
        assert cached(server, thief, prompt, cache_salt=salt) == 0
    assert cached(server, victim, prompt, cache_salt="mine") == 0  # it only divides further
    assert cached(server, victim, prompt, cache_salt="mine") >= 180


def test_tenants_that_may_share_do(server: Gated) -> None:
    prompt = [9, *PROMPT]
    assert cached(server, key_of(server, "shop"), prompt) == 0
    assert cached(server, key_of(server, "desk"), prompt) >= 180
    assert cached(server, key_of(server, "street"), prompt) == 0


def test_the_engine_works_as_much_for_what_another_tenant_has_asked_as_for_what_nobody_has(server: Gated) -> None:
    """Time follows from the work: equal tokens in equal steps leave nothing to be told by a clock."""
    victim, thief = key_of(server, "v"), key_of(server, "t")
    asked, fresh = [11, *PROMPT], [12, *PROMPT]
    server.ask(victim, prompt=asked)
    hit, miss = computed(server, thief, asked), computed(server, thief, fresh)
    assert hit == miss
    assert computed(server, victim, asked)[0] < hit[0] - 150  # that the numbers would show it
