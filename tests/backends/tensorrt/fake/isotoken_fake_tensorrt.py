"""A pytest plugin that puts the fake TensorRT, on host memory, behind the name tensorrt. The suite is run with it."""

from __future__ import annotations

from isotoken.backends.tensorrt import plugin
from isotoken.core.interfaces import Backend
from isotoken.core.types import Unsupported


def load_backend() -> Backend:
    """Construct the backend on a device that lives in host memory."""
    from host_device import HostDevice
    from isotoken.backends.tensorrt.backend import TensorRTBackend

    def open_device(name: str) -> HostDevice:
        if name not in ("auto", "cuda", "cuda:0"):
            raise Unsupported(f"device {name!r} is not here")
        return HostDevice()

    return TensorRTBackend(open_device)


plugin.load_backend = load_backend
