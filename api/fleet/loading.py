"""Loading one deployment: find its folder, hash it, see that it fits, start its engine, and see that it still fits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine import AsyncEngine
from ..errors import EngineFailed
from ..models import resolve_model
from .contents import Hasher, stamp
from .deployment import Deployment
from .errors import BadCommand
from .memory import Budget, Estimate, Holder, Need, estimate
from .settings import FleetSettings, ModelSettings
from .versions import Version

if TYPE_CHECKING:
    from ..engine import Limits

log = logging.getLogger("isotoken.fleet")

_TELL_EVERY_S = 5.0  # of a hash that takes long


class Loader:
    """Brings deployments up. What they may take is decided here, what they are called elsewhere."""

    def __init__(
        self,
        settings: FleetSettings,
        limits: Limits,
        hasher: Hasher,
        holders: Callable[[Deployment], Sequence[Holder]],
        evict: Callable[[str], Awaitable[None]],
    ) -> None:
        """`holders` tells what all but one deployment hold of the budget.

        `evict` lets go of one of them, at once, and is awaited for its end.
        """
        self._settings = settings
        self._limits = limits
        self._hasher = hasher
        self._holders = holders
        self._evict = evict
        self.budget = Budget(settings.memory)

    async def identify(self, deployment: Deployment, *, trusted: bool) -> str | None:
        """Find and hash the folder; return the draft model's folder, if any. `trusted`: the configuration names it.

        Raises ModelNotFound, CheckpointError, OSError and BadCommand.
        """
        settings = deployment.settings
        deployment.folder = await asyncio.to_thread(self._resolve, settings.source, trusted)
        draft = settings.draft_model
        draft_folder = None if draft is None else str(await asyncio.to_thread(self._resolve, draft, trusted))
        deployment.contents = await self._hash(deployment, deployment.folder)
        deployment.version = Version.of(settings, deployment.contents)
        return draft_folder

    async def start(self, deployment: Deployment, draft_folder: str | None) -> AsyncEngine:
        """Start the engine of a deployment that was identified.

        Raises DoesNotFit before and after, and what AsyncEngine.start raises. An engine that is not returned has ended.
        """
        assert deployment.folder is not None
        deployment.stage = "loading"
        before = await asyncio.to_thread(stamp, deployment.folder)
        draft = None if draft_folder is None else Path(draft_folder)
        found = await asyncio.to_thread(estimate, deployment.folder, deployment.settings, draft)
        await self._reserve(deployment, found.need)
        engine = await self._start(deployment, found, draft_folder)
        try:
            info = engine.info
            await self._reserve(deployment, Need(info.weight_bytes, info.kv_cache_bytes, exact=True))
            if await asyncio.to_thread(stamp, deployment.folder) != before:
                raise EngineFailed(f"the files in {deployment.folder} changed while they were loaded")
        except BaseException:
            await engine.stop()
            raise
        return engine

    async def _start(self, deployment: Deployment, found: Estimate, draft_folder: str | None) -> AsyncEngine:
        config = deployment.settings.config(str(deployment.folder), draft_folder, found.num_blocks)
        return await AsyncEngine.start(config, self._limits)

    async def _reserve(self, deployment: Deployment, need: Need) -> None:
        """Hold memory for it, making room where that is allowed. Raises DoesNotFit."""
        leaving = self.budget.make_room(deployment.key, need, self._holders(deployment))
        if leaving:
            log.warning("%s: unloaded to make room for %s", ", ".join(leaving), deployment.key)
        ends = [self._evict(key) for key in leaving]
        deployment.need = need  # before anything is awaited: another load counts with it
        await asyncio.gather(*ends)

    def _resolve(self, source: str, trusted: bool) -> Path:
        """Return a model's folder. Raises ModelNotFound, and BadCommand for what the admin API may not load."""
        folder = resolve_model(source, download=trusted or self._settings.download)
        allowed = [Path(each).expanduser().resolve() for each in self._settings.folders]
        if not trusted and allowed and not any(folder.resolve().is_relative_to(each) for each in allowed):
            raise BadCommand(f"{source!r} is in none of the folders that the admin API may load from")
        return folder

    async def _hash(self, deployment: Deployment, folder: Path) -> str:
        """Hash the folder in a thread, telling now and then how far it is."""
        told = time.monotonic()

        def on_progress(done: int, total: int) -> None:
            nonlocal told
            deployment.progress = done / max(1, total)
            if time.monotonic() - told >= _TELL_EVERY_S:
                told = time.monotonic()
                log.info("hashing %s: %.0f %% of %.1f GB", deployment.name, 100 * deployment.progress, total / 1e9)

        try:
            return await asyncio.to_thread(self._hasher.hash, folder, on_progress, deployment.cancelled)
        except asyncio.CancelledError:
            deployment.cancelled.set()
            raise


def same_engine(one: ModelSettings, other: ModelSettings) -> bool:
    """Whether two settings of one version ask for the same engine."""
    exclude = {"name", "model", "aliases", "pinned", "optional"}
    return one.model_dump(exclude=exclude) == other.model_dump(exclude=exclude)
