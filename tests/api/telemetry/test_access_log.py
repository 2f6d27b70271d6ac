"""Structured logs: one line for each request, with who asked, what it took and how it ended, and never its text."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from isotoken.api.cli.log import HeldHandler
from isotoken.api.server.service import Service
from isotoken.api.telemetry.json_log import JsonFormatter
from isotoken.api.telemetry.settings import TelemetrySettings
from isotoken.api.telemetry.telemetry import open_telemetry

SECRET = "the capital of France"


class Lines(io.StringIO):
    """What was logged."""

    def __init__(self, handler: HeldHandler | None = None) -> None:
        super().__init__()
        self.handler = handler

    def take(self) -> list[str]:
        assert self.handler is not None
        self.handler.flush()
        found = self.getvalue().splitlines()
        self.truncate(0)
        self.seek(0)
        return found


@pytest.fixture
def lines() -> Iterator[Lines]:
    """isotoken's log at "info", as `isotoken serve` sets it up."""
    stream = Lines()
    stream.handler = HeldHandler(stream)
    logger, requests = logging.getLogger("isotoken"), logging.getLogger("isotoken.requests")
    before = logger.level, requests.level
    logger.addHandler(stream.handler)
    logger.setLevel("INFO")
    yield stream
    logger.removeHandler(stream.handler)
    logger.setLevel(before[0])
    requests.setLevel(before[1])


def body(**more: Any) -> dict[str, Any]:
    return {"prompt": SECRET, "max_tokens": 6, "temperature": 0, "ignore_eos": True, **more}


def test_json_lines(with_app: Callable[..., None], lines: Lines) -> None:
    async def main(client: httpx.AsyncClient, service: Service) -> None:
        settings = TelemetrySettings(log_format="json", access_log=True)
        service.stages.telemetry = open_telemetry(settings, service.metrics)
        lines.take()
        num_prompt_tokens = len(service.default.text.encode(SECRET))
        answer = await client.post("/v1/completions", json=body(), headers={"x-request-id": "mine"})
        assert answer.status_code == 200
        (line,) = map(json.loads, lines.take())  # one for each request
        times = {name: line.pop(name) for name in list(line) if name.endswith("_ms")}
        assert line.pop("time").endswith("+00:00")
        assert line.pop("message") == "POST /v1/completions 200"
        assert line == {
            "level": "info",
            "logger": "isotoken.access",
            "request_id": "mine",
            "method": "POST",
            "route": "/v1/completions",
            "status": 200,
            "tenant": "default",
            "model": "tiny",
            "prompt_tokens": num_prompt_tokens,
            "cached_tokens": 0,
            "output_tokens": 6,
            "finish": "length",
        }
        assert set(times) == {"tokenize_ms", "queue_ms", "prefill_ms", "decode_ms", "total_ms"}
        assert 0 < times["prefill_ms"] + times["decode_ms"] <= times["total_ms"]
        await client.post("/v1/completions", json=body(), headers={"x-request-id": "sk-" + "a1" * 20})
        assert "sk-" not in "".join(lines.take())  # a key is no id
        await client.post("/v1/completions", json=body(model="another"))
        await client.post("/v1/completions", content=b"{")
        await client.get("/metrics")
        await client.get("/nowhere/" + SECRET)
        found = [json.loads(line) for line in lines.take()]
        assert [(line["status"], line["route"], line.get("reason")) for line in found] == [
            (404, "/v1/completions", "model_not_found"),
            (400, "/v1/completions", "invalid_json"),
            (404, "unmatched", "not_found"),
        ]
        assert "France" not in json.dumps(found)
        async with client.stream("POST", "/v1/completions", json=body(stream=True)) as stream:
            async for _ in stream.aiter_lines():
                pass
        (line,) = map(json.loads, lines.take())
        assert (line["output_tokens"], line["status"]) == (6, 200)

    with_app(main, None)


def test_text_lines(with_app: Callable[..., None], lines: Lines) -> None:
    async def main(client: httpx.AsyncClient, service: Service) -> None:
        service.stages.telemetry = open_telemetry(TelemetrySettings(access_log=True), service.metrics)
        lines.take()
        await client.post("/v1/completions", json=body(), headers={"x-request-id": "mine"})
        (line,) = lines.take()
        assert (
            "INFO isotoken.access request_id=mine method=POST route=/v1/completions status=200 tenant=default" in line
        )
        assert "output_tokens=6" in line

    with_app(main, None)


def test_nothing_is_open_where_nothing_is_asked_for(with_app: Callable[..., None], lines: Lines) -> None:
    async def main(client: httpx.AsyncClient, service: Service) -> None:
        assert open_telemetry(TelemetrySettings(), service.metrics) is None
        lines.take()
        await client.post("/v1/completions", json=body())
        (line,) = lines.take()
        assert "isotoken.requests cmpl-" in line  # the engine's own, as ever

    with_app(main, None)


def test_whatever_is_logged_is_one_valid_line() -> None:
    formatter = JsonFormatter()
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        record = logging.LogRecord(
            "a.b", logging.ERROR, "", 1, "it %s \n\ud800", ("failed",), (ValueError, error, None)
        )
    line = formatter.format(record)
    assert "\n" not in line
    said = json.loads(line)
    assert said["message"].startswith("it failed")
    assert said["level"] == "error"
    assert "ValueError: two" in said["exception"]
