"""The plugin of the reference backend: it claims a name, and imports nothing until that is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from ...core.interfaces import Backend

ISOTOKEN_API = "1.0"


def load_backend() -> Backend:
    """Import and construct the backend."""
    from .backend import ReferenceBackend  # noqa: PLC0415  (listing plugins stays light)

    return ReferenceBackend()


@hookimpl
def register_backends(register: Register) -> None:
    """Claim the name reference."""
    register("reference", load_backend, description="plain numpy in float64 or float32: slow, exact and easy to read")
