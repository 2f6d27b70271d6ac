"""The one model of a server that was started with one: started, drained and stopped."""

from __future__ import annotations

from typing import Protocol

from ...plugins.build import EngineConfig
from ..engine import AsyncEngine
from .service import Service


class Models(Protocol):
    """The models behind a service."""

    async def start(self) -> None:
        """Bring them up; the service gets each as it is there. Raises why they cannot. May be cancelled."""
        ...

    async def drain(self, timeout: float) -> None:
        """Let what runs finish, within so many seconds."""
        ...

    async def close(self) -> None:
        """End them. What is still in flight ends with an error event. Harmless when they never came up."""
        ...


class Solo:
    """One model."""

    def __init__(self, service: Service, config: EngineConfig) -> None:
        self._service = service
        self._config = config
        self._engine: AsyncEngine | None = None

    async def start(self) -> None:
        """Bring it up. Raises EngineFailed, CheckpointError, and ParameterError for a chat template."""
        self._engine = await AsyncEngine.start(self._config, self._service.settings.limits)
        self._service.attach(self._engine)

    async def drain(self, timeout: float) -> None:
        """Let what runs finish, within so many seconds."""
        if self._engine is not None:
            await self._engine.drain(timeout)

    async def close(self) -> None:
        """End it."""
        if self._engine is not None:
            await self._engine.stop()
