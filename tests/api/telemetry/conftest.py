"""The server's own fixtures, and an application in this process whose telemetry the tests can look into."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from isotoken.api.engine import AsyncEngine
from isotoken.api.server import ServerSettings
from isotoken.api.server.app import build_app
from isotoken.api.server.service import Service
from isotoken.api.server.stages import Stages
from isotoken.api.telemetry.telemetry import Telemetry
from isotoken.plugins.build import EngineConfig

from ..server.conftest import serve_tiny, server, tiny_model  # noqa: F401  (fixtures)

Body = Callable[[httpx.AsyncClient, Service], Awaitable[None]]


@pytest.fixture
def with_app(tiny_model: Path) -> Callable[..., None]:  # noqa: F811
    """Runs a coroutine function with a client of an application, over a real engine, that has this telemetry."""

    def run(body: Body, telemetry: Telemetry | None, **more: Any) -> None:
        async def main() -> None:
            config = EngineConfig(**{"model": str(tiny_model), "backend": "reference", "num_blocks": 256, **more})
            engine = await AsyncEngine.start(config)
            service = Service(ServerSettings(), engine, Stages(telemetry=telemetry))
            transport = httpx.ASGITransport(build_app(service))  # type: ignore[arg-type]
            try:
                async with httpx.AsyncClient(transport=transport, base_url="http://here", timeout=60) as client:
                    await body(client, service)
            finally:
                await engine.stop()
                if telemetry is not None:
                    await telemetry.close()

        asyncio.run(main())

    return run
