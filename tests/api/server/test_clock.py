"""The wall clock jumps by days, in the server and in the engine, while requests run: nobody notices."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

JUMPY = """
import os, time
_real, _path = time.time, os.environ["CLOCK_FILE"]
def jumpy():
    with open(_path) as file:
        return _real() + float(file.read() or 0)
time.time = jumpy
"""
DAY = 86400


@pytest.fixture
def jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set by how many seconds the clock of all processes that are started from here is wrong."""
    (tmp_path / "sitecustomize.py").write_text(JUMPY)
    file = tmp_path / "offset"
    file.write_text("0")
    monkeypatch.setenv("CLOCK_FILE", str(file))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))

    def set_offset(seconds: float) -> None:
        fresh = tmp_path / "fresh"
        fresh.write_text(str(seconds))
        fresh.replace(file)

    return set_offset


def test_streams_deadlines_and_health_do_not_look_at_the_wall_clock(
    jump: Callable[[float], None], serve_tiny: Callable[..., Any]
) -> None:
    server = serve_tiny(limits={"request_timeout_s": 120})
    body = {"prompt": "a", "ignore_eos": True, "seed": 1, "temperature": 1, "max_tokens": 400}
    whole = server.post("/v1/completions", body).json()
    jumps = iter([-30 * DAY, 10 * DAY, -DAY, 365 * DAY, 0] * 100)
    text, count = "", 0
    with server.client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                text += json.loads(line[6:])["choices"][0]["text"]
                count += 1
                if count % 40 == 0:
                    jump(next(jumps))
                    assert server.get("/health/ready").status_code == 200
    assert text == whole["choices"][0]["text"]
    assert count >= 80
    jump(-20 * 365 * DAY)
    assert server.post("/v1/completions", body).json()["choices"] == whole["choices"]
    sums = [line for line in server.get("/metrics").text.splitlines() if "_seconds_sum" in line]
    assert sums
    assert all(0 <= float(line.rsplit(" ", 1)[1]) < DAY for line in sums)
    assert server.metric("llm_engine_restarts_total") == 0
