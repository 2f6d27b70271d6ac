"""The plugin: it claims a name, and imports torch and transformers only when that is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isotoken.plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from isotoken.core.interfaces import Backend

ISOTOKEN_API = "1.1"  # the oldest that has all that is used here: Capabilities.invariant_to came with it


def load_backend() -> Backend:
    """Import and construct the backend."""
    from .backend import TransformersBackend  # noqa: PLC0415  (listing plugins stays light)

    return TransformersBackend()


@hookimpl
def register_backends(register: Register) -> None:
    """Claim the name transformers."""
    register("transformers", load_backend, description="Hugging Face's own models, one request at a time: to compare")
