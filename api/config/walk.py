"""What the schema says about a path: its type, and the names that may stand there."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from .problems import Path


def annotations_at(annotation: Any, path: Path) -> Iterator[Any]:
    """Yield every type that a value at a path may have: several where a union stands on the way."""
    for kind in _branches(annotation):
        if not path:
            yield kind
            continue
        step, rest = path[0], path[1:]
        if _is_model(kind):
            if step in kind.model_fields:
                yield from annotations_at(kind.model_fields[step].annotation, rest)
        elif _is(kind, Mapping) and (arguments := get_args(kind)):
            yield from annotations_at(arguments[-1], rest)
        elif _is(kind, Sequence) and not _is(kind, str) and (arguments := get_args(kind)):
            yield from annotations_at(arguments[0], rest)


def names_at(annotation: Any, path: Path) -> list[str]:
    """Return the fields that may stand under a path."""
    found = annotations_at(annotation, path)
    return list(dict.fromkeys(name for kind in found if _is_model(kind) for name in kind.model_fields))


def is_path(annotation: Any, path: Path) -> bool:
    """Whether a value at a path names a file or a folder."""
    return any(_is(kind, PurePath) for kind in annotations_at(annotation, path))


def is_model(annotation: Any, path: Path) -> bool:
    """Whether a section stands at a path."""
    return any(map(_is_model, annotations_at(annotation, path)))


def holds_others(annotation: Any, path: Path) -> bool:
    """Whether a value at a path is a list or has fields, and is never a text."""
    kinds = list(annotations_at(annotation, path))
    return bool(kinds) and all(
        _is_model(kind) or _is(kind, list | tuple | Mapping) for kind in kinds if kind is not None
    )


def put(values: Any, path: Path, value: Any) -> None:
    """Set what stands at a path."""
    for step in path[:-1]:
        values = values[step]
    values[path[-1]] = value


def leaves(values: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value that holds no others; an empty list or section is one."""
    if isinstance(values, Mapping) and values:
        for name, value in values.items():
            yield from leaves(value, (*path, name))
    elif isinstance(values, list | tuple) and values:
        for i, value in enumerate(values):
            yield from leaves(value, (*path, i))
    else:
        yield path, values


def value_at(values: Any, path: Path) -> Any:
    """Return what stands at a path; None where nothing does."""
    for step in path:
        try:
            values = values[step]
        except (LookupError, TypeError):
            return None
    return values


def _branches(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _branches(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for each in get_args(annotation):
            yield from _branches(each)
    else:
        yield annotation


def _is(kind: Any, base: Any) -> bool:
    origin = get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, base)


def _is_model(kind: Any) -> bool:
    return _is(kind, BaseModel)
