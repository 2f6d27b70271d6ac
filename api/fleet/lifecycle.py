"""Lifecycle: deployments come up, take names over, and go when their last request has been answered.

Everything happens in the event loop. What requests see changes in one assignment, that of the roster's directory: a
request gets a model from it, holds a lease on that model until its answer is out, and never meets another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .contents import Hasher
from .deployment import Deployment
from .errors import FleetError
from .journal import Journal, Known
from .loading import Loader, same_engine
from .names import Move
from .roster import OnChange, Roster
from .settings import FleetSettings, ModelSettings

if TYPE_CHECKING:
    from ..engine import AsyncEngine, Limits
    from ..server.served import ServedModel

log = logging.getLogger("isotoken.fleet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the fleet needs of the server around it."""

    limits: Limits
    make_served: Callable[[Deployment, AsyncEngine], ServedModel]  # put an engine behind the routes
    on_change: OnChange  # hears of each new directory
    on_gone: Callable[[AsyncEngine], None]  # hears of each engine that has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to become of a deployment."""

    activate: bool = False  # once it is up, its name and aliases stand for it
    moves: tuple[Move, ...] = ()  # likewise, these are made
    expected: str = ""  # the version that its folder has to hold
    trusted: bool = False  # the configuration or the past asks for it, no stranger


class Lifecycle:
    """Brings deployments up and lets them go."""

    def __init__(self, settings: FleetSettings, server: Server, journal: Journal, hasher: Hasher) -> None:
        self.settings = settings
        self.roster = Roster(settings, server.on_change)
        self.journal = journal
        self.known: dict[str, Known] = {}  # every version that can be loaded again, by key
        self.loader = Loader(settings, server.limits, hasher, self.roster.holders, self._evict)
        self._server = server
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loads: dict[Deployment, asyncio.Task[Deployment]] = {}

    # --- up ---------------------------------------------------------------------------------------

    def begin(self, settings: ModelSettings, wish: Wish) -> Deployment:
        """Begin to load a model, and return at once. Raises FleetError where that cannot be."""
        there = [each for each in self.roster.deployments if each.is_there]
        if any(each.is_coming and each.name == settings.name for each in there):
            raise FleetError(f"a version of {settings.name} is being loaded already")
        if len(there) >= self.settings.max_models:
            raise FleetError(f"max_models = {self.settings.max_models} are there already: unload one first")
        deployment = self.roster.add(settings)
        self._loads[deployment] = self._spawn(self._load(deployment, wish))
        return deployment

    async def loaded(self, deployment: Deployment) -> Deployment:
        """Wait for a load, and return who is there then: maybe one that was there before. Raises why it failed."""
        task = self._loads.get(deployment)
        return deployment if task is None else await asyncio.shield(task)

    def call_off(self, deployment: Deployment) -> bool:
        """Let go of one that loads; say whether it did."""
        task = self._loads.get(deployment)
        return task is not None and task.cancel()

    async def start(self, deployment: Deployment, draft_folder: str | None) -> None:
        """Start the engine of a deployment that was identified, and put it behind the routes. Raises why it cannot."""
        engine = await self.loader.start(deployment, draft_folder)
        try:
            deployment.served = self._server.make_served(deployment, engine)
        except BaseException:
            await engine.stop()
            raise
        deployment.engine, deployment.stage, deployment.ready_since = engine, "up", time.time()
        self._remember(deployment)
        self.roster.publish()

    def failed(self, deployment: Deployment, error: BaseException) -> None:
        """Keep why a deployment could not be brought up, for the status to tell; forget one that was called off."""
        if deployment.stage == "gone" or isinstance(error, asyncio.CancelledError):
            self.roster.forget(deployment)
            return
        deployment.stage, deployment.need = "failed", None
        deployment.reason = str(error) or type(error).__name__
        log.error("%s could not be loaded: %s", deployment.key, deployment.reason)

    async def _load(self, loading: Deployment, wish: Wish) -> Deployment:
        try:
            deployment = await self._identify_and_start(loading, wish)
        except BaseException as error:
            self.failed(loading, error)
            raise
        finally:
            del self._loads[loading]
        moves = list(wish.moves)
        if wish.activate:
            names = (deployment.name, *loading.settings.aliases)
            moves += [
                Move(each, "set", deployment.key) for each in names if self.roster.names.get(each) != deployment.key
            ]
        self.move(moves)
        return deployment

    async def _identify_and_start(self, deployment: Deployment, wish: Wish) -> Deployment:
        draft_folder = await self.loader.identify(deployment, trusted=wish.trusted)
        if wish.expected not in ("", deployment.key):
            raise gone(wish.expected, deployment)
        present = self.roster.live(deployment.key)
        if present is not None and present.works and same_engine(present.settings, deployment.settings):
            self.roster.forget(deployment)
            present.settings = deployment.settings
            return present
        await self.start(deployment, draft_folder)
        if present is not None:  # the same version, run in another way or given up
            self.retire(present, self.settings.drain_timeout)
        return deployment

    def _remember(self, deployment: Deployment) -> None:
        """Keep how to load this version again: from its folder, for the id of a hub may come to mean another."""
        assert deployment.version is not None
        settings = deployment.settings.model_copy(update={"model": str(deployment.folder), "aliases": []})
        digest, contents = deployment.version.digest, deployment.contents
        known = Known(key=deployment.key, digest=digest, contents=contents, settings=settings)
        self.known[known.key] = known
        self.journal.record(version=known)

    # --- names ------------------------------------------------------------------------------------

    def move(self, moves: Sequence[Move]) -> None:
        """Change what names stand for, all at once; versions that lost their last name are let go."""
        before = set(self.roster.names.current.values())
        self.roster.names.apply(moves)
        self.journal.record(moves)
        self.roster.publish()
        if self.settings.keep_previous:
            return
        for key in before - set(self.roster.names.current.values()):
            deployment = self.roster.live(key)
            if deployment is not None:
                self.retire(deployment, self.settings.drain_timeout)

    # --- gone -------------------------------------------------------------------------------------

    def retire(self, deployment: Deployment, timeout: float | None) -> None:
        """Send it no more requests, and end it after the last, or after `timeout` seconds."""
        if not deployment.is_leaving:
            deployment.stage, deployment.is_leaving = "draining", True
            self.roster.publish()
            self._spawn(self._end(deployment, timeout))

    async def drain_all(self, timeout: float) -> None:
        """Let all models finish what they have in hand, at most so many seconds."""
        self._cancel_loads()
        await asyncio.gather(*(each.engine.drain(timeout) for each in self.roster.deployments if each.engine))

    async def close(self) -> None:
        """End everything, at once."""
        self._cancel_loads()
        await asyncio.gather(*(each.engine.stop() for each in self.roster.deployments if each.engine))
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.journal.close()

    async def _end(self, deployment: Deployment, timeout: float | None) -> None:
        if not await deployment.leases.idle(timeout):
            log.warning("%s is unloaded with %d requests in hand", deployment.key, deployment.leases.count)
        if deployment.engine is not None:
            await deployment.engine.stop("the model was unloaded")
            self._server.on_gone(deployment.engine)
        log.info("%s is unloaded", deployment.key)
        self.roster.forget(deployment)

    def _evict(self, key: str) -> Awaitable[None]:
        """Let go of an idle deployment at once. Its names stay: requests for them are told that it is unloaded."""
        deployment = self.roster.live(key)
        assert deployment is not None
        self.retire(deployment, 0.0)
        return deployment.gone()

    def _cancel_loads(self) -> None:
        for task in self._loads.values():
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_look)
        return task


def gone(key: str, deployment: Deployment) -> FleetError:
    """Return the error of a version whose folder holds another by now."""
    return FleetError(f"{key} cannot be had any more: {deployment.folder} holds {deployment.key} now")


def _look(task: asyncio.Task[Any]) -> None:
    """Nobody may wait for it: what it failed with is told by the deployment's state."""
    if not task.cancelled():
        task.exception()
