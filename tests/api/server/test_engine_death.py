"""The engine's process dies under load: clients see a pause, and then exactly the tokens that they would have had."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import httpx

NUM_STREAMS = 16
NUM_TOKENS = 80


def test_streams_survive_a_killed_engine(serve_tiny: Callable[..., Any]) -> None:
    server = serve_tiny()
    bodies = [
        {"prompt": f"the quick {i}", "seed": i, "max_tokens": NUM_TOKENS, "ignore_eos": True, "stream": True}
        for i in range(NUM_STREAMS)
    ]
    expected = [server.post("/v1/completions", {**body, "stream": False}).json() for body in bodies]
    texts = [""] * NUM_STREAMS
    started = [threading.Event() for _ in bodies]

    def read(i: int) -> None:
        with httpx.stream("POST", server.url + "/v1/completions", json=bodies[i], timeout=120) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    texts[i] += json.loads(line[6:])["choices"][0]["text"]
                    started[i].set()

    threads = [threading.Thread(target=read, args=(i,)) for i in range(NUM_STREAMS)]
    for thread in threads:
        thread.start()
    for event in started:
        assert event.wait(60)
    os.kill(server.engine_pid, signal.SIGKILL)
    for thread in threads:
        thread.join(120)
    assert texts == [answer["choices"][0]["text"] for answer in expected]
    assert server.metric("llm_engine_restarts_total") == 1
    assert server.get("/health/ready").status_code == 200
