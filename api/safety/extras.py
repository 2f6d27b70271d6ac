"""Libraries of the extra isotoken[safety]: imported when a setting asks for what they do."""

from __future__ import annotations

import importlib
from typing import Any


def needed(module: str, package: str, purpose: str) -> Any:
    """Import a library. Raises ValueError that names the extra where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = f"{purpose} need {package}, which is not installed: pip install 'isotoken[safety]'"
        raise ValueError(message) from error
