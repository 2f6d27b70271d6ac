"""From SIGTERM to exit: not ready at once, what runs finishes or is cut with an error event, and the code is 0."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from isotoken.api.server.run import bind

BODY = {"prompt": "a", "ignore_eos": True, "seed": 1, "stream": True}


def engine_is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_running_streams_finish(serve_tiny: Callable[..., Any]) -> None:
    server = serve_tiny()
    whole = server.post("/v1/completions", {**BODY, "max_tokens": 300, "stream": False}).json()["choices"][0]["text"]
    text = ""
    with httpx.stream("POST", server.url + "/v1/completions", json={**BODY, "max_tokens": 300}, timeout=60) as response:
        lines = response.iter_lines()
        text += _text(next(lines))
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: server.get("/health/ready").status_code == 503)
        assert server.get("/health").json()["error_type"] == "healthcheck"
        assert server.get("/health/live").status_code == 200
        refused = server.post("/v1/completions", {"prompt": "b"})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "not_ready"
        assert "draining" in refused.json()["error"]["message"]
        assert "retry-after" in refused.headers
        for line in lines:
            text += _text(line)
    assert text == whole
    assert server.process.wait(60) == 0
    server.wait_for(lambda: engine_is_gone(server.engine_pid))


def test_what_does_not_finish_in_time_is_cut_with_an_error_event(serve_tiny: Callable[..., Any]) -> None:
    server = serve_tiny(settings={"drain_timeout": 0.2})
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        stream = client.completions.create(
            model="tiny", prompt="a", max_tokens=2000, stream=True, extra_body={"ignore_eos": True}
        )
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="draining"):
            list(stream)
    assert server.process.wait(60) == 0
    server.wait_for(lambda: engine_is_gone(server.engine_pid))


def test_a_second_signal_does_not_wait(serve_tiny: Callable[..., Any]) -> None:
    server = serve_tiny(settings={"drain_timeout": 600})
    with httpx.stream(
        "POST", server.url + "/v1/completions", json={**BODY, "max_tokens": 2000}, timeout=60
    ) as response:
        lines = response.iter_lines()  # kept: the connection closes with it
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: server.get("/health/ready").status_code == 503)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 1
    server.wait_for(lambda: engine_is_gone(server.engine_pid))


def test_idle_servers_stop_at_once(serve_tiny: Callable[..., Any]) -> None:
    server = serve_tiny()
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(60) == 0


def test_stopping_while_the_engine_starts(start_process: Callable[..., Any], tiny_model: Path) -> None:
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    process = start_process(json.dumps([{"model": str(tiny_model), "backend": "reference"}, {"port": port}, {}]))
    with process, httpx.Client(transport=httpx.HTTPTransport(retries=100), timeout=60) as client:
        states = {client.get(f"http://127.0.0.1:{port}/health/live").json()["state"]}
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert states <= {"starting", "ready"}


def test_an_engine_that_cannot_start_ends_the_server(start_process: Callable[..., Any], tmp_path: Path) -> None:
    with start_process(json.dumps([{"model": str(tmp_path)}, {}, {}])) as process:
        assert process.wait(60) == 1  # EngineFailed, for the command line to tell


def _text(line: str) -> str:
    if not line.startswith("data: {"):
        return ""
    return "".join(choice["text"] for choice in json.loads(line[6:])["choices"])
