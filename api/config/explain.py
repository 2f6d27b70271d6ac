"""Pydantic's complaints in words: which field, its value, what was expected, and what may have been meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from .problems import Path, Problem, dotted, near
from .schema import Config
from .walk import names_at, value_at

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "names and values",
    "model": "fields",
    "path": "a path",
    "literal": "one of {expected}",
    "enum": "one of {expected}",
}
_BOUNDS = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
    "path_not_file": "a file that exists",
    "path_not_directory": "a folder that exists",
}
_SECRET = ("password", "secret", "token", "api_key", "dsn")


def explain(complaints: Sequence[Mapping[str, Any]], values: Any, where: Callable[[Path], str]) -> list[Problem]:
    """Return one problem for each field that has some, in the order of the file. `where` tells where values stand."""
    problems: dict[Path, Problem] = {}
    for complaint in complaints:
        path = _real(complaint["loc"], values)
        told = Problem(where(path), _message(path, complaint))
        problems[path] = problems.get(path, told)
    return list(problems.values())


def _real(loc: Sequence[str | int], values: Any) -> Path:
    """Leave out of a location what names no value: the branches of unions."""
    path: Path = ()
    for i, step in enumerate(loc):
        here = value_at(values, path)
        known = (isinstance(here, Mapping) and step in here) or (isinstance(here, list) and isinstance(step, int))
        if known or (i == len(loc) - 1 and isinstance(here, Mapping)):
            path = (*path, step)
    return path


def _message(path: Path, complaint: Mapping[str, Any]) -> str:
    kind, name = str(complaint["type"]), dotted(path)
    if kind == "extra_forbidden":
        return f"{name} does not exist{_meant(path)}"
    if kind == "missing":
        return f"{name} is missing"
    expected = _expected(kind, complaint)
    if kind in ("value_error", "assertion_error"):
        return f"{name}: {expected}" if name else expected
    return f"{name} = {_shown(path, complaint['input'])} is not allowed: expected {expected}"


def _expected(kind: str, complaint: Mapping[str, Any]) -> str:
    context = complaint.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    words = _BOUNDS.get(kind) or _EXPECTED.get(kind.split("_", maxsplit=1)[0])
    return words.format(**context) if words else str(complaint["msg"])


def _meant(path: Path) -> str:
    """Suggest a field of the same section that is spelt alike, or the section that has one of this name."""
    name, holder = str(path[-1]), path[:-1]
    known = names_at(Config, holder)
    if not get_close_matches(name, known, n=1):
        for section in Config.model_fields:
            if name in names_at(Config, (section,)):
                return f" here: it belongs to {section}"
    return near(name, known)


def _shown(path: Path, value: Any) -> str:
    """Show a value of any size in a few characters, and none that may be a secret."""
    if any(str(step).endswith(_SECRET) for step in path):
        return "(hidden)"
    if isinstance(value, Mapping | list | tuple):
        return f"({len(value)} values)" if isinstance(value, Mapping) else f"(a list of {len(value)})"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
