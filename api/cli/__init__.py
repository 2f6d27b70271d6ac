"""The command line. Imports Typer and nothing else: each command imports what it needs when it runs."""

from __future__ import annotations

from .app import main

__all__ = ["main"]
