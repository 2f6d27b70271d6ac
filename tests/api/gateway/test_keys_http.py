"""Keys over HTTP: who is let in, to what, until when; and the administration of keys."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openai
import pytest
from isotoken.api.gateway.api_key import new_secret
from isotoken.api.gateway.principal import KeyLimits

from .conftest import Gated, Serve


@pytest.fixture(scope="module")
def server(serve_gated: Serve) -> Gated:
    return serve_gated({"authenticator": "keys", "refresh_s": 0.2})


def eventually(ask: Any, status: int) -> httpx.Response:
    deadline = time.monotonic() + 30
    while (response := ask()).status_code != status:
        assert time.monotonic() < deadline, response.text
        time.sleep(0.02)
    return response  # type: ignore[no-any-return]


def test_a_key_opens_the_door_in_either_header_and_nothing_else_does(server: Gated) -> None:
    key = server.make(tenant="a")
    eventually(lambda: server.ask(key), 200)
    assert server.ask(headers={"x-api-key": key}).status_code == 200
    for refused in (server.ask(), server.ask(new_secret()), server.ask("itk_nonsense"), server.ask(key[:-1])):
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert refused.headers["www-authenticate"] == "Bearer"
        assert key not in refused.text


def test_openais_client_is_understood(server: Gated) -> None:
    key = server.make()
    eventually(lambda: server.ask(key), 200)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        assert client.completions.create(model="tiny", prompt="x", max_tokens=2).usage
    wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key=new_secret(), max_retries=0)
    with wrong as client, pytest.raises(openai.AuthenticationError):
        client.completions.create(model="tiny", prompt="x", max_tokens=2)


def test_every_route_but_health_takes_a_key(server: Gated) -> None:
    get = server.client.get
    assert get("/health/live").status_code == get("/health").status_code == 200
    for path in ("/v1/models", "/metrics", "/docs", "/info", "/openapi.json", "/nowhere", "/admin/keys", "/health/x"):
        assert get(path).status_code == 401, path
    for path in ("/", "/generate", "/v1/chat/completions", "/tokenize", "/health"):
        assert server.client.post(path, json={"inputs": "x"}).status_code == 401, path


def test_a_revoked_key_is_refused_within_seconds_and_an_expired_one_at_once(server: Gated) -> None:
    key, kept = server.make_key()
    eventually(lambda: server.ask(key), 200)
    server.revoke(kept.id)
    eventually(lambda: server.ask(key), 401)
    end = datetime.now(UTC) + timedelta(seconds=2)
    soon = server.make(expires=end)
    late = server.make(expires=datetime.now(UTC) - timedelta(seconds=1))
    assert "expired" in server.ask(late).json()["error"]["message"]
    assert server.ask(soon).status_code == 200 or datetime.now(UTC) >= end
    assert "expired" in eventually(lambda: server.ask(soon), 401).json()["error"]["message"]


def test_keys_are_good_for_their_models_and_routes(server: Gated) -> None:
    narrow = server.make(models=("small",), routes=("/v1/completions/", "/v1/models*", "/generate"))
    eventually(lambda: server.ask(narrow, model="small"), 200)
    refused = server.ask(narrow, model="tiny")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
    assert server.ask(narrow, model="").status_code == 403  # the default one is called tiny
    headers = {"x-api-key": narrow}
    assert server.client.post("/v1/completions/", json={"model": "small", "prompt": "x"}, headers=headers).is_success
    assert server.client.post("/generate", json={"inputs": "x"}, headers=headers).status_code == 403
    assert server.client.get("/v1/models", headers=headers).status_code == 200
    chat = {"model": "small", "messages": [{"role": "user", "content": "x"}]}
    for path in ("/v1/chat/completions", "/v1/completions/../chat/completions", "//v1/chat/completions"):
        answer = server.client.post(path, json=chat, headers=headers)
        assert answer.status_code in (403, 404), path
    assert server.client.get("/metrics", headers=headers).json()["error"]["code"] == "route_not_allowed"


def test_metrics_which_tell_of_all_tenants_are_not_for_a_tenants_key(server: Gated) -> None:
    plain, named, admin = server.make(tenant="a"), server.make(routes=("/metrics",)), server.make(is_admin=True)
    eventually(lambda: server.ask(plain), 200)

    def status(key: str, path: str = "/metrics") -> int:
        return server.client.get(path, headers={"x-api-key": key}).status_code

    assert (status(named), status(admin)) == (200, 200)
    assert {status(plain, path) for path in ("/metrics", "/metrics/", "/metrics%20")} <= {403, 404}
    refused = server.client.get("/metrics", headers={"x-api-key": plain})
    assert "--route /metrics" in refused.json()["error"]["message"]


def test_a_keys_answers_and_contexts_keep_to_its_bounds(server: Gated) -> None:
    key = server.make(limits=KeyLimits(max_output=8, max_context=30))
    eventually(lambda: server.ask(key), 200)
    refused = server.ask(key, max_tokens=9)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_tokens")
    refused = server.ask(key, prompt=[5] * 27)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert server.ask(key, prompt=[5] * 26).status_code == 200
    chat = {"messages": [{"role": "user", "content": "x"}], "ignore_eos": True}  # no length: as long as may be
    answer = server.client.post("/v1/chat/completions", json=chat, headers={"x-api-key": key}).json()
    assert answer["usage"]["completion_tokens"] == 8
    assert answer["choices"][0]["finish_reason"] == "length"


def test_keys_are_administered_over_http_by_admins_only(server: Gated) -> None:
    admin, plain = server.make(is_admin=True), server.make()
    eventually(lambda: server.ask(plain), 200)
    call = server.client.request
    mine = {"x-api-key": admin}
    for method, path in (("GET", "/admin/keys"), ("POST", "/admin/keys"), ("POST", "/admin/keys/key_x/revoke")):
        refused = call(method, path, json={}, headers={"x-api-key": plain})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "admin_required"), path
    asked = {"tenant": "acme", "name": "site", "limits": {"requests_per_minute": 3}, "expires_in_s": 3600}
    made = call("POST", "/admin/keys", json=asked, headers=mine)
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    key, key_id = made.json()["key"], made.json()["id"]
    assert server.ask(key).headers["x-ratelimit-limit-requests"] == "3"  # at once
    shown = call("GET", f"/admin/keys/{key_id}", headers=mine)
    assert (shown.json()["tenant"], shown.json()["state"]) == ("acme", "active")
    assert key not in shown.text
    listed = call("GET", "/admin/keys", params={"tenant": "acme"}, headers=mine)
    assert [each["id"] for each in listed.json()["data"]] == [key_id]
    assert key not in listed.text
    assert call("POST", f"/admin/keys/{key_id}/revoke", headers=mine).json()["state"] == "revoked"
    assert server.ask(key).status_code == 401  # at once
    assert call("GET", "/admin/keys/key_none", headers=mine).status_code == 404
    for wrong in (
        {"tenant": "a b"},
        {"weight": 0},
        {"limits": {"max_output": 0}},
        {"routes": ["x"]},
        {"expires": "soon"},
    ):
        assert call("POST", "/admin/keys", json=wrong, headers=mine).status_code == 400, wrong


@pytest.mark.parametrize(
    "lines",
    [
        [b"Authorization: Bearer \xff\xfe\x00"],
        [b"Authorization:"],
        [b"Authorization: Bearer " + b"A" * 60_000],
        [b"Authorization: Bearer a", b"Authorization: Bearer b"],
        [b"X-Api-Key: " + b"\t" * 100],
        [b"X-%d: %d" % (i, i) for i in range(400)],
        [b"X-Forwarded-For: " + b"1.2.3.4," * 5000],
    ],
)
def test_odd_headers_are_answered_in_the_400s(server: Gated, lines: list[bytes]) -> None:
    request = [b"POST /v1/completions HTTP/1.1", b"Host: x", *lines, b"Content-Length: 2", b"", b"{}"]
    with socket.create_connection((server.client.base_url.host, server.client.base_url.port or 0), 30) as connection:
        connection.sendall(b"\r\n".join(request))
        answer = connection.recv(65536)
    assert 400 <= int(answer[9:12]) < 500, answer[:200]
    assert server.client.get("/health").status_code == 200


def test_a_key_sees_the_models_that_it_is_good_for(server: Gated) -> None:
    headers = {"x-api-key": server.make(models=("small",))}
    listed = server.client.get("/v1/models", headers=headers).json()["data"]
    assert [card["id"] for card in listed] == ["small"]
    assert server.client.get("/v1/models/small", headers=headers).status_code == 200
    for name in ("tiny", "none"):  # what is there, and what is not, look the same
        assert server.client.get(f"/v1/models/{name}", headers=headers).status_code == 403
        asked = {"model": name, "prompt": "x"}
        for path in ("/tokenize", "/v1/completions"):
            assert server.client.post(path, json=asked, headers=headers).status_code == 403, path
    assert server.client.post("/tokenize", json={"model": "small", "prompt": "x"}, headers=headers).status_code == 200
    assert server.client.post("/detokenize", json={"model": "tiny", "tokens": [5]}, headers=headers).status_code == 403


def test_without_keys_only_this_machine_administers(serve_gated: Serve) -> None:
    server = serve_gated({"queue": {"enabled": True}})

    def status(**headers: str) -> tuple[int, str]:
        answer = server.client.get("/admin/keys", headers=headers)
        return answer.status_code, answer.json()["error"]["code"]

    assert server.ask().status_code == 200
    assert status() == (404, "no_keys")  # past the guard
    for headers in (
        {"Host": "attacker.example"},  # a web page whose name leads here
        {"Origin": "https://attacker.example"},
        {"X-Forwarded-For": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9"},
        {"Via": "1.1 proxy"},
        {"X-Real-IP": "203.0.113.9"},
        {"X-Forwarded-Proto": "https"},
    ):
        assert status(**headers) == (403, "admin_required"), headers


def test_what_is_refused_is_not_read_and_does_no_harm_to_the_connection(server: Gated) -> None:
    key = server.make()
    for size in (10, 5_000_000):
        refused = server.client.post("/v1/completions", content=b"x" * size)
        assert refused.status_code == 401
    assert server.ask(key).status_code == 200
