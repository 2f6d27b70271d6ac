"""From flags and a configuration to what the server is started with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from ..cli.flags import EngineFlags, pairs
from ..cli.serve import LimitFlags, ServerFlags
from .layers import Layer, Values
from .load import load
from .problems import ConfigError, Path, Problem
from .schema import Config

if TYPE_CHECKING:
    from ...plugins.build import EngineConfig
    from ..server.settings import ServerSettings


def plan(
    file: FilePath | None,
    assignments: Sequence[str],
    given: Iterable[str],
    server: ServerFlags,
    engine: EngineFlags,
    limits: LimitFlags,
    model: str,
) -> tuple[EngineConfig, ServerSettings, str]:
    """Return the engine's configuration, the server's settings and the log's level.

    `given` names the flags and arguments that are on the command line: they win over everything else. Raises
    ConfigError, and ModelNotFound.
    """
    from ...plugins.build import EngineConfig  # noqa: PLC0415  (numpy and the core: only when an engine is wanted)

    given = set(given)
    layer = flag_layer(given, server, engine, limits)
    if "model" in given:
        layer.values["models"] = []
    config = load(file, assignments=assignments, flags=layer).config
    if config.models and "served_model_name" in given:
        raise ConfigError([Problem("--served-model-name", "the configuration lists models: their names stand there")])
    flags = ServerFlags(**dict(config.server), served_model_name=server.served_model_name)
    settings = replace(flags.settings(LimitFlags(**dict(config.limits))), features=config.features())
    if config.models:  # which have engines of their own
        return EngineConfig(model=config.models[0].source), settings, flags.log_level
    return _engine_flags(config).config(model), settings, flags.log_level


def flag_layer(given: set[str], server: ServerFlags, engine: EngineFlags, limits: LimitFlags) -> Layer:
    """Return what is said by flags that are on the command line, as a configuration has it."""
    values: Values = {"server": {}, "limits": {}, "engine": {}}
    for section, flags in (("server", server), ("limits", limits), ("engine", engine)):
        values[section] = {each.name: getattr(flags, each.name) for each in fields(flags) if each.name in given}
    values["server"].pop("served_model_name", None)
    if "option" in values["engine"]:
        values["engine"]["options"] = pairs(values["engine"].pop("option"))
    if "no_prefix_caching" in values["engine"]:
        values["engine"]["prefix_caching"] = not values["engine"].pop("no_prefix_caching")
    return Layer(values, _flag)


def _flag(path: Path) -> str:
    if path == ("models",):
        return "MODEL"
    names = {"options": "option", "prefix_caching": "no-prefix-caching"}
    return "--" + names.get(str(path[1]), str(path[1])).replace("_", "-") if len(path) > 1 else "a flag"


def _engine_flags(config: Config) -> EngineFlags:
    """Return the engine section as flags have it."""
    values: dict[str, Any] = dict(config.engine)
    options: dict[str, str] = values.pop("options")
    no_prefix_caching = not values.pop("prefix_caching")
    return EngineFlags(
        no_prefix_caching=no_prefix_caching, option=[f"{name}={value}" for name, value in options.items()], **values
    )
