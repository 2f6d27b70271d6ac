"""The plugin of the null backend: it claims a name, and imports nothing until that is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.capabilities import Exclusion
from ...plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from ...core.interfaces import Backend

ISOTOKEN_API = "1.1"


def load_backend() -> Backend:
    """Import and construct the backend."""
    from .backend import NullBackend  # noqa: PLC0415  (listing plugins stays light)

    return NullBackend()


@hookimpl
def register_backends(register: Register) -> None:
    """Claim the name null."""
    register("null", load_backend, description="for benchmarks only: answers at once, without computing the model")


@hookimpl
def conformance_exclusions(backend: str) -> list[Exclusion]:
    """Everything that holds tokens or logits to the oracle's: there is no model behind them."""
    if backend != "null":
        return []
    from .exclusions import EXCLUSIONS  # noqa: PLC0415

    return list(EXCLUSIONS)
