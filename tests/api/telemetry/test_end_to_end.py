"""`isotoken serve` with a configuration: JSON lines to the end, timings in the head, limits told by their kinds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml


def test_a_configured_server(serve: Callable[..., Any], tiny_model: Path, tmp_path: Path) -> None:
    config = {
        "engine": {"backend": "reference", "num_blocks": 64},
        "telemetry": {"log_format": "json", "access_log": True, "server_timing": True, "log_addresses": True},
        "gateway": {"address_limits": {"max_concurrency": 1}},
    }
    (tmp_path / "isotoken.yaml").write_text(yaml.safe_dump(config))
    body = {"prompt": "the quick", "max_tokens": 3, "ignore_eos": True}
    with serve("--config", str(tmp_path / "isotoken.yaml"), str(tiny_model)) as serving:
        with httpx.Client(base_url=serving.url, timeout=60) as client:
            whole = client.post("/v1/completions", json=body)
            with client.stream("POST", "/v1/completions", json={**body, "max_tokens": 500, "stream": True}) as stream:
                refused = client.post("/v1/completions", json=body)
                stream.read()
            metrics = client.get("/metrics").text
        assert serving.stop() == 0
    assert (whole.status_code, refused.status_code) == (200, 429)
    assert re.fullmatch(r"tokenize;dur=.*, decode;dur=[\d.]+, total;dur=[\d.]+", whole.headers["server-timing"])
    assert 'llm_requests_total{route="/v1/completions",status="429"} 1.0' in metrics
    limited = dict(re.findall(r'llm_rate_limited_total\{limit="(\w+)"\} (\S+)', metrics))
    assert limited.pop("address_concurrency") == "1.0"
    assert set(limited.values()) == {"0.0"}  # they are there, so that a first one is seen as an increase
    assert {"key_tokens", "queue", "budget"} <= set(limited)
    lines = [json.loads(line) for line in serving.log if line.startswith("{")]
    access = [line for line in lines if line["logger"] == "isotoken.access"]
    assert [line["status"] for line in access] == [200, 429, 200]
    assert access[0]["address"] == "127.0.0.1"
    assert access[1]["reason"] == "address_concurrency"
    assert not any(line["logger"] == "isotoken.requests" for line in lines)
