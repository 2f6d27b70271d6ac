"""Find plugins through entry points, register what they provide by name, and remember what failed and why."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from . import hookspecs
from .api_version import misfit, stated_in_source
from .hookspecs import PROJECT

Factory = Callable[..., Any]


class PluginError(Exception):
    """A plugin cannot be used. The message says which, why and what to do."""


class UnknownName(PluginError, KeyError):
    """No plugin provides this name."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


@dataclass(frozen=True, slots=True)
class Provider:
    """One claim to a name."""

    factory: Factory
    plugin: str
    distribution: str
    description: str


@dataclass(slots=True)
class PluginInfo:
    """What `isotoken plugins` shows of one plugin."""

    name: str
    distribution: str
    version: str
    provides: list[str] = field(default_factory=list)  # such as "backend torch"
    hooks: list[str] = field(default_factory=list)
    api: str = ""  # the plugin API that it states
    deprecations: list[str] = field(default_factory=list)  # what it uses that a later major version will not have
    error: str | None = None  # one line
    traceback: str | None = None


class Registry(Mapping[str, Provider]):
    """Names of one kind and who provides them."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._claims: dict[str, list[Provider]] = {}
        self._infos: list[PluginInfo] = []

    def claim(self, name: str, provider: Provider) -> None:
        """Add a claim; a name with two owners is refused when it is used."""
        self._claims.setdefault(name, []).append(provider)

    def get_factory(self, name: str) -> Factory:
        """Return the factory behind a name. Raises PluginError for unknown, failed and contested names."""
        return self[name].factory

    def __getitem__(self, name: str) -> Provider:
        claims = self._claims.get(name)
        if claims is None:
            raise UnknownName(self._unknown(name))
        if len(claims) > 1:
            owners = " and ".join(f"{c.distribution} (plugin {c.plugin})" for c in claims)
            raise PluginError(f"{self.noun} {name!r} is claimed by {owners}: uninstall one of them")
        return claims[0]

    def __contains__(self, name: object) -> bool:
        return name in self._claims

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._claims))

    def __len__(self) -> int:
        return len(self._claims)

    def conflicts(self) -> dict[str, list[Provider]]:
        """Names that more than one plugin claims."""
        return {name: claims for name, claims in self._claims.items() if len(claims) > 1}

    @property
    def noun(self) -> str:
        """One of the kind, in words."""
        return self.kind.removesuffix("s").replace("_", " ")

    def _unknown(self, name: str) -> str:
        failed = [info for info in self._infos if info.error]
        if meant := [info for info in failed if name in info.name]:
            message = f"no {self.noun} {name!r}"
        else:
            message = f"unknown {self.noun} {name!r}; installed: {', '.join(self) or 'none'}"
            if close := difflib.get_close_matches(name, self._claims, n=1):
                message += f"; did you mean {close[0]!r}?"
        for info in meant or failed:
            message += f"; plugin {info.name!r} of {info.distribution} failed to load: {info.error}"
        return message + ("; `isotoken plugins --verbose` shows the traceback" if failed else "")


class Plugins:
    """The plugins of this environment and what they provide."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self.infos: list[PluginInfo] = []
        self.backends, self.schedulers, self.kv_caches = map(Registry, ("backends", "schedulers", "kv_caches"))
        self.samplers, self.drafters, self.exporters = map(Registry, ("samplers", "drafters", "exporters"))
        self.quantizations, self.grammars = map(Registry, ("quantizations", "grammars"))
        self.filters, self.classifiers = map(Registry, ("filters", "classifiers"))
        self.authenticators, self.limiters, self.ledgers = map(Registry, ("authenticators", "limiters", "ledgers"))
        self.routers = Registry("routers")

    @classmethod
    def load(cls, extra: Iterable[tuple[str, object]] = ()) -> Plugins:
        """Load every plugin of the entry-point group "isotoken", then the given (name, module or object) pairs.

        A plugin that fails to import, misspells a hook or needs another plugin API (api_version.py) is remembered with
        its traceback, never dropped in silence, and does not keep the others from loading.
        """
        plugins = cls()
        for entry in sorted(entry_points(group=PROJECT), key=lambda e: e.name):
            plugins._add(entry.name, *_origin(entry), partial(_import, entry))
        for name, plugin in extra:
            plugins._add(name, "(given in code)", "", partial(_identity, plugin))
        return plugins

    @property
    def hook(self) -> Any:
        """Call a hook on every plugin: `plugins.hook.on_step(stats=...)`."""
        return self._manager.hook

    def routes(self, enabled: Iterable[str]) -> list[Any]:
        """HTTP route handlers of the plugins enabled by name. Raises PluginError for a name that is not installed."""
        handlers: list[Any] = []
        for name in enabled:
            if self._manager.get_plugin(name) is None:
                raise PluginError(f"cannot enable the routes of plugin {name!r}: it is not installed or failed to load")
            for result in self._only(name, "api_routes")():
                handlers += result
        return handlers

    def registries(self) -> list[Registry]:
        """All of them: `registry.kind` is the attribute's name, register_KIND the hook's."""
        return [
            *(self.backends, self.schedulers, self.kv_caches, self.samplers),
            *(self.drafters, self.exporters, self.quantizations, self.grammars),
            *(self.filters, self.classifiers, self.authenticators, self.limiters, self.ledgers, self.routers),
        ]

    def _add(self, name: str, distribution: str, version: str, load: Callable[[], object]) -> None:
        info = PluginInfo(name, distribution, version)
        self.infos.append(info)
        claims: list[tuple[Registry, str, Provider]] = []
        try:
            plugin = load()
            if (reason := misfit(name, distribution, stated := getattr(plugin, "ISOTOKEN_API", None))) is not None:
                raise PluginError(reason)
            info.api = str(stated)
            self._manager.register(plugin, name)
            self._check_hooks(plugin)
            callers = self._manager.get_hookcallers(plugin) or []
            info.hooks = sorted(caller.name for caller in callers)
            info.deprecations = sorted(str(c.spec.warn_on_impl) for c in callers if c.spec and c.spec.warn_on_impl)
            for registry in self.registries():
                if (hook := f"register_{registry.kind}") in info.hooks:
                    self._only(name, hook)(register=partial(_claim, claims, registry, info))
        except Exception as error:  # whatever a stranger's module raises is that plugin's failure, not the host's
            info.error = "; ".join(f"{type(error).__name__}: {error}".splitlines())
            info.traceback = traceback.format_exc()
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
        else:
            for registry, claimed, provider in claims:
                registry.claim(claimed, provider)
                info.provides.append(f"{registry.noun} {claimed}")
        for registry in self.registries():
            registry._infos = self.infos

    def _check_hooks(self, plugin: object) -> None:
        """Raise for a hook that does not exist, and say which one may have been meant."""
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            known = [name for name, caller in vars(self._manager.hook).items() if caller.has_spec()]
            for caller in self._manager.get_hookcallers(plugin) or []:
                if not caller.has_spec() and (close := difflib.get_close_matches(caller.name, known, n=1)):
                    raise PluginError(f"{error}; did you mean {close[0]!r}?") from error
            raise

    def _only(self, name: str, hook: str) -> Callable[..., Any]:
        others = [p for n, p in self._manager.list_name_plugin() if n != name and p is not None]
        return self._manager.subset_hook_caller(hook, others)


def _claim(
    claims: list[tuple[Registry, str, Provider]],
    registry: Registry,
    info: PluginInfo,
    name: str,
    factory: Factory,
    *,
    description: str = "",
) -> None:
    claims.append((registry, name, Provider(factory, info.name, info.distribution, description)))


def _import(entry: EntryPoint) -> object:
    """Import a plugin's module. Where that fails and the module states another API, that is the reason told."""
    try:
        return entry.load()
    except Exception as error:
        stated = stated_in_source(entry.module)
        if stated is None or (reason := misfit(entry.name, _origin(entry)[0], stated)) is None:
            raise
        raise PluginError(reason) from error


def _origin(entry: EntryPoint) -> tuple[str, str]:
    if entry.dist is None:
        return "(unknown distribution)", ""
    return entry.dist.name, entry.dist.version


def _identity(plugin: object) -> object:
    return plugin
