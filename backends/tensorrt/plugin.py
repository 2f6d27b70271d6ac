"""The plugin of the tensorrt backend. Importing it does not import tensorrt."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ...plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from ...core.interfaces import Backend

ISOTOKEN_API = "1.0"


def load_backend() -> Backend:
    """Check what TensorRT needs and construct the backend. Raises Unsupported that says what is missing.

    The GPU is looked for before TensorRT is touched: without one its runtime ends the process with a segmentation
    fault rather than with an error.
    """
    from ...core.types import Unsupported  # noqa: PLC0415

    for package in ("torch", "onnx", "onnx_ir"):
        _require(package)
    from .device import find_gpu  # noqa: PLC0415

    if missing := find_gpu():
        raise Unsupported(f"backend tensorrt: {missing}")
    _require("tensorrt")
    from .backend import TensorRTBackend  # noqa: PLC0415

    return TensorRTBackend()


def _require(package: str) -> None:
    from ...core.types import Unsupported  # noqa: PLC0415

    try:
        import_module(package)
    except ImportError as error:
        raise Unsupported(
            f"backend tensorrt: {package} cannot be imported ({error}); "
            "install it with: pip install 'isotoken[tensorrt]'"
        ) from error


@hookimpl
def register_backends(register: Register) -> None:
    """Claim the name tensorrt."""
    register("tensorrt", load_backend, description="TensorRT engines on NVIDIA GPUs (written, not yet run on one)")
