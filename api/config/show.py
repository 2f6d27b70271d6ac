"""What a configuration comes to: every value with where it came from, and no secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .load import DEFAULT, Loaded
from .problems import Path
from .walk import leaves

HIDDEN = "**********"
_SECRET_NAME = re.compile(
    r"(^|_)(password|passphrase|secret|token|api_key|private_key|authorization|pepper)$", re.IGNORECASE
)
_PASSWORD_IN_URL = re.compile(r"(\w://[^/\s:@]*:)[^/\s@]+@")
_COLUMN = 44  # where origins stand


def effective(loaded: Loaded) -> dict[str, Any]:
    """Return every value as JSON has it, secrets hidden."""
    values = loaded.config.model_dump(mode="json")
    values["models"] = [model.model_dump(mode="json") for model in loaded.config.fleet_settings().models]
    return {name: _redacted(value, (name,)) for name, value in values.items()}


def render(loaded: Loaded, *, changed: bool = False) -> str:
    """Return YAML whose comments say where each value came from; `changed`: only what is not a default."""
    values = effective(loaded)
    if changed:
        values = _changed(values, (), loaded)
    return "\n".join(_lines(values, (), loaded, 0)) + "\n" if values else "# everything is as by default\n"


def with_origins(loaded: Loaded) -> list[dict[str, Any]]:
    """Return a row for each value, for programs."""
    return [
        {"field": ".".join(map(str, path)), "value": value, "origin": _origin(path, loaded)}
        for path, value in leaves(effective(loaded))
    ]


def _redacted(value: Any, path: Path) -> Any:
    if isinstance(value, Mapping):
        return {name: _redacted(each, (*path, name)) for name, each in value.items()}
    if isinstance(value, list):
        return [_redacted(each, (*path, i)) for i, each in enumerate(value)]
    if value and isinstance(value, str):
        names = [step for step in path if isinstance(step, str)]
        return HIDDEN if names and _SECRET_NAME.search(names[-1]) else _PASSWORD_IN_URL.sub(rf"\1{HIDDEN}@", value)
    return value


def _changed(value: Any, path: Path, loaded: Loaded) -> Any:
    """Keep the sections in which something is given, and of them what is."""
    if isinstance(value, list):
        return [_changed(each, (*path, i), loaded) for i, each in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    return {
        name: _changed(each, (*path, name), loaded) for name, each in value.items() if _is_given((*path, name), loaded)
    }


def _is_given(path: Path, loaded: Loaded) -> bool:
    return loaded.origin(path) != DEFAULT or any(each[: len(path)] == path for each in loaded.origins)


def _origin(path: Path, loaded: Loaded) -> str:
    """Say where a value came from: what a model does not say of itself, the engine section may."""
    origin = loaded.origin(path)
    if origin == DEFAULT and path[0] == "models" and len(path) > 2:
        return loaded.origin(("engine", *path[2:]))
    return origin


def _lines(value: Any, path: Path, loaded: Loaded, depth: int) -> Iterator[str]:
    for name, each in value.items():
        yield from _entry(f"{'  ' * depth}{_key(name)}:", each, (*path, name), loaded, depth)


def _entry(head: str, value: Any, path: Path, loaded: Loaded, depth: int) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        yield head
        yield from _lines(value, path, loaded, depth + 1)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        yield head
        for i, item in enumerate(value):
            first, *others = _lines(item, (*path, i), loaded, depth + 2)
            yield f"{'  ' * (depth + 1)}- {first.lstrip()}"
            yield from others
    else:
        line = f"{head} {json.dumps(value, ensure_ascii=False)}"
        if value == HIDDEN:  # so that what is shown can be read again
            line = f"{line[: len(line) - len(line.lstrip())]}# {line.lstrip()}"
        yield f"{line:<{_COLUMN}}  # {_origin(path, loaded)}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][\w.-]*", name) else json.dumps(name)
