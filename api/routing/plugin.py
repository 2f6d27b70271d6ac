"""The plugin of the built-in router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...plugins.hookspecs import API_VERSION, Register, hookimpl

if TYPE_CHECKING:
    from .router import Router

ISOTOKEN_API = API_VERSION


def _complexity(options: Mapping[str, float]) -> Router:
    from .router import ComplexityRouter  # noqa: PLC0415  (listing plugins imports nothing)

    return ComplexityRouter(options)


@hookimpl
def register_routers(register: Register) -> None:
    """Claim complexity."""
    register("complexity", _complexity, description="harder prompts to larger models, by measured features")
