"""A plugin that does damage by a plan: in which life of the engine, at which step or allocation, what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from isotoken.backends.reference.backend import ReferenceBackend
from isotoken.core.kv_cache import PagedKVCache
from isotoken.plugins.hookspecs import Register, hookimpl

ISOTOKEN_API = "1.3"


class Plan:
    """What is to go wrong in this life of the engine: {"forward": {step: kind}, "allocate": {call: kind}}."""

    def __init__(self) -> None:
        self.folder = Path(os.environ["CHAOS_DIR"])
        lives = json.loads((self.folder / "plan.json").read_text())
        with (self.folder / "lives").open("a") as file:
            file.write("x")
        life = (self.folder / "lives").stat().st_size - 1
        self._faults = lives[life] if life < len(lives) else {}
        self._counts: dict[str, int] = {}

    def fault(self, where: str) -> str:
        """Count a call, and return what is to go wrong in it."""
        count = self._counts[where] = self._counts.get(where, 0) + 1
        kind = str(self._faults.get(where, {}).get(str(count), ""))
        if kind:
            with (self.folder / "done").open("a") as file:
                file.write(f"{kind}\n")
        return kind


@cache
def plan() -> Plan:
    return Plan()


class ChaoticRunner:
    """The reference backend's runner, until its step has come."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.info = runner.info
        self.sampler = runner.sampler

    def forward(self, batch: Any) -> Any:
        kind = plan().fault("forward")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            time.sleep(3600)
        if kind == "raise":
            self._runner.forward(batch)  # half of the work is done
            raise RuntimeError("the device hiccuped")
        if kind == "memory":
            raise MemoryError("no memory for the activations")
        logits = self._runner.forward(batch)
        if kind == "nan":
            logits = np.array(logits)
            logits[-1] = np.nan
        return logits

    def close(self) -> None:
        self._runner.close()


class ChaoticBackend(ReferenceBackend):
    name = "chaotic"

    def load(self, checkpoint: Any, config: Any) -> Any:
        return ChaoticRunner(super().load(checkpoint, config))


class ChaoticCache(PagedKVCache):
    """Runs out of memory, not of blocks, when its call has come."""

    def allocate(self, request: Any, num_tokens: int) -> bool:
        if plan().fault("allocate") == "memory":
            raise MemoryError("no memory for the tables")
        return super().allocate(request, num_tokens)


@hookimpl
def register_backends(register: Register) -> None:
    register("chaotic", ChaoticBackend, description="the reference backend, damaged by a plan")


@hookimpl
def register_kv_caches(register: Register) -> None:
    register("chaotic", ChaoticCache, description="the paged cache, damaged by a plan")
