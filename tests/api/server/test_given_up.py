"""An engine that was given up: the metrics show nothing that runs and no memory, for there is none."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

GAUGES = (
    "llm_requests_running",
    "llm_requests_waiting",
    "llm_requests_in_flight",
    "llm_batch_size",
    "llm_batch_tokens",
    "llm_step_duration_seconds",
    "llm_kv_blocks",
    "llm_kv_blocks_used",
    "llm_kv_usage_ratio",
    "llm_engine_ready",
)


def test_gauges_of_an_engine_that_is_gone(faulty_plugin: Path, serve_tiny: Callable[..., Any]) -> None:
    server = serve_tiny(config={"backend": "faulty"}, limits={"max_start_attempts": 2, "backoff_s": 0.01})
    body = {"prompt": "the fox", "max_tokens": 1900, "ignore_eos": True, "stream": True}
    with server.client.stream("POST", "/v1/completions", json=body) as response:
        chunks = response.iter_raw()
        assert next(chunks)
        server.wait_for(lambda: server.metric("llm_requests_running") == 1)
        assert server.metric("llm_kv_blocks_used") > 0 and server.metric("llm_step_duration_seconds") > 0
        (faulty_plugin / "no-start").touch()
        os.kill(server.engine_pid, signal.SIGKILL)
        assert b"could not be started again" in b"".join(chunks)
    server.wait_for(lambda: server.metric("llm_engine_ready") == 0)
    shown = server.get("/metrics").text
    assert {name: server.metric(name) for name in GAUGES} == dict.fromkeys(GAUGES, 0.0)
    assert all(f'\n{name}{{model="tiny"}} ' in shown for name in GAUGES)
    assert server.metric("llm_tokens_generated_total") > 0, "counters stay"


def test_gauges_after_a_restart(serve_tiny: Callable[..., Any]) -> None:
    server = serve_tiny()
    blocks = server.metric("llm_kv_blocks")
    os.kill(server.engine_pid, signal.SIGKILL)
    server.wait_for(lambda: server.metric("llm_engine_restarts_total") == 1)
    server.wait_for(lambda: server.metric("llm_kv_blocks") == blocks)
    assert server.metric("llm_kv_blocks_used") == 0
