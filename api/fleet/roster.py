"""Roster: who is there, who answers to which name, and what an operator or a request means by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import NotReady, UnknownModel
from ..server.directory import NOBODY, Directory
from .deployment import Deployment
from .memory import Holder
from .names import Names
from .settings import FleetSettings, ModelSettings
from .versions import find_key

if TYPE_CHECKING:
    from ..server.served import ServedModel

OnChange = Callable[[Directory], None]

_MAX_FAILED = 16  # failed loads that the status still tells of


class Roster:
    """All deployments of a server, and the names that stand for them."""

    def __init__(self, settings: FleetSettings, on_change: OnChange) -> None:
        """`on_change` hears of each new directory."""
        self._settings = settings
        self._on_change = on_change
        self._deployments: list[Deployment] = []
        self.names = Names()
        self.directory: Directory = NOBODY
        self.is_starting = True  # until the models of the configuration are there, or have failed

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """All of them, the oldest first, those that load, drain and failed included."""
        return tuple(self._deployments)

    @property
    def default(self) -> str:
        """The name that stands for the model which answers where none is named; empty where there is no model."""
        first = self._settings.models[0].name if self._settings.models else ""
        return self._settings.default or first or next(iter(self.names.current), "")

    @property
    def state(self) -> str:
        """The state of all together: that of the best, and "starting" until those of the configuration are there.

        "stopped" is said of engines that were given up; where operators have left nothing to answer it is "empty".
        """
        if self.is_starting:
            return "starting"
        states = {each.state for each in self._deployments if each.is_up}
        best = next((state for state in ("ready", "restarting") if state in states), "")
        return best or ("stopped" if states else "empty")

    def states(self) -> dict[str, str]:
        """Return {name@version: state}, and "unloaded" for names whose version is not there."""
        found = {each.key: each.state for each in self._deployments if each.stage != "failed"}
        return found | {name: "unloaded" for name, key in self.names.current.items() if key not in found}

    def live(self, key: str) -> Deployment | None:
        """Return the deployment of name@version that takes requests."""
        return next((each for each in reversed(self._deployments) if each.is_up and each.key == key), None)

    def is_only(self, deployment: Deployment) -> bool:
        """Whether no other deployment of the same version takes requests."""
        return not any(
            each.is_up and each.key == deployment.key for each in self._deployments if each is not deployment
        )

    def find(self, name: str) -> ServedModel:
        """Return the model that answers to a name, maybe name@prefix. Raises NotReady and UnknownModel."""
        served = self.directory.get(name)
        if served is not None:
            return served
        fits = find_key(name, (each.key for each in self._deployments if each.is_up))
        if len(fits) > 1:
            raise UnknownModel(f"the model {name!r} may be any of {', '.join(fits)}: write more digits")
        if fits and (served := self.directory.get(fits[0])) is not None:
            return served
        self._explain(name or self.default)
        if not name:
            raise NotReady("unloaded", "there is no model to answer where none is named")
        known = ", ".join(self.directory.names) or "none"
        raise UnknownModel(f"the model {name!r} does not exist: this server serves {known}")

    def _explain(self, name: str) -> None:
        """Raise NotReady for a model that is known here and does not answer now."""
        key = self.names.get(name) or name
        for each in reversed(self._deployments):
            if key in (each.key, each.name) or (each.is_coming and name in each.settings.aliases):
                raise NotReady("loading" if each.is_coming else each.state, each.why or f"the model {each.key}")
        if self.is_starting:
            raise NotReady("starting")
        if name in self.names:
            raise NotReady("unloaded", f"the model {key}")

    def pick(self, name: str) -> Deployment:
        """Return the deployment that an operator means: by name, alias, name@version or name@prefix.

        Raises UnknownModel.
        """
        fits = find_key(name, (each.key for each in self._deployments))
        if len(fits) > 1:
            raise UnknownModel(f"{name!r} may be any of {', '.join(fits)}: write more digits")
        key = self.names.get(name) or (fits[0] if fits else name)
        found = [each for each in self._deployments if each.key == key]
        found = found or [each for each in self._deployments if each.name == name]
        if not found:
            there = ", ".join(each.key for each in self._deployments) or "none"
            raise UnknownModel(f"no model {name!r} is loaded here; there are: {there}")
        return next((each for each in found if each.is_up), found[-1])

    def add(self, settings: ModelSettings) -> Deployment:
        """Take a deployment on. Failed ones of that name are of no interest any more."""
        failed = [each for each in self._deployments if each.stage == "failed"]
        for each in failed:
            if each.name == settings.name or len(failed) > _MAX_FAILED:
                self.forget(each)
        deployment = Deployment(settings)
        self._deployments.append(deployment)
        return deployment

    def forget(self, deployment: Deployment) -> None:
        """It is no more."""
        deployment.stage, deployment.need = "gone", None
        deployment.ended.set()
        if deployment in self._deployments:
            self._deployments.remove(deployment)
        self.publish()

    def publish(self) -> None:
        """Make the directory anew from who is up and what names stand for."""
        up = {each.key: each.served for each in self._deployments if each.is_up and each.served is not None}
        by_name: dict[str, ServedModel] = {}
        for key, served in up.items():
            served.names = (key, *self.names.names_of(key))
            by_name |= dict.fromkeys(served.names, served)
        if self.default in by_name:
            by_name[""] = by_name[self.default]
        self.directory = Directory(by_name, tuple(up.values()))
        self._on_change(self.directory)

    def holders(self, but: Deployment) -> list[Holder]:
        """Return what all but one hold of the memory, and who of them may be made to go."""
        evict, default = self._settings.evict_idle, self.names.get(self.default)
        holders = [
            each.holder(evictable=evict and each.key != default) for each in self._deployments if each is not but
        ]
        return [holder for holder in holders if holder is not None]
