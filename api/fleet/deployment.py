"""Deployment: one version of a model in this server, from the wish to load it until its engine has ended."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from .leases import Leases
from .memory import Holder, Need
from .settings import ModelSettings
from .versions import Version

if TYPE_CHECKING:
    from ..engine import AsyncEngine
    from ..server.served import ServedModel

_NUMBERS = itertools.count(1)

Stage = Literal["hashing", "loading", "up", "draining", "failed", "gone"]


class Deployment:
    """What the fleet knows about it. Changed by the fleet alone."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.number = next(_NUMBERS)  # tells it from others of its name
        self.folder: Path | None = None
        self.contents = ""  # the hash of the folder
        self.version: Version | None = None  # once the folder is hashed
        self.need: Need | None = None  # what it holds of the budget
        self.stage: Stage = "hashing"
        self.is_leaving = False  # it is being unloaded
        self.reason = ""  # why it failed
        self.progress = 0.0  # of the hashing, 0 to 1
        self.asked = time.time()
        self.ready_since: float | None = None  # time.time()
        self.leases = Leases()
        self.engine: AsyncEngine | None = None
        self.served: ServedModel | None = None
        self.cancelled = threading.Event()  # for the thread that hashes
        self.ended = asyncio.Event()

    @property
    def name(self) -> str:
        """The model's name."""
        return self.settings.name

    @property
    def key(self) -> str:
        """name@version; the name alone until the version is known."""
        return self.name if self.version is None else self.version.key

    @property
    def state(self) -> str:
        """What it does, in one word: hashing, loading, ready, restarting, draining or failed."""
        if self.stage == "up" and self.engine is not None:
            return "failed" if self.engine.state == "stopped" else self.engine.state
        return self.stage

    @property
    def is_up(self) -> bool:
        """Whether it is there for new requests, as far as the fleet is concerned."""
        return self.stage == "up"

    @property
    def works(self) -> bool:
        """Whether it is up, and its engine has not been given up."""
        return self.is_up and self.state != "failed"

    @property
    def is_coming(self) -> bool:
        """Whether it is being loaded."""
        return self.stage in ("hashing", "loading")

    @property
    def is_there(self) -> bool:
        """Whether it takes memory, or will."""
        return self.stage not in ("failed", "gone")

    @property
    def why(self) -> str:
        """Why it does not answer."""
        if self.stage == "up" and self.engine is not None and self.engine.state == "stopped":
            return self.engine.failure
        return self.reason

    def holder(self, *, evictable: bool) -> Holder | None:
        """Return what it holds of the budget; None while that is not known."""
        if self.need is None or not self.is_there:
            return None
        idle = evictable and self.is_up and not self.settings.pinned and not self.leases.count
        return Holder(self.key, self.need, idle, self.leases.last_used)

    async def gone(self) -> None:
        """Wait for its end."""
        await self.ended.wait()

    def told(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return what an operator wants to know, as JSON."""
        told: dict[str, Any] = {
            "id": self.number,
            "key": self.key,
            "name": self.name,
            "version": None if self.version is None else self.version.digest,
            "contents": self.contents or None,
            "state": self.state,
            "reason": self.why or None,
            "names": list(names),
            "pinned": self.settings.pinned,
            "folder": None if self.folder is None else str(self.folder),
            "memory": self._memory(),
            "requests": self.leases.count,
            "idle_seconds": None if self.leases.count else round(time.monotonic() - self.leases.last_used, 1),
            "ready_since": self.ready_since,
        }
        if self.stage == "hashing":
            told["progress"] = round(self.progress, 3)
        if self.engine is not None and self.stage in ("up", "draining"):
            info = self.engine.info
            told["engine"] = {"backend": info.backend, "device": info.device, "dtype": info.dtype, **info.settings}
            told["restarts"] = self.engine.stats.num_restarts
        return told

    def _memory(self) -> dict[str, Any] | None:
        if self.need is None:
            return None
        need = {"weights": self.need.weights, "kv_cache": self.need.kv_cache, "total": self.need.total}
        return {**need, "estimated": not self.need.exact, "resident": self._resident()}

    def _resident(self) -> int | None:
        """Return the bytes of main memory that the engine's process has, its share of files included."""
        pid = None if self.engine is None else self.engine.pid
        try:
            return None if pid is None else int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            return None
