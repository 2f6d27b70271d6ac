"""Health, models and the documentation of a real server; and what a server without an engine says."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from isotoken.api.server import ServerSettings
from isotoken.api.server.app import build_app
from isotoken.api.server.openai_answers import ErrorResponse, ModelCard, ModelList
from isotoken.api.server.service import Service


def test_health(server: Any) -> None:
    assert server.get("/health").json() == {"status": "healthy"}
    assert server.get("/health/live").json() == {"status": "alive", "state": "ready"}
    assert server.get("/health/ready").json() == {"status": "ready", "state": "ready"}


def test_models(server: Any) -> None:
    models = server.get("/v1/models").json()
    ModelList.model_validate(models, strict=True)
    card = server.get("/v1/models/tiny").json()
    ModelCard.model_validate(card, strict=True)
    assert models["data"] == [card]
    assert (card["id"], card["max_model_len"], card["parent"]) == ("tiny", 2048, None)


def test_documentation(server: Any) -> None:
    document = server.get("/openapi.json").json()
    assert set(document["paths"]) >= {"/v1/completions", "/v1/chat/completions", "/generate", "/health", "/tokenize"}
    fields = document["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"messages", "temperature", "max_completion_tokens", "top_k", "chat_template_kwargs"} <= set(fields)
    page = server.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "/v1/chat/completions" in page.text
    assert "<script" not in page.text  # nothing is loaded from elsewhere
    assert server.get("/docs/openapi.json").json() == document


def test_tokens_there_and_back(server: Any) -> None:
    text = "the quick naïve 🙂"
    told = server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json()
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert told["max_model_len"] == 2048
    assert server.post("/detokenize", {"tokens": told["tokens"]}).json() == {"prompt": text}
    with_offsets = server.post("/tokenize", {"inputs": text}).json()
    assert server.post("/tokenize", {"inputs": ""}).json() == []
    assert [token["id"] for token in with_offsets] == told["tokens"]
    assert text[with_offsets[1]["start"] : with_offsets[1]["stop"]] == with_offsets[1]["text"]
    chat = server.post("/tokenize", {"messages": [{"role": "user", "content": "hi"}]}).json()
    decoded = server.post("/detokenize", {"tokens": chat["tokens"]}).json()["prompt"]
    assert decoded == "<|user|>hi<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/completions", {"prompt": "a"}),
        ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("GET", "/v1/models", None),
        ("POST", "/generate", {"inputs": "a"}),
        ("GET", "/info", None),
        ("GET", "/health", None),
        ("GET", "/health/ready", None),
    ],
)
@pytest.mark.parametrize("names", [(), ("given",)])
def test_while_the_engine_starts(method: str, path: str, body: Any, names: tuple[str, ...]) -> None:
    async def ask() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(build_app(Service(ServerSettings(served_model_names=names))))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(method, path, json=body), await client.get("/health/live")

    response, live = asyncio.run(ask())
    assert response.status_code == 503
    assert live.json() == {"status": "alive", "state": "starting"}
    if path.startswith("/v1"):
        ErrorResponse.model_validate(response.json(), strict=True)
        assert response.headers["retry-after"] == "1"
