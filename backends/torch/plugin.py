"""The plugin of the torch backend. Importing it does not import torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from ...core.interfaces import Backend

ISOTOKEN_API = "1.0"
SPIN_COUNT = "1000"  # some microseconds


def load_backend() -> Backend:
    """Import torch and construct the backend. Raises Unsupported when torch is not installed."""
    # Torch's threads spin for milliseconds at each barrier unless told otherwise before it is loaded: on a machine that
    # does anything else besides (an API process, say) a step of a small model then takes 20 times as long.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    try:
        import torch  # noqa: F401, PLC0415
    except ImportError as error:
        from ...core.types import Unsupported  # noqa: PLC0415

        raise Unsupported(
            f"backend torch: PyTorch cannot be imported ({error}); install it with: pip install torch"
        ) from error
    from .backend import TorchBackend  # noqa: PLC0415

    return TorchBackend()


@hookimpl
def register_backends(register: Register) -> None:
    """Claim the name torch."""
    register("torch", load_backend, description="PyTorch on CUDA and on any CPU")
