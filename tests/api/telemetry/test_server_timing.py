"""The Server-Timing header says where an answer's time went, as far as its head can know."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
from isotoken.api.server.service import Service
from isotoken.api.telemetry.settings import TelemetrySettings
from isotoken.api.telemetry.telemetry import open_telemetry


def phases(answer: httpx.Response) -> dict[str, float]:
    found = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]))
    assert ", ".join(f"{name};dur={value}" for name, value in found.items()) == answer.headers["server-timing"]
    return {name: float(value) for name, value in found.items()}


def test_whole_answers_and_streams(with_app: Callable[..., None]) -> None:
    async def main(client: httpx.AsyncClient, service: Service) -> None:
        body: dict[str, Any] = {"prompt": "the quick", "max_tokens": 12, "ignore_eos": True}
        assert "server-timing" not in (await client.post("/v1/completions", json=body)).headers
        service.stages.telemetry = open_telemetry(TelemetrySettings(server_timing=True), service.metrics)
        whole = phases(await client.post("/v1/completions", json=body))
        assert list(whole) == ["tokenize", "queue", "prefill", "decode", "total"]
        assert whole["prefill"] > 0 and whole["decode"] > 0
        assert sum(whole.values()) - whole["total"] <= whole["total"] + 0.1
        stream = phases(await client.post("/v1/completions", json={**body, "stream": True}))
        assert list(stream) == ["tokenize", "queue", "prefill", "total"]  # the rest is not known at the head
        assert 0 < stream["prefill"] <= stream["total"]
        chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        assert "prefill" in phases(await client.post("/v1/chat/completions", json=chat))
        assert list(phases(await client.get("/v1/models"))) == ["total"]

    with_app(main, None)
