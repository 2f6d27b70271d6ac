"""The plugin API's version: what a plugin states, and what is said to one that does not fit."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from .hookspecs import API_VERSION

SPOKEN_BY = {1: "isotoken>=0.1"}
"""For each major number of the plugin API, the requirement that gets an isotoken that speaks it."""

_FORM = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)")
_STATEMENT = re.compile(r"""^ISOTOKEN_API\b[^=\n]*=\s*(["'])(.*?)\1""", re.MULTILINE)


def misfit(plugin: str, distribution: str, stated: object, ours: str = API_VERSION) -> str | None:
    """Say why a plugin that states this version cannot be used here and what to do, or None if it can be.

    A plugin states the oldest API that has all it needs: the same major number and no newer minor one fits.
    """
    if stated is None:
        return f'plugin {plugin!r} must state the plugin API that it needs: add ISOTOKEN_API = "{ours}" to its module'
    if not isinstance(stated, str) or not _FORM.fullmatch(stated):
        return f'plugin {plugin!r} states ISOTOKEN_API = {stated!r}: expected a string of two numbers, such as "{ours}"'
    needed, spoken = _numbers(stated), _numbers(ours)
    if needed[0] == spoken[0] and needed[1] <= spoken[1]:
        return None
    opening = f"plugin {plugin!r} needs plugin API {stated}, this isotoken{_our_version()} has {ours}: "
    if needed[0] < spoken[0]:
        return f"{opening}update the plugin ({_pip(distribution)}){_older_isotoken(needed[0])}"
    if needed[0] > spoken[0]:
        return (
            f"{opening}update isotoken (pip install --upgrade isotoken), "
            f"or install an older version of {distribution}, one for plugin API {spoken[0]}"
        )
    return (
        f"{opening}update isotoken (pip install --upgrade isotoken); "
        f"a plugin that uses nothing newer than {ours} can state that instead"
    )


def stated_in_source(module: str) -> str | None:
    """Return the ISOTOKEN_API of a module that cannot be imported, read from its source; None if that fails too."""
    try:
        found = find_spec(module)  # imports the packages around it
        source = Path(found.origin).read_text(encoding="utf-8") if found and found.origin else ""
    except Exception:  # whatever a stranger's package raises; the failed import is told anyway
        return None
    statement = _STATEMENT.search(source)
    return statement[2] if statement else None


def _numbers(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _pip(distribution: str) -> str:
    return "it was given in code" if distribution.startswith("(") else f"pip install --upgrade {distribution}"


def _older_isotoken(major: int) -> str:
    requirement = SPOKEN_BY.get(major)
    return f', or install an isotoken for plugin API {major} (pip install "{requirement}")' if requirement else ""


def _our_version() -> str:
    try:
        return f" ({version('isotoken')})"
    except PackageNotFoundError:  # a checkout that is not installed
        return ""
