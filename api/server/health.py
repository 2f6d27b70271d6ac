"""Health for load balancers and people, and the metrics."""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from prometheus_client import CONTENT_TYPE_LATEST

from ..gateway.admin_guard import no_tenants
from .service import Served, Service

_TAKES_REQUESTS = ("ready", "restarting")  # while the engine restarts, requests wait instead of failing


def readiness(service: Service) -> tuple[bool, str]:
    """Return whether load balancers should send requests here, and the state that says why.

    An engine that has work and makes no step, or that has been restarting for some seconds, is "stuck": requests
    would be taken, and wait with the others.
    """
    state = service.state
    if state not in _TAKES_REQUESTS:
        return False, state
    if any(model.engine.is_stuck for model in service.directory.models):
        return False, "stuck"
    if service.stages.ledger is not None and service.stages.ledger.is_full:
        return False, "usage cannot be recorded"
    return True, state


@get("/health", tags=["Operations"], summary="Say whether requests can be answered")
async def health(service: Served) -> Response[dict[str, Any]]:
    """Return 200 and {"status": "healthy"} when requests are taken, else 503."""
    is_ready, state = readiness(service)
    if is_ready:
        return Response({"status": "healthy"})
    body = {"status": "unhealthy", "state": state, "error": "unhealthy", "error_type": "healthcheck"}
    return Response(body, status_code=503)


@get("/health/live", tags=["Operations"], summary="Say whether the process works at all")
async def live(service: Served) -> Response[dict[str, Any]]:
    """Return 200 as long as this process is of use; 503 when it should be started anew: its engine was given up."""
    given_up = service.state == "stopped"
    status = "given up" if given_up else "alive"
    return Response({"status": status, "state": service.state}, status_code=503 if given_up else 200)


@get("/health/ready", tags=["Operations"], summary="Say whether to send requests here")
async def ready(service: Served) -> Response[dict[str, Any]]:
    """Return 200 when requests are answered, else 503: while the engine starts or is stuck, and from SIGTERM on."""
    is_ready, state = readiness(service)
    told: dict[str, Any] = {"status": "ready" if is_ready else "not ready", "state": state}
    if (models := service.model_states()) is not None:
        told["models"] = models
    if service.stages.ledger is not None and (problem := service.stages.ledger.problem):
        told["ledger"] = problem
    return Response(told, status_code=200 if is_ready else 503)


@get(
    "/metrics",
    tags=["Operations"],
    summary="Metrics in Prometheus' text format",
    media_type="text/plain",
    guards=[no_tenants],
)
async def metrics(service: Served) -> Response[bytes]:
    """Return the metrics."""
    is_ready, _ = readiness(service)
    return Response(service.metrics.text(is_ready=is_ready), media_type=CONTENT_TYPE_LATEST)
