"""The bugs that the suite over a server must find, each with the behaviours that it breaks, and no other."""

from __future__ import annotations

from . import answers, service, tokens  # noqa: F401  (each registers its own)
from .registry import BUGS

__all__ = ["BUGS"]
