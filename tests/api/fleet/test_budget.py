"""The memory budget of a running server, and the end of one of several models."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def loaded_bytes(server: Any) -> int:
    return int(server.status()["memory"]["used"])


def test_what_does_not_fit_is_refused_with_the_arithmetic(
    serve_fleet: Callable[..., Any], make_version: Callable[[int], Path]
) -> None:
    server = serve_fleet([{"name": "a", "model": str(make_version(1))}], memory="2MiB")
    used = loaded_bytes(server)
    assert 0 < used < 2 * 2**20 < 2 * used
    number = server.admin("load", name="b", model=str(make_version(2)), backend="reference", num_blocks=256).json()[
        "id"
    ]
    server.wait_for(lambda: _model(server, number)["state"] == "failed")
    reason = _model(server, number)["reason"]
    assert "b@" in reason and "does not fit" in reason and "budget of 2.00 MiB" in reason and "a@" in reason
    assert server.text("a") and loaded_bytes(server) == used
    key = server.load("b", make_version(2), num_blocks=0, kv_memory="64KiB", max_model_len=64)
    assert server.text(key)
    assert loaded_bytes(server) <= 2 * 2**20
    assert server.admin("unload", model="b").status_code == 202
    server.wait_for(lambda: loaded_bytes(server) == used)
    assert server.complete("b").status_code == 404


def test_idle_models_make_room_where_that_is_configured(
    serve_fleet: Callable[..., Any], make_version: Callable[[int], Path]
) -> None:
    models = [{"name": name, "model": str(make_version(i))} for i, name in enumerate("ab", start=1)]
    server = serve_fleet(models, memory="3MiB", evict_idle=True)
    evicted = server.key("b")
    server.load("c", make_version(3))
    assert {key.partition("@")[0] for key, state in server.states().items() if state == "ready"} == {"a", "c"}
    answer = server.complete("b")
    assert answer.status_code == 503 and "unloaded" in answer.json()["error"]["message"]
    assert server.status()["names"]["b"] == {"key": evicted, "loaded": False, "history": [evicted]}
    server.load("b", make_version(2))  # again: now c is the one that is idle and not the default
    assert server.text("b") and server.complete("c").status_code == 503


def test_a_model_that_is_needed_and_cannot_be_loaded_ends_the_server(
    launch_fleet: Callable[..., subprocess.Popen[str]], make_version: Callable[[int], Path], tmp_path: Path
) -> None:
    models = [{"name": "a", "model": str(make_version(1))}, {"name": "b", "model": str(tmp_path)}]
    with launch_fleet(models) as process:
        assert process.wait(60) == 1


def test_a_model_that_is_optional_may_fail(
    serve_fleet: Callable[..., Any], make_version: Callable[[int], Path], tmp_path: Path
) -> None:
    models = [{"name": "a", "model": str(make_version(1))}, {"name": "b", "model": str(tmp_path), "optional": True}]
    server = serve_fleet(models)
    assert server.text("a")
    (failed,) = [model for model in server.status()["models"] if model["state"] == "failed"]
    assert failed["name"] == "b" and "config.json" in failed["reason"]
    answer = server.complete("b")
    assert answer.status_code == 503 and "config.json" in answer.json()["error"]["message"]


def test_sigterm_drains_every_model(serve_fleet: Callable[..., Any], make_version: Callable[[int], Path]) -> None:
    models = [{"name": name, "model": str(make_version(i))} for i, name in enumerate("ab", start=1)]
    server = serve_fleet(models, parallel_loads=2)
    body = {"prompt": "the quick", "max_tokens": 400, "temperature": 0, "ignore_eos": True, "stream": True}
    with (
        server.client.stream("POST", "/v1/completions", json={**body, "model": "a"}) as one,
        server.client.stream("POST", "/v1/completions", json={**body, "model": "b"}) as other,
    ):
        lines = one.iter_lines(), other.iter_lines()
        for each in lines:
            next(each)
        server.process.terminate()
        told = [list(each) for each in lines]
    assert all(each[-2] == "data: [DONE]" for each in told)
    assert server.process.wait(60) == 0


def test_an_engine_that_is_given_up_is_its_own_models_affair(
    serve_fleet: Callable[..., Any], make_version: Callable[[int], Path], faulty_plugin: Path
) -> None:
    models = [
        {"name": "a", "model": str(make_version(1))},
        {"name": "b", "model": str(make_version(2)), "backend": "faulty"},
    ]
    server = serve_fleet(models, settings={"limits": {"max_start_attempts": 1, "backoff_s": 0.01}})
    key, text = server.key("b"), server.text("b")
    (faulty_plugin / "no-start").touch()
    assert server.complete("b", [40, 40, 40]).status_code == 500  # a prompt that kills this backend
    server.wait_for(lambda: server.states()[key] == "failed")
    answer = server.complete("b")
    assert answer.status_code == 503 and "the device is gone" in answer.json()["error"]["message"]
    assert server.text("a")
    assert server.client.get("/health/ready").json()["models"][key] == "failed"
    assert server.client.get("/health/live").status_code == server.client.get("/health/ready").status_code == 200

    (faulty_plugin / "no-start").unlink()
    assert server.load("b", make_version(2), backend="faulty") == key  # it is started anew
    server.wait_for(lambda: list(server.states().values()) == ["ready", "ready"])
    assert server.text("b") == text


@pytest.mark.parametrize("how", ["timeout", "force"])
def test_an_unload_cuts_what_does_not_end_in_time(
    how: str, serve_fleet: Callable[..., Any], make_version: Callable[[int], Path]
) -> None:
    server = serve_fleet([{"name": "a", "model": str(make_version(1)), "aliases": ["chat"]}])
    body = {"prompt": "the quick", "max_tokens": 500, "temperature": 0, "ignore_eos": True, "stream": True}
    if how == "force":
        assert server.admin("unload", model="a", force=True).status_code == 202
        server.wait_for(lambda: server.states() == {})
        assert server.complete("chat").status_code == 404  # its names went along
        assert server.complete().status_code == 503  # and there is no other model
        assert server.client.get("/health/ready").json()["state"] == "empty"
        assert server.client.get("/health/live").status_code == 200
        return
    with server.client.stream("POST", "/v1/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        assert server.admin("unload", model="a", timeout=0, force=True).status_code == 202
        assert any("the model was unloaded" in line for line in lines)


def _model(server: Any, number: int) -> dict[str, Any]:
    return dict(next(model for model in server.status()["models"] if model["id"] == number))
