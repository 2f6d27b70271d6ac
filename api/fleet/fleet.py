"""Fleet: what operators can have done with the models of a server while requests run."""

from __future__ import annotations

from ..errors import UnknownModel
from .contents import Hasher
from .deployment import Deployment
from .errors import FleetError
from .journal import Journal
from .lifecycle import Lifecycle, Server, Wish
from .names import Move
from .settings import FleetSettings, ModelSettings
from .versions import find_key, split_key


class Fleet:
    """Checks commands, and has them carried out."""

    def __init__(
        self, settings: FleetSettings, server: Server, *, journal: Journal | None = None, hasher: Hasher | None = None
    ) -> None:
        self.settings = settings
        self.lifecycle = Lifecycle(settings, server, journal or Journal(), hasher or Hasher())
        self.roster = self.lifecycle.roster

    def begin_load(self, settings: ModelSettings, *, activate: bool = True, trusted: bool = False) -> Deployment:
        """Begin to load a model, and return at once; the deployment tells how it goes. What was there serves on.

        `activate`: its names then stand for this version. `trusted`: the configuration asks for it, no stranger.
        Raises FleetError where that cannot be.
        """
        return self.lifecycle.begin(settings, Wish(activate=activate, trusted=trusted))

    async def load(self, settings: ModelSettings, *, activate: bool = True) -> Deployment:
        """Load a model and wait for it. Raises why it failed."""
        return await self.lifecycle.loaded(self.begin_load(settings, activate=activate, trusted=True))

    def unload(self, name: str, *, timeout: float | None = None, force: bool = False) -> Deployment:
        """Let a model go: no new requests, an end after the last, or after `timeout` seconds, which cuts what is left.

        Raises UnknownModel, and FleetError while other names stand for it, unless `force` takes them away.
        """
        deployment = self.roster.pick(name)
        names = self._names_that_go(deployment)
        if not force and any(each != deployment.name for each in names):
            raise FleetError(
                f"{deployment.key} has the names {', '.join(names)}: let them stand for another version first, or "
                "unload it with force, which removes them"
            )
        if deployment.stage == "failed":
            self.roster.forget(deployment)
        elif not self.lifecycle.call_off(deployment):
            self.lifecycle.retire(deployment, self.settings.drain_timeout if timeout is None else timeout)
            self.lifecycle.move([Move(each, "remove") for each in names])
        return deployment

    def drain(self, name: str) -> Deployment:
        """Send a model no new requests; it stays loaded. Raises UnknownModel and FleetError."""
        deployment = self.roster.pick(name)
        if not deployment.is_up:
            raise FleetError(f"{deployment.key} takes no requests: it is {deployment.state}")
        deployment.stage = "draining"
        self.roster.publish()
        return deployment

    def resume(self, name: str) -> Deployment:
        """Send requests again to a model that drains and is not being unloaded. Raises UnknownModel and FleetError."""
        deployment = self.roster.pick(name)
        if deployment.stage != "draining" or deployment.is_leaving:
            raise FleetError(f"{deployment.key} cannot be resumed: it is {deployment.state}")
        deployment.stage = "up"
        self.roster.publish()
        return deployment

    def set_alias(self, alias: str, target: str) -> Deployment:
        """Let an alias stand for a version; one that was here before is loaded first, which the result tells.

        Raises UnknownModel and FleetError.
        """
        key = self._key_of(target)
        if alias != split_key(key)[0] and self._is_own_name(alias):
            raise FleetError(f"{alias} is a model's own name: it stands for versions of that model only")
        return self._point(Move(alias, "set", key))

    def remove_alias(self, alias: str) -> None:
        """Let an alias stand for nothing. Raises UnknownModel, and FleetError for a model's own name."""
        if alias not in self.roster.names:
            raise UnknownModel(f"there is no alias {alias!r}")
        if self._is_own_name(alias):
            raise FleetError(f"{alias} is a model's own name: unload the model to be rid of it")
        self.lifecycle.move([Move(alias, "remove")])

    def rollback(self, name: str) -> Deployment:
        """Let a name stand for what it stood for before; that is loaded first where it is not there any more.

        Raises UnknownModel, and FleetError where there was nothing before.
        """
        if name not in self.roster.names:
            raise UnknownModel(f"there is no name or alias {name!r}")
        key = self.roster.names.previous(name)
        if key is None:
            raise FleetError(f"{name} has stood for {self.roster.names.get(name)} only: there is nothing to go back to")
        return self._point(Move(name, "rollback", key))

    def _point(self, move: Move) -> Deployment:
        """Make a move at once where its version is there, else once that is loaded."""
        deployment = self.roster.live(move.key)
        if deployment is not None and deployment.works:
            self.lifecycle.move([move])
            return deployment
        known = self.lifecycle.known.get(move.key)
        if known is None:
            raise UnknownModel(f"{move.key} is not loaded, and not known here from before: load it first")
        return self.lifecycle.begin(known.settings, Wish(moves=(move,), expected=move.key, trusted=True))

    def _key_of(self, target: str) -> str:
        """Return the version that a target means: of those that are up, and those that were here."""
        key = self.roster.names.get(target) or target
        up = [each.key for each in self.roster.deployments if each.is_up]
        fits = find_key(key, [*up, *self.lifecycle.known])
        if len(fits) > 1:
            raise UnknownModel(f"{target!r} may be any of {', '.join(fits)}: write more digits")
        if not fits:
            raise UnknownModel(f"there is no model {target!r}: write name@version")
        return fits[0]

    def _is_own_name(self, name: str) -> bool:
        return any(each.name == name for each in self.roster.deployments)

    def _names_that_go(self, deployment: Deployment) -> tuple[str, ...]:
        """Return the names that nobody would answer to without a deployment."""
        there = deployment.stage in ("up", "draining") and not deployment.is_leaving
        return self.roster.names.names_of(deployment.key) if there and self.roster.is_only(deployment) else ()
