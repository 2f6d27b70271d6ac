"""open_traffic: the stage that the settings describe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .settings import RoutingSettings
from .traffic import TrafficControl

if TYPE_CHECKING:
    from ...plugins.manager import Plugins
    from ..server.exchange import Exchange
    from ..server.service import Service


def open_traffic(settings: RoutingSettings, service: Service, plugins: Plugins) -> TrafficControl | None:
    """Return the stage; None where nothing is asked of it.

    Raises PluginError for an unknown router, and ValueError for its options.
    """
    if not settings.is_on:
        return None
    routers = {route.model: plugins.routers.get_factory(route.router)(route.options) for route in settings.routes}

    def cost(exchange: Exchange) -> float | None:
        ledger = service.stages.ledger
        return None if ledger is None else ledger.cost(exchange)

    return TrafficControl(settings, service, routers, cost)
