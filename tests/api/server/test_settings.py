"""Server settings: names, whose defaults apply, templates from requests, plugins' routes."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from isotoken.api.server import ServerSettings
from isotoken.api.server import app as server_app
from isotoken.api.server.run import bind, url_of
from isotoken.api.server.service import Service
from isotoken.plugins.hookspecs import hookimpl
from isotoken.plugins.manager import PluginError, Plugins
from litestar import get

ASK = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def custom(serve_tiny: Callable[..., Any], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with most settings changed, on a model whose generation_config.json asks for greedy answers."""
    folder = tmp_path_factory.mktemp("models") / "greedy"
    shutil.copytree(tiny_model, folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, "temperature": 0.0}))
    settings = {
        "served_model_names": ["org/first", "second"],
        "generation_config": "model",
        "chat_template": "{{ messages[0].content }}!",
        "trust_request_chat_template": True,
    }
    return serve_tiny(config={"model": str(folder)}, settings=settings, limits={"max_logprobs": -1})


def test_names(custom: Any) -> None:
    cards = custom.get("/v1/models").json()["data"]
    assert [(card["id"], card["parent"]) for card in cards] == [("org/first", None), ("second", "org/first")]
    assert custom.get("/v1/models/org/first").json() == cards[0]
    for name in ("org/first", "second"):
        answer = custom.post("/v1/completions", {"model": name, "prompt": "a", "max_tokens": 1}).json()
        assert answer["model"] == name
    assert custom.post("/v1/completions", {"prompt": "a", "max_tokens": 1}).json()["model"] == "org/first"
    assert custom.post("/v1/completions", {"model": "greedy", "prompt": "a"}).status_code == 404


def test_the_models_own_defaults_apply(custom: Any, server: Any) -> None:
    def text(where: Any, **body: Any) -> str:
        answer = where.post("/v1/completions", {"prompt": "the", "max_tokens": 12, **body}).json()
        return str(answer["choices"][0]["text"])

    assert text(custom) == text(custom, temperature=0) == text(server, temperature=0)
    assert text(custom, temperature=1.0, seed=3) == text(server, seed=3)


def test_templates(custom: Any) -> None:
    def prompt(**body: Any) -> str:
        answer = custom.post(
            "/v1/chat/completions", {"messages": ASK, "max_tokens": 1, "return_token_ids": True, **body}
        )
        return str(custom.post("/detokenize", {"tokens": answer.json()["prompt_token_ids"]}).json()["prompt"])

    assert prompt() == "hi!"
    assert prompt(chat_template="{{ who }}?", chat_template_kwargs={"who": "me"}) == "me?"
    bad = custom.post("/v1/chat/completions", {"messages": ASK, "chat_template": "{% if %}"})
    assert bad.status_code == 400
    assert bad.json()["error"]["param"] == "chat_template"


def test_a_damaged_template_of_the_servers_own_ends_the_start(
    start_process: Callable[..., Any], tiny_model: Path
) -> None:
    settings = {"chat_template": "{% if %}"}
    with start_process(json.dumps([{"model": str(tiny_model), "backend": "reference"}, settings, {}])) as process:
        assert process.wait(60) == 1  # ParameterError, for the command line to tell


def test_the_whole_vocabulary_may_be_asked_for(custom: Any) -> None:
    body = {"prompt": "the quick", "max_tokens": 1, "prompt_logprobs": -1}
    positions = custom.post("/v1/completions", body).json()["choices"][0]["prompt_logprobs"]
    assert len(positions[1]) == 320
    choice = custom.post("/v1/completions", {**body, "echo": True, "logprobs": 1}).json()["choices"][0]
    assert len(choice["prompt_logprobs"][1]) == 320


class GreetingPlugin:
    ISOTOKEN_API = "1.0"

    @hookimpl
    def api_routes(self) -> list[Any]:
        @get("/greet", sync_to_thread=False)
        def greet() -> dict[str, str]:
            return {"hello": "world"}

        return [greet]


def test_plugin_routes_are_served_when_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = Plugins.load([("greeting", GreetingPlugin())])
    monkeypatch.setattr(server_app.Plugins, "load", lambda: plugins)

    def status(*names: str) -> int:
        async def ask() -> httpx.Response:
            app = server_app.build_app(Service(ServerSettings(route_plugins=names)))
            transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.get("/greet")

        return asyncio.run(ask()).status_code

    assert status() == 404
    assert status("greeting") == 200
    with pytest.raises(PluginError, match="unknown"):
        status("unknown")


def test_an_address_in_use_is_named() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert url_of(taken) == f"http://127.0.0.1:{port}"
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            bind("127.0.0.1", port)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_urls_of_wildcards_can_be_pasted() -> None:
    with bind("0.0.0.0", 0) as everywhere:
        assert url_of(everywhere).startswith("http://127.0.0.1:")


@pytest.mark.parametrize("wrong", [{"port": -1}, {"port": 70000}, {"slow_reader_timeout": 0}, {"drain_timeout": -1}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ServerSettings(**wrong)
