"""Which backend runs, where the configuration leaves that open, and why."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.interfaces import Backend
from ..core.types import Unsupported
from .manager import PluginError, Plugins

if TYPE_CHECKING:
    from .build import EngineConfig

GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/nvmap", "/dev/kfd")

AUTO_ORDER = {"cuda": ("torch",), "cpu": ("native", "onnxruntime", "torch")}
"""For backend "auto": the first of these that is installed, for the device; see ARCHITECTURE section 8."""


def choose_backend(config: EngineConfig, plugins: Plugins, reasons: list[str]) -> tuple[str, Backend]:
    """Construct the configured backend, or for "auto" the first of AUTO_ORDER that can run here."""
    if config.backend != "auto":
        return config.backend, _construct(config.backend, plugins)
    device = config.device.split(":")[0]
    passed_over: list[str] = []
    found: dict[str, Backend] = {}
    for kind in _kinds(device):
        if name := _pick(kind, plugins, found, passed_over):
            reasons.append(_reason(name, kind, passed_over))
            return name, found[name]
    if device not in (*AUTO_ORDER, "auto"):
        for name in dict.fromkeys(AUTO_ORDER["cuda"] + AUTO_ORDER["cpu"]):
            _find(name, plugins, found, passed_over)
    passed_over += [
        f"{name}: no {device} device that it could use is here"
        + (f": {missing}" if (missing := backend.capabilities.missing_devices.get(device)) else "")
        for name, backend in found.items()
    ]
    raise Unsupported(
        f"no engine is installed that runs on device {config.device!r}:\n{_listed(passed_over)}\n"
        + _remedy(device, bool(found))
    )


def _pick(kind: str, plugins: Plugins, found: dict[str, Backend], passed_over: list[str]) -> str:
    """Return the first engine for a kind of device: where there is no other, one that says it is a second choice."""
    second = ""
    for name in AUTO_ORDER[kind]:
        if name not in found and not _find(name, plugins, found, passed_over):
            continue
        can = found[name].capabilities
        if kind != "cpu" and kind not in can.devices:
            continue
        if not can.second_choice:
            return name
        passed_over.append(f"{name}: {can.second_choice}")
        second = second or name
    return second


def _listed(passed_over: Sequence[str]) -> str:
    """Put each engine on a line of its own, without the name that its message may begin with as well."""
    lines = (line.partition(": ") for line in passed_over)
    return "\n".join(f"  {name}: {why.removeprefix(f'backend {name}: ')}" for name, _, why in lines)


def _kinds(device: str) -> tuple[str, ...]:
    """Return where to look for an engine, best first. Engines for GPUs are large: none is imported for nothing."""
    if device == "auto":
        return ("cuda", "cpu") if gpu_may_be_here() else ("cpu",)
    return (device,) if device in AUTO_ORDER else ()


def gpu_may_be_here() -> bool:
    """Whether the system shows a GPU's driver (CUDA's, WSL's, Jetson's, ROCm's), or is one that does not tell."""
    return sys.platform != "linux" or any(map(os.path.exists, GPU_FILES))


def _find(name: str, plugins: Plugins, found: dict[str, Backend], passed_over: list[str]) -> bool:
    """Construct a backend into `found`, or say in `passed_over` why not."""
    if name not in plugins.backends:
        passed_over.append(f"{name}: not installed")
        return False
    try:
        found[name] = _construct(name, plugins)
    except (PluginError, Unsupported) as error:
        passed_over.append(f"{name}: {str(error).splitlines()[0]}")
    return name in found


def _reason(name: str, kind: str, passed_over: Sequence[str]) -> str:
    order = AUTO_ORDER[kind]
    where = "a CUDA device is here" if kind == "cuda" else "the first installed for the CPU"
    lines = [(line.partition(":")[0], line) for line in passed_over]
    if slow := next((line for passed, line in lines if passed == name), ""):
        where = f"no other engine for the CPU is installed, though {slow}"
    missing = [line for passed, line in lines if passed in order[: order.index(name)]]
    return f"backend {name}: {where} (order {', '.join(order)})" + "".join(f"; not {line}" for line in missing)


def _remedy(device: str, any_installed: bool) -> str:
    """Say what to do about a device that nothing here can use."""
    if device == "cuda" and any_installed:
        return "Let this process see the device, see to its driver and to libraries built for it, or leave device open"
    if device == "cuda":
        return "Install one (pip install torch, in a build for CUDA), or leave device open to run on the CPU"
    if device in ("cpu", "auto"):
        return (
            "Install one (pip install 'isotoken[onnxruntime]', or pip install torch), or a C++ compiler (g++ or "
            "clang++) and then isotoken anew, which builds the kernels of native, or choose the backend reference "
            "(plain numpy, slow)"
        )
    return "Engines that are chosen by themselves run on cpu or cuda: name the backend for another device"


def _construct(name: str, plugins: Plugins) -> Backend:
    """Construct a backend. An engine that cannot be imported is the environment's lack, and no bug."""
    provider = plugins.backends[name]
    try:
        backend: Backend = provider.factory()
    except ImportError as error:
        raise Unsupported(
            f"backend {name} of {provider.distribution} cannot be used here: {error}; is what it needs installed?"
        ) from error
    return backend
