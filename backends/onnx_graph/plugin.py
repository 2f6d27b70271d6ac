"""The plugin that exports models as ONNX graphs. Importing it does not import onnx_ir."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from ...core.interfaces import Exporter

ISOTOKEN_API = "1.1"


def load_exporter() -> Exporter:
    """Import onnx_ir and construct the exporter. Raises Unsupported when it is not installed."""
    try:
        import onnx_ir  # noqa: F401, PLC0415
    except ImportError as error:
        from ...core.types import Unsupported  # noqa: PLC0415

        raise Unsupported(
            f"exporter onnx: onnx_ir cannot be imported ({error}); install it with: pip install onnx-ir"
        ) from error
    from .exporter import OnnxExporter  # noqa: PLC0415

    return OnnxExporter()


@hookimpl
def register_exporters(register: Register) -> None:
    """Claim the name onnx."""
    register("onnx", load_exporter, description="ONNX graphs for ONNX Runtime and TensorRT")
