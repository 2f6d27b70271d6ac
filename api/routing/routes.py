"""/admin/experiments and /admin/shadows: what came of them so far."""

from __future__ import annotations

from typing import Any

from litestar import get

from ..gateway.admin_guard import admin_only
from ..server.errors import ApiError
from ..server.service import Served, Service
from .traffic import TrafficControl

_TAG = ["Administration"]


@get("/admin/experiments", tags=_TAG, summary="Compare the arms of experiments", guards=[admin_only])
async def show_experiments(service: Served) -> dict[str, Any]:
    """Return every arm's error rate, latency, length and cost since the start, with 95% confidence intervals."""
    return {"experiments": _traffic(service).experiments.report()}


@get("/admin/shadows", tags=_TAG, summary="Show where shadows differ", guards=[admin_only])
async def show_shadows(service: Served) -> dict[str, Any]:
    """Return how many answers of each shadow were equal, and the latest first differing tokens with their margins."""
    return {"shadows": [outcome.told() for outcome in _traffic(service).shadows.outcomes]}


ROUTES = (show_experiments, show_shadows)


def _traffic(service: Service) -> TrafficControl:
    if not isinstance(service.stages.traffic, TrafficControl):
        raise ApiError(404, "this server's configuration has no `routing`", code="no_routing")
    return service.stages.traffic
