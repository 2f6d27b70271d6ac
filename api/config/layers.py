"""Layers of values, the later over the earlier, and where each value came from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_settings import EnvSettingsSource
from pydantic_settings.exceptions import SettingsError

from . import ENV_DELIMITER, ENV_PREFIX
from .problems import ConfigError, Path, Problem, dotted, near
from .schema import Config
from .walk import holds_others, leaves, put

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one place."""

    values: Values
    where: Callable[[Path], str]  # of one of them


class _Texts(EnvSettingsSource):
    """Reads texts by the schema's types, from a mapping of our own instead of the environment's."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        super().__init__(Config, case_sensitive=True)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return dict(self._texts)


def environment_layer(environment: Mapping[str, str]) -> Layer:
    """Return what variables such as ISOTOKEN_SERVER__PORT say. Raises ConfigError for one of no section."""
    given = {}
    for name in environment:
        section = name.removeprefix(ENV_PREFIX).split(ENV_DELIMITER)[0].lower()
        if not name.startswith(ENV_PREFIX):
            continue
        if section in Config.model_fields:
            given[name.removeprefix(ENV_PREFIX).lower()] = name
        elif ENV_DELIMITER in name:
            raise ConfigError([Problem(name, f"there is no section {section!r}{near(section, Config.model_fields)}")])
    return _text_layer({name: environment[full] for name, full in given.items()}, given)


def set_layer(assignments: list[str]) -> Layer:
    """Return what --set says, such as "server.port=9000". Raises ConfigError for one of no section."""
    texts, given = {}, {}
    for each in assignments:
        name, equals, value = each.partition("=")
        section = name.split(".")[0].partition("[")[0]
        where = f"--set {name}"
        if not equals:
            raise ConfigError([Problem(where, "expected section.field=value")])
        if section not in Config.model_fields:
            raise ConfigError([Problem(where, f"there is no section {section!r}{near(section, Config.model_fields)}")])
        key = name.replace("[", ".").replace("]", "").replace(".", ENV_DELIMITER)
        texts[key], given[key] = value, where
    return _text_layer(texts, given)


def _text_layer(texts: Mapping[str, str], given: Mapping[str, str]) -> Layer:
    try:
        values = _Texts({ENV_PREFIX + name: text for name, text in texts.items()})()
        for path, text in list(leaves(values)):
            if isinstance(text, str) and text.lstrip()[:1] in ("[", "{") and holds_others(Config, path):
                put(values, path, json.loads(text))  # in a list's item, where pydantic-settings does not look
    except (SettingsError, json.JSONDecodeError) as error:
        raise ConfigError([_unreadable(texts, given, error)]) from error

    def where(path: Path) -> str:
        for length in range(len(path), 0, -1):
            key = ENV_DELIMITER.join(map(str, path[:length]))
            if found := given.get(key) or given.get(key.lower()):
                return found
        prefix = ENV_DELIMITER.join(map(str, path)).lower()
        return next(
            (name for key, name in given.items() if key.lower().startswith(prefix)), next(iter(given.values()), "")
        )

    return Layer(values, where)


def _unreadable(texts: Mapping[str, str], given: Mapping[str, str], error: Exception) -> Problem:
    """Find the text that is meant to be JSON and is none."""
    for name, text in texts.items():
        if text.lstrip()[:1] in ("[", "{") or f'"{name.split(ENV_DELIMITER)[0]}"' in str(error):
            return Problem(given[name], f"{text[:80]!r} is not allowed: expected JSON, such as '[...]' or '{{...}}'")
    return Problem(next(iter(given.values())), str(error))


def merge(layers: list[Layer]) -> tuple[Values, dict[Path, str]]:
    """Lay them over each other: sections by field, lists whole, or by number where a layer says models.0."""
    merged: Values = {}
    origins: dict[Path, str] = {}
    for layer in layers:
        _lay(merged, layer.values, (), layer, origins)
    return merged, origins


def _lay(below: Any, above: Mapping[str, Any], path: Path, layer: Layer, origins: dict[Path, str]) -> None:
    for name, value in above.items():
        place = (*path, name)
        under = below.get(name)
        if isinstance(value, Mapping) and value and isinstance(under, list | tuple) and all(map(_is_number, value)):
            below[name] = under = list(under)
            _lay_items(under, value, place, layer, origins)
        elif isinstance(value, Mapping) and isinstance(under, dict):
            _lay(under, value, place, layer, origins)
        elif isinstance(value, Mapping) and value and all(map(_is_number, value)):
            below[name] = under = []
            _lay_items(under, value, place, layer, origins)
        else:
            for old in [each for each in origins if each[: len(place)] == place]:
                del origins[old]
            below[name] = _copied(value)
            for leaf, _ in leaves(value, place):
                origins[leaf] = layer.where(leaf)


def _lay_items(items: list[Any], above: Mapping[str, Any], path: Path, layer: Layer, origins: dict[Path, str]) -> None:
    for text in sorted(above, key=int):
        number = int(text)
        if number > len(items):
            message = f"there is no {dotted((*path, number))}: the list has {len(items)}"
            raise ConfigError([Problem(layer.where((*path, text)), message)])
        if number == len(items):
            items.append({})
        holder = {number: items[number]}
        _lay(holder, {number: above[text]}, path, _Renumbered.of(layer, path, text), origins)  # type: ignore[dict-item]
        items[number] = holder[number]


class _Renumbered:
    """A layer whose lists are told by numbers in texts: models.0 is where ("models", 0) came from."""

    @staticmethod
    def of(layer: Layer, path: Path, text: str) -> Layer:
        """Return the layer with that one step put back."""
        return Layer(layer.values, lambda place: layer.where((*path, text, *place[len(path) + 1 :])))


def _is_number(name: Any) -> bool:
    return isinstance(name, str) and name.isascii() and name.isdigit()


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(each) for name, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list | tuple) else value
