"""Text-generation-inference's routes."""

from __future__ import annotations

from typing import Any

import pytest

from ..spec import spec
from .routes import PROMPTS
from .server import Reply, Server

REASONS = ("length", "eos_token", "stop_sequence")


def _generate(server: Server, body: dict[str, Any]) -> Reply:
    reply = server.post("/generate", body)
    if reply.status in (404, 405):
        server.absent("/generate is not offered")
    return reply


@spec("HTTP-38")
def test_generate(server: Server) -> None:
    for prompt in PROMPTS[:3]:
        body = {"inputs": prompt, "parameters": {"max_new_tokens": 12, "details": True}}
        reply = _generate(server, body)
        assert reply.status == 200, reply.text
        details = reply.body["details"]
        assert details["finish_reason"] in REASONS
        assert 1 <= details["generated_tokens"] == len(details["tokens"]) <= 12
        for token in details["tokens"]:
            assert token.keys() >= {"id", "text", "logprob", "special"}
            assert token["logprob"] <= 1e-6
        assert _generate(server, body).body["generated_text"] == reply.body["generated_text"], "greedy is the default"


@spec("HTTP-38")
@pytest.mark.parametrize("parameters", [{"max_new_tokens": -1}, {"temperature": -1}, {"top_p": 7}], ids=str)
def test_a_bad_parameter(server: Server, parameters: dict[str, Any]) -> None:
    reply = _generate(server, {"inputs": PROMPTS[0], "parameters": parameters})
    assert reply.status == 422, reply.text
    assert reply.body["error_type"] == "validation"
    assert next(iter(parameters)) in reply.body["error"]


@spec("HTTP-39")
def test_generate_stream(server: Server) -> None:
    for prompt in PROMPTS[:3]:
        body = {"inputs": prompt, "parameters": {"max_new_tokens": 12, "details": True}}
        whole = _generate(server, body).body
        stream = server.events("/generate_stream", body)
        assert not stream.faults, stream.faults
        *events, last = stream.events
        assert [event["token"]["id"] for event in stream.events] == [t["id"] for t in whole["details"]["tokens"]]
        assert all(event["generated_text"] is None and event["details"] is None for event in events)
        assert last["generated_text"] == whole["generated_text"]
        assert last["details"]["generated_tokens"] == whole["details"]["generated_tokens"]
