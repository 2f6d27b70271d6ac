"""What keeps the server standing: queue limits, body size, deadlines, and clients that leave or do not read."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest

LONG = {"prompt": "a", "max_tokens": 2000, "ignore_eos": True, "seed": 1}
ABORTED = ("llm_choices_finished_total", '{reason="abort"}')


@pytest.fixture(scope="module")
def narrow(serve_tiny: Callable[..., Any]) -> Any:
    """A server that runs one request at a time, lets one wait, and takes small bodies."""
    limits = {"max_waiting_requests": 1, "max_waiting_prompt_tokens": 1500, "max_body_bytes": 20_000}
    return serve_tiny(config={"max_num_seqs": 1}, limits=limits)


@contextmanager
def streaming(server: Any, body: dict[str, Any] = LONG) -> Iterator[Iterator[str]]:
    """Hold a stream open of which the first line has been read."""
    with httpx.stream("POST", server.url + "/v1/completions", json={**body, "stream": True}, timeout=60) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        yield lines


@contextmanager
def waiting(server: Any, body: dict[str, Any]) -> Iterator[socket.socket]:
    """Hold a connection open on which a request waits for its answer."""
    host, port = server.url.removeprefix("http://").split(":")
    content = httpx.Request("POST", server.url, json=body).content
    before = server.metric("llm_requests_in_flight")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        server.wait_for(lambda: server.metric("llm_requests_in_flight") == before + 1)
        yield connection


def quiet(server: Any) -> None:
    """Wait until nothing is in flight and every block is free."""
    server.wait_for(lambda: server.metric("llm_requests_in_flight") == 0)
    server.wait_for(lambda: server.metric("llm_kv_blocks_used") == 0)


def test_a_full_queue_is_a_429(narrow: Any) -> None:
    with streaming(narrow), waiting(narrow, {"prompt": "b", "max_tokens": 1}):
        response = narrow.post("/v1/completions", {"prompt": "c"})
        assert response.status_code == 429
        error = response.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("rate_limit_error", "rate_limit_exceeded", None)
        assert int(response.headers["retry-after"]) >= 1
        assert int(response.headers["retry-after-ms"]) >= 1
        overloaded = narrow.post("/generate", {"inputs": "c"})
        assert overloaded.status_code == 429
        assert overloaded.json()["error_type"] == "overloaded"
        with pytest.raises(openai.RateLimitError), _client(narrow) as client:
            client.completions.create(model="tiny", prompt="c")
    assert narrow.metric("llm_rejections_total", '{reason="rate_limit_exceeded"}') >= 3
    quiet(narrow)


def test_openais_client_comes_again_when_told_to(narrow: Any) -> None:
    before = narrow.metric("llm_rejections_total", '{reason="rate_limit_exceeded"}')
    answers: list[str] = []

    def ask() -> None:
        with openai.OpenAI(base_url=narrow.url + "/v1", api_key="none", max_retries=5) as client:
            answers.append(client.completions.create(model="tiny", prompt="c", max_tokens=2).choices[0].text)

    asking = threading.Thread(target=ask)
    with streaming(narrow), waiting(narrow, {"prompt": "b", "max_tokens": 1}):
        asking.start()
        narrow.wait_for(lambda: narrow.metric("llm_rejections_total", '{reason="rate_limit_exceeded"}') > before)
    asking.join(60)
    assert len(answers) == 1
    quiet(narrow)


def test_waiting_prompt_tokens_are_limited(narrow: Any) -> None:
    with streaming(narrow), waiting(narrow, {"prompt": [70] * 1490, "max_tokens": 1}):
        assert narrow.post("/v1/completions", {"prompt": [70] * 100}).status_code == 429
    quiet(narrow)


def test_several_prompts_are_taken_all_or_none(narrow: Any) -> None:
    with streaming(narrow):
        response = narrow.post("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 3})
        assert response.status_code == 429
    quiet(narrow)
    never = narrow.post("/v1/completions", {"prompt": ["a", "b", "c"], "max_tokens": 3})
    assert never.status_code == 400  # waiting would not help
    assert never.json()["error"]["param"] == "prompt"
    assert narrow.post("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 3}).status_code == 200


def test_prompts_that_can_never_wait_together_are_not_told_to_come_again(narrow: Any) -> None:
    body = {"prompt": [[70] * 800, [70] * 800], "max_tokens": 1}
    response = narrow.post("/v1/completions", body)
    assert response.status_code == 400
    assert "1600 tokens" in response.json()["error"]["message"]
    quiet(narrow)


def test_a_large_body_is_a_413(narrow: Any) -> None:
    response = narrow.post("/v1/completions", {"prompt": "a" * 30_000})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "content_too_large"
    chunked = httpx.post(narrow.url + "/v1/completions", content=iter([b"a" * 15_000] * 2), timeout=60)
    assert chunked.status_code == 413


def test_a_deadline_is_a_408(narrow: Any) -> None:
    """OpenAI's client says how long it will wait for an answer: a request past that is ended."""
    response = narrow.post("/v1/completions", LONG, headers={"x-stainless-read-timeout": "0.3"})
    assert response.status_code == 408
    assert response.json()["error"]["code"] == "timeout"
    quiet(narrow)


def test_leaving_a_stream_frees_its_blocks(narrow: Any) -> None:
    aborted = narrow.metric(*ABORTED)
    with streaming(narrow):
        assert narrow.metric("llm_requests_running") == 1
    narrow.wait_for(lambda: narrow.metric(*ABORTED) == aborted + 1)
    quiet(narrow)


def test_leaving_before_the_answer_frees_its_blocks(narrow: Any) -> None:
    aborted = narrow.metric(*ABORTED)
    with waiting(narrow, LONG):
        narrow.wait_for(lambda: narrow.metric("llm_kv_blocks_used") > 0)
    narrow.wait_for(lambda: narrow.metric(*ABORTED) == aborted + 1)
    quiet(narrow)


def test_leaving_before_the_request_is_complete_is_nobodys_error(narrow: Any) -> None:
    labels = '{route="/v1/completions",status="%d"}'
    before = [narrow.metric("llm_requests_total", labels % status) for status in (499, 500)]
    host, port = narrow.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"prompt"')
    narrow.wait_for(lambda: narrow.metric("llm_requests_total", labels % 499) == before[0] + 1)
    assert narrow.metric("llm_requests_total", labels % 500) == before[1]


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_the_queue_makes_room(narrow: Any, stream: bool) -> None:
    with streaming(narrow):
        with waiting(narrow, {**LONG, "stream": stream}):
            narrow.wait_for(lambda: narrow.metric("llm_requests_waiting") == 1)
        narrow.wait_for(lambda: narrow.metric("llm_requests_waiting") == 0)
        with waiting(narrow, {"prompt": "b", "max_tokens": 1}):
            pass
    quiet(narrow)


def test_a_slow_reader_does_not_hold_up_others(server: Any) -> None:
    with streaming(server):
        assert server.post("/v1/completions", {"prompt": "b", "max_tokens": 3}).status_code == 200
    quiet(server)


def test_many_at_once(server: Any) -> None:
    """Answers of concurrent requests are those of requests alone."""
    prompts = [f"the quick {i}" for i in range(24)]
    body = {"max_tokens": 12, "seed": 9}
    texts: dict[str, str] = {}

    def ask(prompt: str) -> None:
        texts[prompt] = server.post("/v1/completions", {**body, "prompt": prompt}).json()["choices"][0]["text"]

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for prompt in prompts[::8]:
        alone = server.post("/v1/completions", {**body, "prompt": prompt}).json()["choices"][0]["text"]
        assert texts[prompt] == alone


def _client(server: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
