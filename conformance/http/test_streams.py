"""Streams: their form, and that they bring the whole answer in pieces."""

from __future__ import annotations

from typing import Any

import pytest

from ..spec import spec
from .routes import CHAT, COMPLETIONS, PROMPTS, Route
from .server import Server
from .stream import piece_of

TWO: dict[str, Any] = {"n": 2}
USAGE = {"stream_options": {"include_usage": True}}


@spec("HTTP-8")
@pytest.mark.parametrize("fields", [{}, TWO, USAGE], ids=["one", "two", "usage"])
def test_the_form_of_a_stream(server: Server, route: Route, fields: dict[str, Any]) -> None:
    stream = server.streamed(route, PROMPTS[1], **fields)
    assert stream.content_type.startswith("text/event-stream")
    assert not stream.faults, "\n".join(stream.faults)
    assert stream.num_done == 1, f"[DONE] came {stream.num_done} times"
    assert len({event["id"] for event in stream.events}) == 1, "one id for all chunks"
    for event in stream.events:
        assert event["object"] == route.chunk, event
        assert event["model"] == server.facts.model, event
        assert isinstance(event["created"], int), event


@spec("HTTP-9")
@pytest.mark.parametrize("fields", [{}, TWO], ids=["one", "two"])
def test_the_pieces_are_the_whole(server: Server, route: Route, fields: dict[str, Any]) -> None:
    for prompt in PROMPTS[:4]:
        whole = server.whole(route, prompt, **fields)
        stream = server.streamed(route, prompt, **fields)
        assert [stream.text(choice["index"]) for choice in whole["choices"]] == route.texts(whole)
        assert set(stream.indices) <= {choice["index"] for choice in whole["choices"]}


@spec("HTTP-9")
def test_the_pieces_of_several_prompts_are_kept_apart(server: Server) -> None:
    server.need(COMPLETIONS)
    texts = COMPLETIONS.texts(server.whole(COMPLETIONS, list(PROMPTS)))
    stream = server.streamed(COMPLETIONS, list(PROMPTS))
    assert [stream.text(index) for index in range(len(PROMPTS))] == texts


@spec("HTTP-10")
@pytest.mark.parametrize("fields", [{}, TWO, {"max_tokens": 3}], ids=["one", "two", "short"])
def test_each_choice_finishes_once(server: Server, route: Route, fields: dict[str, Any]) -> None:
    for prompt in (PROMPTS[0], PROMPTS[1]):
        whole = server.whole(route, prompt, **fields)
        stream = server.streamed(route, prompt, **fields)
        for choice in whole["choices"]:
            parts = list(stream.choices(choice["index"]))
            reasons = [part["finish_reason"] for part in parts if part.get("finish_reason")]
            assert reasons == [choice["finish_reason"]], f"choice {choice['index']}: {reasons}"
            ended = next(i for i, part in enumerate(parts) if part.get("finish_reason"))
            assert not any(piece_of(part) for part in parts[ended + 1 :]), "text after the end"


@spec("HTTP-11")
@pytest.mark.parametrize("fields", [{}, TWO], ids=["one", "two"])
def test_the_first_chunk_says_the_role(server: Server, fields: dict[str, Any]) -> None:
    server.need(CHAT)
    stream = server.streamed(CHAT, PROMPTS[1], **fields)
    for index in stream.indices:
        roles = [(part.get("delta") or {}).get("role") for part in stream.choices(index)]
        assert roles[0] == "assistant", f"choice {index} begins with the role {roles[0]}"
        assert not any(roles[1:]), f"choice {index} says its role again: {roles}"


@spec("HTTP-12")
@pytest.mark.parametrize("fields", [{}, TWO], ids=["one", "two"])
def test_the_usage_comes_last_and_once(server: Server, route: Route, fields: dict[str, Any]) -> None:
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    whole = server.whole(route, PROMPTS[1], **fields)["usage"]
    *chunks, last = server.streamed(route, PROMPTS[1], **fields, **USAGE).events
    assert last.get("choices") == [], f"the last chunk has no choices: {last}"
    assert last.get("usage"), f"the last chunk has the usage: {last}"
    assert {name: last["usage"][name] for name in names} == {name: whole[name] for name in names}
    for chunk in chunks:
        assert chunk.get("choices"), f"one chunk only has no choices: {chunk}"
        assert not chunk.get("usage"), f"one chunk only has usage: {chunk}"


@spec("HTTP-12")
def test_no_usage_where_it_was_not_asked_for(server: Server, route: Route) -> None:
    for event in server.streamed(route, PROMPTS[1]).events:
        assert event.get("choices"), f"a chunk without choices, though no usage was asked for: {event}"
        assert not event.get("usage"), f"usage that was not asked for: {event}"
