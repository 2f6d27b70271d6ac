"""load: a file, the environment, --set and flags to one checked Config, which remembers where its values came from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from .document import Document, read_document
from .explain import explain
from .layers import Layer, Values, environment_layer, merge, set_layer
from .problems import ConfigError, Path
from .schema import Config
from .walk import is_model, is_path, leaves, put

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and its origins."""

    config: Config
    origins: Mapping[Path, str] = field(default_factory=dict)  # of the values that are given: "server.yaml:3"

    def origin(self, path: Path) -> str:
        """Say where a value came from."""
        while path:
            if path in self.origins:
                return self.origins[path]
            path = path[:-1]
        return DEFAULT


def load(
    file: FilePath | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    assignments: Sequence[str] = (),
    flags: Layer | None = None,
) -> Loaded:
    """Read and check everything. Flags win over --set, that over the environment, and that over the file.

    Raises ConfigError with every problem that was found.
    """
    layers = [] if file is None else [_file_layer(read_document(file), file.parent)]
    layers.append(environment_layer(os.environ if environment is None else environment))
    layers.append(set_layer(list(assignments)))
    if flags is not None:
        layers.append(flags)
    values, origins = merge(layers)
    if flags is not None:
        _overrule_models(values, flags.values.get("engine", {}))
    try:
        return Loaded(Config(**values), origins)
    except ValidationError as error:
        raise ConfigError(explain(error.errors(), values, partial(_where, layers))) from error


def _overrule_models(values: Values, engine: Values) -> None:
    """Let a flag win over what a model says of its own engine, too."""
    for model in values.get("models") or []:
        for name in engine:
            if isinstance(model, dict):
                model.pop(name, None)


def _where(layers: Sequence[Layer], path: Path) -> str:
    """Say where a value is given; of one that is missing, where what should hold it is."""
    while path:
        for layer in reversed(layers):
            if _has(layer.values, path):
                return layer.where(path)
        path = path[:-1]
    return layers[0].where(()) or "the configuration"


def _has(values: Any, path: Path) -> bool:
    for step in path:
        name: Any = str(step) if isinstance(values, Mapping) else step  # a text may name an item by its number
        if not (isinstance(values, Mapping) and name in values) and not (
            isinstance(values, list | tuple) and isinstance(step, int) and step < len(values)
        ):
            return False
        values = values[name]
    return True


def _file_layer(document: Document, folder: FilePath) -> Layer:
    """Return a file's values: an empty section is one without fields, and paths start from the file's own folder."""
    values = _without_empty(document.values, ())
    for path, value in leaves(values):
        if isinstance(value, str) and (is_path(Config, path) or _is_relative_model(path, value)):
            put(values, path, str((folder / FilePath(value).expanduser()).resolve()))
    return Layer(values, document.where)


def _is_relative_model(path: Path, value: str) -> bool:
    return path[:1] == ("models",) and path[-1:] == ("model",) and value.startswith((".", "~"))


def _without_empty(values: Values, path: Path) -> Values:
    found: Values = {}
    for name, value in values.items():
        place = (*path, name)
        if value is None and is_model(Config, place):
            found[name] = {}
        else:
            found[name] = _without_empty(value, place) if isinstance(value, dict) else value
    return found
