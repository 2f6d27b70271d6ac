"""The HTTP server: OpenAI's and text-generation-inference's interfaces on Litestar."""

from __future__ import annotations

from .app import create_app
from .run import serve
from .settings import ServerSettings

__all__ = ["ServerSettings", "create_app", "serve"]
