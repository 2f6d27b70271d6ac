"""open_fleet: the fleet of a server, with what it needs of the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine import AsyncEngine
from ..server.served import ServedModel, default_name
from ..server.service import Service
from .contents import Hasher
from .deployment import Deployment
from .fleet import Fleet
from .journal import Journal, StoreJournal
from .lifecycle import Lifecycle, Server
from .settings import FleetSettings, ModelSettings, of_config
from .startup import start_fleet

if TYPE_CHECKING:
    from ...plugins.build import EngineConfig
    from ..store.database import Store


class FleetModels:
    """A fleet as the server's run sees it."""

    def __init__(self, lifecycle: Lifecycle, models: Sequence[ModelSettings]) -> None:
        self._lifecycle = lifecycle
        self._models = models

    async def start(self) -> None:
        """Load what the configuration asks for. Raises why the first model failed that is not optional."""
        await start_fleet(self._lifecycle, self._models)

    async def drain(self, timeout: float) -> None:
        """Let what runs finish, within so many seconds."""
        await self._lifecycle.drain_all(timeout)

    async def close(self) -> None:
        """End all models."""
        await self._lifecycle.close()


async def open_fleet(
    settings: FleetSettings, service: Service, config: EngineConfig, store: Store | None
) -> FleetModels:
    """Return the fleet, nothing loaded yet. Without a store it forgets what operators did when it ends."""
    models = [_completed(model, service) for model in settings.models or [_of_server(service, config)]]
    journal = Journal() if store is None else StoreJournal(store, settings.group)
    server = Server(
        limits=service.settings.limits,
        make_served=lambda deployment, engine: _served(deployment, engine, service),
        on_change=service.show,
        on_gone=service.metrics.detach,
    )
    settings = settings.model_copy(update={"models": models})
    fleet = Fleet(settings, server, journal=journal, hasher=Hasher(_hashes()))
    service.fleet = fleet
    return FleetModels(fleet.lifecycle, models)


def _served(deployment: Deployment, engine: AsyncEngine, service: Service) -> ServedModel:
    """Put an engine behind the routes. Raises ParameterError for a chat template that is no valid one."""
    assert deployment.version is not None
    settings = replace(
        service.settings,
        chat_template=deployment.settings.chat_template,
        generation_config=deployment.settings.generation_config or service.settings.generation_config,
    )
    served = ServedModel(engine, settings, family=deployment.name, version=deployment.version.digest)
    served.names = (deployment.key,)
    served.leases = deployment.leases
    service.metrics.attach(engine, deployment.name)
    return served


def _completed(model: ModelSettings, service: Service) -> ModelSettings:
    """Let the server's chat template stand in where a model has none of its own: it belongs to the version."""
    template = model.chat_template or service.settings.chat_template
    return model.model_copy(update={"chat_template": template})


def _of_server(service: Service, config: EngineConfig) -> ModelSettings:
    """Return the command line's model as one of a fleet."""
    names = service.settings.served_model_names or (default_name(Path(config.model)),)
    return of_config(names[0], config).model_copy(update={"aliases": list(names[1:])})


def _hashes() -> Path:
    """Return where hashes of model files are remembered."""
    from ..store.settings import data_folder  # noqa: PLC0415

    return data_folder() / "hashes.json"
