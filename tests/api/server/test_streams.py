"""Streams: every chunk's shape, the order that clients rely on, and that the pieces are the whole."""

from __future__ import annotations

from typing import Any

import pytest
from isotoken.api.server.openai_answers import ChatChunk, CompletionChunk

ASK = [{"role": "user", "content": "hi"}]
PROMPT = {"prompt": "the quick", "seed": 2, "max_tokens": 20}


def chunks(server: Any, path: str, model: Any, **body: Any) -> list[dict[str, Any]]:
    """Return a stream's chunks, each with exactly the documented fields and all with the same envelope."""
    *events, last = server.events(path, {**body, "stream": True})
    assert last == "[DONE]"
    for event in events:
        model.model_validate(event, strict=True)
    assert len({(event["id"], event["created"], event["model"]) for event in events}) == 1
    return list(events)


def completion_chunks(server: Any, **body: Any) -> list[dict[str, Any]]:
    return chunks(server, "/v1/completions", CompletionChunk, **body)


def chat_chunks(server: Any, **body: Any) -> list[dict[str, Any]]:
    return chunks(server, "/v1/chat/completions", ChatChunk, messages=ASK, **body)


def text_of(events: list[dict[str, Any]], index: int = 0) -> str:
    return "".join(
        c.get("text") or c.get("delta", {}).get("content") or ""
        for e in events
        for c in e["choices"]
        if c["index"] == index
    )


def test_completion_stream_is_the_whole_in_pieces(server: Any) -> None:
    whole = server.post("/v1/completions", PROMPT).json()["choices"][0]
    events = completion_chunks(server, **PROMPT)
    assert text_of(events) == whole["text"]
    assert len(events) > 5
    assert [e["choices"][0]["finish_reason"] for e in events] == [None] * (len(events) - 1) + ["length"]
    assert all("usage" not in event for event in events)


def test_completion_stream_with_everything(server: Any) -> None:
    body = {**PROMPT, "n": 2, "prompt": ["the quick", "naïve"], "echo": True, "return_token_ids": True}
    whole = server.post("/v1/completions", body).json()["choices"]
    events = completion_chunks(server, **body)
    for choice in whole:
        own = [c for e in events for c in e["choices"] if c["index"] == choice["index"]]
        assert "".join(c["text"] for c in own) == choice["text"]
        assert [t for c in own for t in c["token_ids"]] == choice["token_ids"]
        assert own[0]["prompt_token_ids"] == choice["prompt_token_ids"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]


def test_completion_stream_logprobs(server: Any) -> None:
    body = {**PROMPT, "logprobs": 2, "echo": True}
    whole = server.post("/v1/completions", body).json()["choices"][0]["logprobs"]
    events = completion_chunks(server, **body)
    for key, expected in whole.items():
        assert [item for e in events for item in e["choices"][0]["logprobs"][key]] == expected


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_include_usage(server: Any, path: str) -> None:
    body: dict[str, Any] = {"max_tokens": 5, "ignore_eos": True, "n": 2}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    body |= {"prompt": "hi"} if path == "/v1/completions" else {"messages": ASK}
    *events, last, done = server.events(path, body)
    assert done == "[DONE]"
    assert all(event["usage"] is None and event["choices"] for event in events)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 10
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + 10


def test_continuous_usage(server: Any) -> None:
    events = completion_chunks(server, **PROMPT, stream_options={"continuous_usage_stats": True})
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts)
    assert counts[-1] == PROMPT["max_tokens"]


def test_chat_stream(server: Any) -> None:
    body = {"seed": 2, "max_tokens": 20}
    whole = server.post("/v1/chat/completions", {"messages": ASK, **body}).json()["choices"][0]
    events = chat_chunks(server, **body)
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[-1]["choices"][0]["delta"] == {}
    assert [e["choices"][0]["finish_reason"] for e in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert text_of(events) == whole["message"]["content"]


def test_chat_stream_of_several_choices_with_logprobs(server: Any) -> None:
    body = {"seed": 2, "max_tokens": 9, "n": 3, "logprobs": True, "top_logprobs": 1, "echo": True}
    whole = server.post("/v1/chat/completions", {"messages": ASK, **body}).json()["choices"]
    events = chat_chunks(server, **body)
    for choice in whole:
        own = [c for e in events for c in e["choices"] if c["index"] == choice["index"]]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(c["delta"].get("content") or "" for c in own) == choice["message"]["content"]
        items = [item for c in own if c["logprobs"] for item in c["logprobs"]["content"]]
        assert items == choice["logprobs"]["content"]


def test_chat_stream_with_token_ids(server: Any) -> None:
    body = {"seed": 2, "max_tokens": 9, "return_token_ids": True}
    whole = server.post("/v1/chat/completions", {"messages": ASK, **body}).json()
    first, *others = chat_chunks(server, **body)
    assert first["prompt_token_ids"] == whole["prompt_token_ids"]
    assert not any("prompt_token_ids" in event for event in others)
    ids = [token_id for event in others for c in event["choices"] for token_id in c.get("token_ids", [])]
    assert ids == whole["choices"][0]["token_ids"]


def test_what_fails_before_the_first_token_has_a_status(server: Any) -> None:
    response = server.post("/v1/completions", {"prompt": "a", "stream": True, "max_tokens": 100_000})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
