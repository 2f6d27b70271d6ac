"""Tokens to text and back, and the ids of answers."""

from __future__ import annotations

import pytest

from ..spec import spec
from .routes import COMPLETIONS, PROMPTS
from .server import Server

TEXTS = (*PROMPTS, "naïve café, 日本語 🙂", " two  spaces\nand a line")


@spec("HTTP-37")
def test_tokens_go_to_text_and_back(server: Server) -> None:
    server.need(COMPLETIONS)
    for text in TEXTS:
        reply = server.post("/tokenize", {"model": server.facts.model, "prompt": text})
        if reply.status in (404, 405):
            server.absent("/tokenize is not offered")
        assert reply.status == 200, reply.text
        found = reply.body
        assert found["count"] == len(found["tokens"])
        assert server.whole(COMPLETIONS, text, max_tokens=1)["usage"]["prompt_tokens"] == found["count"], text
        bare = server.post("/tokenize", {"prompt": text, "add_special_tokens": False}).body["tokens"]
        assert server.post("/detokenize", {"tokens": bare}).body == {"prompt": text}


@spec("HTTP-40")
@pytest.mark.parametrize("path", ["/v1/models", "/health", "/v1/no-such-route"])
def test_an_answer_has_a_request_id(server: Server, path: str) -> None:
    assert server.get(path, headers={"x-request-id": "mine-123"}).headers["x-request-id"] == "mine-123"
    first, second = (server.get(path).headers["x-request-id"] for _ in range(2))
    assert first and second and first != second
