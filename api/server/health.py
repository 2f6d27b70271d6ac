"""Health for load balancers and people, and the metrics."""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from prometheus_client import CONTENT_TYPE_LATEST

from .service import Served

_TAKES_REQUESTS = ("ready", "restarting")  # while the engine restarts, requests wait instead of failing


@get("/health", tags=["Operations"], summary="Say whether requests can be answered")
async def health(service: Served) -> Response[dict[str, Any]]:
    """Return 200 and {"status": "healthy"} when requests are taken, else 503."""
    if service.state in _TAKES_REQUESTS:
        return Response({"status": "healthy"})
    body = {"status": "unhealthy", "state": service.state, "error": "unhealthy", "error_type": "healthcheck"}
    return Response(body, status_code=503)


@get("/health/live", tags=["Operations"], summary="Say whether the process works at all")
async def live(service: Served) -> Response[dict[str, Any]]:
    """Return 200 as long as this process is of use; 503 when it should be started anew: its engine was given up."""
    given_up = service.state == "stopped"
    status = "given up" if given_up else "alive"
    return Response({"status": status, "state": service.state}, status_code=503 if given_up else 200)


@get("/health/ready", tags=["Operations"], summary="Say whether to send requests here")
async def ready(service: Served) -> Response[dict[str, Any]]:
    """Return 200 when requests are taken, else 503: while the engine starts, and from SIGTERM on."""
    takes = service.state in _TAKES_REQUESTS
    return Response(
        {"status": "ready" if takes else "not ready", "state": service.state}, status_code=200 if takes else 503
    )


@get("/metrics", tags=["Operations"], summary="Metrics in Prometheus' text format", media_type="text/plain")
async def metrics(service: Served) -> Response[bytes]:
    """Return the metrics."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)
