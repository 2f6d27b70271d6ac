"""The engine behind a queue: in a thread, or in a supervised child process."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import AsyncEngine
    from .limits import Limits
    from .local import LocalEngine
    from .stream import GenerationStream
    from .types import EngineInfo, EngineStats, GenerationDelta, RequestStats

__all__ = [
    "AsyncEngine",
    "EngineInfo",
    "EngineStats",
    "GenerationDelta",
    "GenerationStream",
    "Limits",
    "LocalEngine",
    "RequestStats",
]

_MODULES = {"AsyncEngine": "client", "GenerationStream": "stream", "Limits": "limits", "LocalEngine": "local"}


def __getattr__(name: str) -> Any:
    """Import on first use: the child process needs neither the client nor what it pulls in."""
    if name in __all__:
        return getattr(import_module(f".{_MODULES.get(name, 'types')}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
