"""serve: the engine and the HTTP server from start to exit, signals and draining included."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn

from ...plugins.build import EngineConfig
from ..engine import AsyncEngine
from ..gateway.openness import check_openness
from .app import build_app
from .assembly import Assembly
from .connections import Connections
from .service import Service
from .settings import ServerSettings
from .solo import Models

OnStarted = Callable[[str, AsyncEngine], None]
OnFleet = Callable[[str, Service], None]

_LAST_WORDS = 5.0  # seconds for cut streams to get their error event out
EXIT_FORCED = 1

YOUNG_OBJECTS = 10_000
"""Made since the collector last looked, before it looks again. A request has some hundreds, and none in cycles."""


def serve(
    config: EngineConfig,
    settings: ServerSettings,
    *,
    on_started: OnStarted | None = None,
    on_fleet: OnFleet | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; return the process's exit code.

    The port is open at once: health/live answers while the engine starts, everything else is 503. `on_started` is
    called with the URL and the engine when requests are taken; where there are several models, `on_fleet` in its place,
    with the URL and the service. Raises OSError for an address that cannot be bound, EngineFailed for an engine that
    cannot start, TooOpen for an address that others reach without keys, and what a feature has against its settings.
    """
    check_openness(settings.host, settings.features.gateway)
    listener = bind(settings.host, settings.port)
    with contextlib.closing(listener), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_Run(config, settings, listener, on_started, on_fleet).run())


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address, and says so in its error when it cannot be."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL that reaches a socket from this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn without its own ideas about signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Run:
    """One run of the server."""

    def __init__(
        self,
        config: EngineConfig,
        settings: ServerSettings,
        listener: socket.socket,
        on_started: OnStarted | None,
        on_fleet: OnFleet | None,
    ) -> None:
        self._config = config
        self._settings = settings
        self._listener = listener
        self._on_started = on_started
        self._on_fleet = on_fleet
        self._service = Service(settings)
        self._stop = asyncio.Event()
        self._forced = asyncio.Event()

    async def run(self) -> int:
        """Start, serve, drain and stop."""
        self._listen_to_signals()
        assembly = Assembly(self._service, self._config)
        models = await assembly.open()
        try:
            return await self._serve(models)
        finally:
            await assembly.close()

    async def _serve(self, models: Models) -> int:
        server = _Server(_uvicorn_config(self._service, self._settings))
        serving = asyncio.create_task(server.serve(sockets=[self._listener]))
        serving.add_done_callback(lambda _: self._stop.set())
        try:
            if await self._start(models):
                self._started()
                await self._stop.wait()
                await self._drain(models)
        finally:
            await models.close()  # what is left in flight ends with an error event
            server.should_exit = True
            server.force_exit = self._forced.is_set()
            await serving
        return EXIT_FORCED if self._forced.is_set() else 0

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        """Not ready at once; a second signal waits for nobody."""
        if self._stop.is_set():
            self._forced.set()
        self._service.draining = True
        self._stop.set()

    def _started(self) -> None:
        gc.collect()
        gc.freeze()  # what start-up made stays: the collector need not look at it again and again
        gc.set_threshold(YOUNG_OBJECTS)
        url = url_of(self._listener)
        if self._service.fleet is not None and self._on_fleet is not None:
            self._on_fleet(url, self._service)
        elif self._on_started is not None:
            self._on_started(url, self._service.default.engine)

    async def _start(self, models: Models) -> bool:
        """Bring the models up; say whether that was done before a signal came."""
        starting = asyncio.create_task(models.start())
        await _first(starting, self._stop.wait())
        if not starting.cancelled():
            starting.result()
        return not starting.cancelled()

    async def _drain(self, models: Models) -> None:
        """Let what runs finish, within the timeout and unless a second signal comes."""
        self._service.draining = True
        await _first(models.drain(self._settings.drain_timeout), self._forced.wait())


async def _first(*waiting: Awaitable[object]) -> None:
    """Wait until one is done, and cancel the others."""
    tasks = [asyncio.ensure_future(one) for one in waiting]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)


def _uvicorn_config(service: Service, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(service),
        http=Connections(settings.limits, service.metrics.rejected),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_timeout,
        timeout_graceful_shutdown=int(_LAST_WORDS),
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415  (not on Windows)
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
