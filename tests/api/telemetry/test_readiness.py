"""The readiness endpoint tells the truth: a stuck engine turns it off while liveness stays, and on when it goes on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

BODY = {"prompt": "the quick", "max_tokens": 400, "ignore_eos": True, "seed": 1}


def test_a_stuck_engine_is_not_ready_until_it_goes_on(serve_tiny: Callable[..., Any]) -> None:
    server = serve_tiny(limits={"stall_after_s": 1.0})
    expected = server.post("/v1/completions", BODY).json()["choices"]
    assert server.get("/health/ready").json() == {"status": "ready", "state": "ready"}
    os.kill(server.engine_pid, signal.SIGSTOP)
    try:
        server.wait_for(lambda: server.get("/health/ready").status_code == 200)
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(server.post("/v1/completions", BODY).json()))
        asking.start()
        server.wait_for(lambda: server.get("/health/ready").status_code == 503)
        assert server.get("/health/ready").json() == {"status": "not ready", "state": "stuck"}
        assert server.get("/health").status_code == 503
        assert server.get("/health/live").status_code == 200
        assert server.metric("llm_engine_stuck", '{model="tiny"}') == 1
        assert server.metric("llm_ready") == 0
        assert server.metric("llm_engine_silence_seconds", '{model="tiny"}') >= 1
    finally:
        os.kill(server.engine_pid, signal.SIGCONT)
    server.wait_for(lambda: server.get("/health/ready").status_code == 200)
    asking.join(60)
    assert answers[0]["choices"] == expected  # nobody lost anything
    assert server.metric("llm_engine_stuck", '{model="tiny"}') == 0
    assert server.metric("llm_ready") == 1
    assert server.metric("llm_engine_restarts_total") == 0


def test_one_whose_client_gave_up_is_still_stuck(serve_tiny: Callable[..., Any]) -> None:
    server = serve_tiny(limits={"stall_after_s": 1.0})
    server.post("/v1/completions", {**BODY, "max_tokens": 2})
    os.kill(server.engine_pid, signal.SIGSTOP)
    try:
        with server.client.stream("POST", "/v1/completions", json={**BODY, "stream": True}, timeout=0.5) as stream:
            stream.read()
    except Exception:
        pass  # it left
    try:
        server.wait_for(lambda: server.get("/health/ready").status_code == 503)
    finally:
        os.kill(server.engine_pid, signal.SIGCONT)
    server.wait_for(lambda: server.get("/health/ready").status_code == 200)


def test_an_engine_that_does_not_come_back_soon_is_not_ready(serve_tiny: Callable[..., Any]) -> None:
    server = serve_tiny(limits={"stall_after_s": 0.01})  # no engine is back so soon
    os.kill(server.engine_pid, signal.SIGKILL)
    server.wait_for(lambda: server.get("/health/ready").status_code == 503)
    assert server.get("/health/live").status_code == 200
    server.wait_for(lambda: server.get("/health/ready").status_code == 200, timeout=120)
