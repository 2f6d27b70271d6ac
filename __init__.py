"""isotoken: one serving core, any engine, the same tokens."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.llm import LLM
    from .api.text import SamplingParams

__all__ = ["LLM", "SamplingParams", "__version__"]

_LAZY = {"LLM": "isotoken.api.llm", "SamplingParams": "isotoken.api.text"}


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `import isotoken` stays light."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  (slower to import than all else here)

        try:
            return version("isotoken")
        except PackageNotFoundError:
            return "0+unknown"
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'isotoken' has no attribute {name!r}")
