"""Assembly: what is configured, built around a service before the first request and taken down after the last."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from ...plugins.build import EngineConfig
from ...plugins.manager import Plugins
from .features import Features
from .service import Service
from .solo import Models, Solo

if TYPE_CHECKING:
    from ..fleet.settings import FleetSettings
    from ..store.database import Store


class Assembly:
    """Opens each feature that has settings; each takes a few lines here and lives in a package of its own."""

    def __init__(self, service: Service, config: EngineConfig) -> None:
        self._service = service
        self._config = config
        self._features = service.settings.features
        self._stack = AsyncExitStack()
        self._store: Store | None = None
        self._opening_store = asyncio.Lock()

    async def open(self) -> Models:
        """Open everything that has to be there before the first request. Return the models, still to be started.

        Raises whatever a feature has against its settings; what was opened until then is closed.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.close)
            self._open_telemetry()
            await self._open_gate()
            await self._open_ledger()
            self._open_safety()
            self._open_traffic()
            models = await self._open_models()
            stack.pop_all()
        return models

    async def close(self) -> None:
        """Close everything, the latest first. Harmless when repeated."""
        await self._stack.aclose()

    async def store(self) -> Store:
        """Return the database that all features share; the first who asks opens it. Raises StoreError."""
        async with self._opening_store:
            if self._store is None:
                from ..store import StoreSettings, open_store  # noqa: PLC0415

                self._store = await open_store(self._features.store or StoreSettings())
                self._stack.push_async_callback(self._store.close)
            return self._store

    def _open_telemetry(self) -> None:
        settings = self._features.telemetry
        if settings is None:
            return
        from ..telemetry.telemetry import open_telemetry  # noqa: PLC0415

        telemetry = self._service.stages.telemetry = open_telemetry(settings, self._service.metrics)
        if telemetry is not None:
            self._stack.push_async_callback(telemetry.close)

    async def _open_gate(self) -> None:
        settings = self._features.gateway
        if settings is None or not settings.enabled:
            return
        from ..gateway.assembly import open_gate  # noqa: PLC0415

        metrics = self._service.metrics
        gate = self._service.stages.gate = await open_gate(settings, self.store, Plugins.load(), metrics.registry)
        if gate is not None:
            self._stack.push_async_callback(gate.close)

    async def _open_ledger(self) -> None:
        settings = self._features.ledger
        if settings is None or not settings.enabled:
            return
        from ..ledger.assembly import open_ledger  # noqa: PLC0415

        ledger = self._service.stages.ledger = await open_ledger(settings, self.store, Plugins.load())
        if ledger is not None:
            ledger.show_in(self._service.metrics)
            self._stack.push_async_callback(ledger.close)

    def _open_safety(self) -> None:
        settings = self._features.safety
        if settings is None:
            return
        from ..safety.safety import open_safety  # noqa: PLC0415

        self._service.stages.filters = open_safety(settings, Plugins.load(), self._service.metrics.registry)

    def _open_traffic(self) -> None:
        settings = self._features.routing
        if settings is None:
            return
        from ..routing.assembly import open_traffic  # noqa: PLC0415

        traffic = self._service.stages.traffic = open_traffic(settings, self._service, Plugins.load())
        if traffic is not None:
            self._stack.push_async_callback(traffic.close)

    async def _open_models(self) -> Models:
        settings = self._features.fleet
        if settings is None or not settings.is_on:
            return Solo(self._service, self._config)
        return await self._open_fleet(settings)

    async def _open_fleet(self, settings: FleetSettings) -> Models:
        from ..fleet.assembly import open_fleet  # noqa: PLC0415

        keeps = self._store is not None or self._features.store is not None
        return await open_fleet(settings, self._service, self._config, await self.store() if keeps else None)


def feature_routes(features: Features) -> list[Any]:
    """Return the routes of the features that are on."""
    routes: list[Any] = []
    if features.gateway is not None and features.gateway.enabled:
        from ..gateway.admin_routes import ROUTES as KEY_ROUTES  # noqa: PLC0415

        routes += KEY_ROUTES
    if features.fleet is not None and features.fleet.is_on:
        from ..fleet.routes import ROUTES as FLEET_ROUTES  # noqa: PLC0415

        routes += FLEET_ROUTES
    if features.ledger is not None and features.ledger.enabled:
        from ..ledger.routes import ROUTES as USAGE_ROUTES  # noqa: PLC0415

        routes += USAGE_ROUTES
    if features.routing is not None and features.routing.is_on:
        from ..routing.routes import ROUTES as ROUTING_ROUTES  # noqa: PLC0415

        routes += ROUTING_ROUTES
    if features.safety is not None and features.safety.moderations:
        from ..safety.routes import ROUTES as SAFETY_ROUTES  # noqa: PLC0415

        routes += SAFETY_ROUTES
    return routes
