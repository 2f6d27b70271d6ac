"""The plugin of the native backend. Importing it loads no kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from ...core.interfaces import Backend

ISOTOKEN_API = "1.0"

LIBRARY = Path(__file__).parents[2] / "kernels" / "cpu" / "_native.so"  # kernels.cpu.library.PATH, which need not load


def load_backend() -> Backend:
    """Load the kernels and construct the backend. Raises Unsupported saying why there are none."""
    from .backend import NativeBackend  # noqa: PLC0415  (listing plugins stays light)
    from .executor import check_library  # noqa: PLC0415

    check_library()
    return NativeBackend()


@hookimpl
def register_backends(register: Register) -> None:
    """Claim the name native."""
    description = "our own kernels on any CPU: fast, and the same bits in any company"
    if not LIBRARY.exists():
        description = "our own kernels on any CPU: not built here, `isotoken plugins --check` says more"
    register("native", load_backend, description=description)
