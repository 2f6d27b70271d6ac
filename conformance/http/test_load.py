"""Many at once, some who leave, and the numbers that are kept of it."""

from __future__ import annotations

from functools import partial

import pytest

from ..spec import spec
from .polling import meaning, sample, wait_for
from .routes import COMPLETIONS, PROMPTS, Route
from .server import MAX_TOGETHER, Server
from .stream import Stream

DEADLINE = 30.0  # seconds in which the server must have noticed that nobody listens
LONG = 4096  # tokens to ask for, or what the context holds
MARGIN = 200  # tokens of the context for the prompt


@spec("HTTP-33")
def test_32_streams_at_once(server: Server, route: Route) -> None:
    def one(i: int) -> Stream:
        return server.streamed(route, PROMPTS[i % len(PROMPTS)], max_tokens=24, **server.on)

    streams = server.together([partial(one, i) for i in range(MAX_TOGETHER)])
    for i, stream in enumerate(streams):
        assert stream.events and any(stream.choices()), f"stream {i} brought nothing"
    ids = {stream.events[0]["id"] for stream in streams}
    assert len(ids) == MAX_TOGETHER, f"{len(ids)} ids for {MAX_TOGETHER} answers"


@spec("HTTP-34")
def test_leaving_a_stream_stops_the_work(server: Server, route: Route) -> None:
    if not server.on:
        server.absent("no answer can be made long enough to be left: ignore_eos is not obeyed")
    room = LONG if server.facts.max_model_len is None else server.facts.max_model_len - MARGIN
    length = min(LONG, room)
    if length < 2 * MARGIN:
        server.absent("the context is too short for an answer worth leaving")
    if meaning(server, "running"):
        pytest.skip("others use the server: what runs cannot be told apart")
    before = meaning(server, "generated")
    body = server.body(route, PROMPTS[1], {"stream": True, "max_tokens": length, **server.on})
    for _ in range(3):
        with server.opened(route.path, body) as (response, _note):
            assert next(response.iter_bytes()), "the stream began"
    assert route.texts(server.whole(route, PROMPTS[0])), "the server goes on serving"
    if before is None:
        server.absent("no metric counts what is generated, so that nobody sees whether the work stops")
    busy = [name for name in ("running", "waiting") if meaning(server, name) is not None]
    free = wait_for(lambda: not any(meaning(server, name) for name in busy), DEADLINE)
    assert free, f"{DEADLINE:.0f} s after everybody left there is still work"
    spent = (meaning(server, "generated") or 0) - before
    assert spent < 3 * length * 0.8, f"{spent:.0f} tokens for three who left at once, each asked for {length}"


@spec("HTTP-35")
def test_the_metrics_count(server: Server) -> None:
    server.need(COMPLETIONS)
    label = f'{{route="{COMPLETIONS.path}",status="200"}}'
    names = ("llm_requests_total", "llm_tokens_generated_total", "llm_prompt_tokens_total")
    before = [sample(server, name) or 0 for name in names]
    usage = server.whole(COMPLETIONS, PROMPTS[1], **server.on)["usage"]
    least = (1, usage["completion_tokens"], usage["prompt_tokens"])

    def counted() -> bool:
        now = [sample(server, name) or 0 for name in names]
        return all(after - was >= due for after, was, due in zip(now, before, least, strict=True))

    assert wait_for(counted, 5.0), f"{dict(zip(names, before, strict=True))} did not grow by {least}"
    text = server.get("/metrics").text
    assert f"llm_requests_total{label}" in text
    for name in ("llm_request_latency_seconds_bucket", "llm_requests_running", "llm_kv_usage_ratio", "llm_error_rate"):
        assert sample(server, name) is not None, f"no {name}"
