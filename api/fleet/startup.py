"""Start-up of a fleet: the models of the configuration, and what operators made of them before the last restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

from .deployment import Deployment
from .lifecycle import Lifecycle, gone
from .names import configured
from .settings import ModelSettings

log = logging.getLogger("isotoken.fleet")


async def start_fleet(lifecycle: Lifecycle, models: Sequence[ModelSettings]) -> None:
    """Load what the configuration and the journal ask for; each model answers as soon as it is there.

    Names stand for what the configuration says, unless an operator has changed them since it began to say so. Raises
    why the first model failed that is not optional.
    """
    recorded = await lifecycle.journal.read()
    lifecycle.known.update(recorded.versions)
    lifecycle.roster.names.apply(recorded.moves)
    starting = _Starting(lifecycle)
    await starting.identify(models)
    await starting.start(starting.wanted(models))
    lifecycle.roster.is_starting = False
    lifecycle.roster.publish()


class _Starting:
    """What is known while it goes on."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._turns = asyncio.Semaphore(lifecycle.settings.parallel_loads)
        self._found: dict[Deployment, str | None] = {}  # with the folder of its draft model
        self._expected: dict[Deployment, str] = {}  # the version that a journal's folder has to hold

    async def identify(self, models: Sequence[ModelSettings]) -> None:
        """Find out which versions the configuration's models are."""
        deployments = [self._lifecycle.roster.add(settings) for settings in models]
        await _together(self._attempt(each, self._identify(each)) for each in deployments)

    def wanted(self, models: Sequence[ModelSettings]) -> list[Deployment]:
        """Settle what names stand for, and return what has to be loaded for that."""
        roster = self._lifecycle.roster
        names = roster.names
        by_model = {each.settings.name: each for each in self._found}
        wanted = {}
        for settings in models:
            for name in (settings.name, *settings.aliases):
                found = by_model.get(settings.name)
                key = names.declared.get(name) if found is None else found.key  # failed: as it was declared before
                if key is not None:
                    wanted[name] = key
        moves = configured(names, wanted)
        names.apply(moves)
        self._lifecycle.journal.record(moves)
        keys = dict.fromkeys(names.current.values())
        for deployment in [each for each in self._found if each.key not in keys]:
            log.info("%s is configured, but its names stand for other versions", deployment.key)
            roster.forget(deployment)
            del self._found[deployment]
        present = {each.key for each in self._found}
        return [*self._found, *(each for key in keys if key not in present and (each := self._again(key)))]

    async def start(self, deployments: Sequence[Deployment]) -> None:
        """Start engines, so many at a time."""
        await _together(self._attempt(each, self._start(each)) for each in deployments)

    def _again(self, key: str) -> Deployment | None:
        """Return a deployment for a version that an operator let a name stand for."""
        known = self._lifecycle.known.get(key)
        if known is None:
            log.error("%s is not known here any more: names that stand for it do not answer", key)
            return None
        deployment = self._lifecycle.roster.add(known.settings.model_copy(update={"optional": True}))
        self._expected[deployment] = key
        return deployment

    async def _identify(self, deployment: Deployment) -> None:
        self._found[deployment] = await self._lifecycle.loader.identify(deployment, trusted=True)

    async def _start(self, deployment: Deployment) -> None:
        async with self._turns:
            if deployment not in self._found:
                await self._identify(deployment)
            expected = self._expected.get(deployment, deployment.key)
            if deployment.key != expected:
                raise gone(expected, deployment)
            await self._lifecycle.start(deployment, self._found[deployment])

    async def _attempt(self, deployment: Deployment, work: Coroutine[Any, Any, None]) -> None:
        """Do it; an optional model may fail."""
        try:
            await work
        except Exception as error:
            self._lifecycle.failed(deployment, error)
            if not deployment.settings.optional:
                raise


async def _together(work: Any) -> None:
    """Run coroutines at the same time; the first that fails ends them all, and is what is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
