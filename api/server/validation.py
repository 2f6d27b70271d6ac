"""Turns complaints about a bad body into one sentence with the field, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from litestar.exceptions import ValidationException

_EXPECTED = {
    "int": "an integer",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a string",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
}
_BOUNDS = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
    "string_too_long": "at most {max_length} long",
    "literal_error": "one of {expected}",
}


def explain(error: ValidationException) -> tuple[str, str | None]:
    """Return (message, param) for the first thing that is wrong."""
    return explain_problems(getattr(error.__cause__, "errors", None) or ())


def explain_problems(problems: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """Return (message, param) for the first of pydantic's complaints."""
    if not problems:
        return "the request needs a JSON object as its body", None
    problem = _most_telling(problems)
    param = field_path(problem["loc"]) or None
    if problem["type"] == "missing":
        return f"{param} is required", param
    if param is None:
        return "the request needs a JSON object as its body", None
    return f"{param} = {short(problem['input'])} is not allowed: it must be {_allowed(problem)}", param


def field_path(loc: Sequence[int | str]) -> str:
    """Write a location as clients write it: messages[0].content. The names of union branches are left out."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "int", "list"):
            path += f".{part}" if path else part
    return path


def short(value: object, limit: int = 80) -> str:
    """Show a value of any size in a few characters."""
    text = repr(value[:limit] if isinstance(value, str | list) else value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _most_telling(problems: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of one field's complaints (a union has one for each branch) the deepest says most."""
    first = problems[0]["loc"][:1]
    return max(
        (problem for problem in problems if problem["loc"][:1] == first), key=lambda problem: len(problem["loc"])
    )


def _allowed(problem: Mapping[str, Any]) -> str:
    kind, context = str(problem["type"]), problem.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**context)
    return _EXPECTED.get(kind.split("_", maxsplit=1)[0], str(problem["msg"]))
