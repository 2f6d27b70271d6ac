"""Several models behind one port: names, versions, what answers say, and who may change that."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from isotoken.api.fleet.contents import Hasher


def test_names_aliases_and_versions_are_all_answered_to(two: Any, make_version: Callable[[int], Path]) -> None:
    key = two.key("small")
    assert key == f"small@{Hasher().hash(make_version(1))[:12]}" or key.startswith("small@")
    assert two.key("chat") == key
    listed = {card["id"]: card for card in two.client.get("/v1/models").json()["data"]}
    assert set(listed) == {key, "small", "chat", two.key("other"), "other"}
    assert listed["chat"]["parent"] == listed["small"]["parent"] == key
    assert listed[key]["parent"] is None
    small, other = two.text("small"), two.text("other")
    assert small != other
    for name in ("", "chat", key, key[:-6]):
        answer = two.complete(name)
        assert answer.headers["x-isotoken-model"] == answer.json()["model"] == key
        assert answer.json()["choices"][0]["text"] == small
    assert two.client.get(f"/v1/models/{key}").json()["id"] == key


def test_streams_and_chats_say_which_model_answers(two: Any) -> None:
    body = {"model": "other", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": True}
    with two.client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["x-isotoken-model"] == two.key("other")
        assert f'"model":"{two.key("other")}"'.encode() in response.read()


def test_tgi_routes_use_the_default_model(two: Any) -> None:
    assert two.client.get("/info").json()["model_id"] == two.key("small")
    answer = two.client.post("/generate", json={"prompt": "the quick", "max_tokens": 8})
    assert answer.headers["x-isotoken-model"] == two.key("small")


def test_an_unknown_model_is_a_404_that_lists_the_names(two: Any) -> None:
    answer = two.complete("nobody")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    for name in ("small", "chat", "other", two.key("small")):
        assert name in answer.json()["error"]["message"]
    assert two.complete("small@0000").status_code == 404


def test_readiness_is_told_for_each_model(two: Any) -> None:
    told = two.client.get("/health/ready").json()
    assert told["status"] == "ready"
    assert told["models"] == {two.key("small"): "ready", two.key("other"): "ready"}


def test_metrics_have_a_label_for_each_model(two: Any) -> None:
    two.text("small"), two.text("other")
    lines = two.client.get("/metrics").text.splitlines()
    for name in ("small", "other"):
        (count,) = [line for line in lines if line.startswith(f'llm_tokens_generated_total{{model="{name}"}}')]
        assert float(count.rsplit(" ", 1)[1]) >= 8


def test_the_status_has_memory_and_versions(two: Any) -> None:
    told = two.status()
    assert told["default"] == "small"
    (small,) = [model for model in told["models"] if model["name"] == "small"]
    assert small["names"] == ["small", "chat"]
    assert small["version"].startswith(small["key"].partition("@")[2])
    memory = small["memory"]
    assert memory["total"] == memory["weights"] + memory["kv_cache"] > 0
    assert not memory["estimated"] and memory["resident"] > 10**6
    assert told["memory"]["used"] == sum(model["memory"]["total"] for model in told["models"])


def test_only_this_machine_may_give_commands(two: Any) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}, {"x-forwarded-for": "10.0.0.1"}):
        assert two.client.get("/admin/models", headers=headers).status_code == 403
        assert two.client.post("/admin/models/unload", json={"model": "other"}, headers=headers).status_code == 403
    assert two.states()[two.key("other")] == "ready"


def test_commands_that_make_no_sense_change_nothing(two: Any) -> None:
    before = two.status()["names"]
    commands: list[tuple[str, dict[str, Any], int]] = [
        ("load", {"name": "a@b"}, 400),
        ("load", {"name": "new", "quantisation": "int8"}, 400),
        ("load", {}, 400),
        ("unload", {"model": "nobody"}, 404),
        ("unload", {"model": "small"}, 409),  # chat stands for it
        ("alias", {"alias": "new", "target": "nobody"}, 404),
        ("alias", {"alias": "other", "target": two.key("small")}, 409),
        ("alias", {"alias": "a@b", "target": "small"}, 400),
        ("unalias", {"alias": "nobody"}, 404),
        ("unalias", {"alias": "small"}, 409),
        ("rollback", {"alias": "nobody"}, 404),
        ("rollback", {"alias": "small"}, 409),
        ("drain", {"model": "nobody"}, 404),
        ("resume", {"model": "small"}, 409),
    ]
    for command, body, status in commands:
        answer = two.admin(command, **body)
        assert answer.status_code == status, (command, body, answer.text)
        assert answer.json()["error"]["message"]
    assert two.status()["names"] == before


def test_a_drained_model_takes_no_requests_until_it_is_resumed(two: Any) -> None:
    assert two.admin("drain", model="other").json()["state"] == "draining"
    answer = two.complete("other")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "draining" in answer.json()["error"]["message"]
    assert two.text("small")
    assert two.admin("resume", model="other").json()["state"] == "ready"
    assert two.text("other")


def test_a_model_that_loads_is_a_503_for_those_who_ask_for_it_alone(two: Any, make_version: Any) -> None:
    folder = str(make_version(3))
    settings = {"backend": "reference", "num_blocks": 64, "max_model_len": 512, "aliases": ["soon"]}
    told = two.admin("load", name="third", model=folder, **settings).json()
    assert told["state"] in ("hashing", "loading")
    for name in ("third", "soon"):
        answer = two.complete(name)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
        assert "it is loading" in answer.json()["error"]["message"]
    assert two.admin("load", name="third", model=folder).status_code == 409  # one at a time
    assert two.text("small")
    two.wait_for(lambda: "soon" in two.status()["names"])
    assert two.text("soon") == two.text("third")
    assert two.admin("unload", model="third", force=True).status_code == 202
    two.wait_for(lambda: len(two.states()) == 2)


def test_a_load_can_be_called_off(two: Any, make_version: Any) -> None:
    two.admin("load", name="third", model=str(make_version(3)), backend="reference")
    assert two.admin("unload", model="third").status_code == 202
    two.wait_for(lambda: len(two.status()["models"]) == 2)
    assert two.complete("third").status_code == 404


def test_an_engine_that_dies_is_its_own_models_affair(two: Any) -> None:
    engines = _engines(two.process.pid)
    assert len(engines) == 2
    small, other = two.text("small"), two.text("other")
    os.kill(engines[0], signal.SIGKILL)
    assert (two.text("small"), two.text("other")) == (small, other)


def test_a_server_of_one_model_has_no_fleet(two: Any) -> None:
    """Its routes are not even there."""
    paths = two.client.get("/openapi.json").json()["paths"]
    assert "/admin/models/load" in paths
    from isotoken.api.server.app import build_app
    from isotoken.api.server.service import Service
    from isotoken.api.server.settings import ServerSettings

    assert "/admin/models" not in build_app(Service(ServerSettings())).openapi_schema.to_schema()["paths"]


def _engines(pid: int) -> list[int]:
    import psutil

    children = psutil.Process(pid).children()
    return [child.pid for child in children if "isotoken.api.engine.worker" in child.cmdline()]


def test_the_command_lines_model_can_be_one_of_a_fleet(serve_fleet: Any, make_version: Any) -> None:
    folder = make_version(1)
    server = serve_fleet([], model=str(folder), enabled=True, settings={"served_model_names": ["first", "second"]})
    assert server.key("first") == server.key("second")
    assert server.complete("second").headers["x-isotoken-model"].startswith("first@")
    assert isinstance(server.client, httpx.Client)
