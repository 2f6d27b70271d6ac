"""The plugin of the onnxruntime backend. Importing it does not import onnxruntime."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from ...plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from ...core.interfaces import Backend

ISOTOKEN_API = "1.0"
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
"""Two distributions of one module: each overwrites the other's files."""


def load_backend() -> Backend:
    """Import onnxruntime and construct the backend. Raises Unsupported saying what is missing, or one too many."""
    from ...core.types import Unsupported  # noqa: PLC0415

    both = installed_runtimes()
    if len(both) > 1:
        raise Unsupported(
            f"backend onnxruntime: {' and '.join(f'{name} {both[name]}' for name in both)} are both installed and "
            f"overwrite each other's files; run: pip uninstall -y {' '.join(both)}, then install one of them again"
        )
    for module, extra in (("onnxruntime", "onnxruntime"), ("onnx_ir", "onnxruntime")):
        try:
            import_module(module)
        except ImportError as error:
            raise Unsupported(
                f"backend onnxruntime: {module} cannot be imported ({error}); install it with: "
                f"pip install 'isotoken[{extra}]' (or 'isotoken[onnxruntime-gpu]', never both)"
            ) from error
    from .backend import OnnxRuntimeBackend  # noqa: PLC0415

    return OnnxRuntimeBackend()


def installed_runtimes() -> dict[str, str]:
    """Return which distributions of ONNX Runtime are installed, with their versions."""
    found = {}
    for name in RUNTIMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@hookimpl
def register_backends(register: Register) -> None:
    """Claim the name onnxruntime."""
    register("onnxruntime", load_backend, description="ONNX Runtime on any CPU (and on CUDA, not yet run there)")
