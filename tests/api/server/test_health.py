"""Health, information and metrics of a real server."""

from __future__ import annotations

from typing import Any


def test_health(server: Any) -> None:
    assert server.get("/health").json() == {"status": "healthy"}
    assert server.get("/health/live").json() == {"status": "alive", "state": "ready"}
    assert server.get("/health/ready").json() == {"status": "ready", "state": "ready"}
