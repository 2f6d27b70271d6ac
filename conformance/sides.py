"""Sides of a comparison: a backend as users name it, such as torch:bfloat16 or onnxruntime:int8, and its runners."""

from __future__ import annotations

from typing import Any

from ..core.checkpoint import Checkpoint
from ..core.interfaces import Backend, ModelRunner, RunnerConfig
from ..plugins.manager import Plugins
from .targets import QUANTIZATIONS, Target, wanted_dtypes


def parse(text: str, plugins: Plugins) -> Target:
    """Read NAME[:DTYPE][:QUANTIZATION][:DEVICE], in any order after the name; default: float32, not quantised, cpu.

    Raises ValueError, or PluginError for an unknown name, with what the backend declares.
    """
    name, *words = text.split(":")
    can = plugins.backends.get_factory(name)().capabilities
    offers = {"dtype": can.dtypes, "quantization": can.quantizations & QUANTIZATIONS.keys(), "device": can.devices}
    chosen: dict[str, Any] = {}
    for word in words:
        what = next((what for what, names in offers.items() if word in names), None)
        if what is None or what in chosen:
            told = "; ".join(f"{what}: {', '.join(sorted(names)) or 'none'}" for what, names in offers.items())
            why = "one word too many" if what else "not declared"
            raise ValueError(f"{text!r}: {word!r} is {why}; {name} has {told}")
        chosen[what] = word
    if "dtype" not in chosen:
        chosen["dtype"] = wanted_dtypes(name, can.dtypes, [])[0]
    if "device" not in chosen:
        chosen["device"] = "cpu" if "cpu" in can.devices else min(can.devices)
    return Target(backend=name, **chosen)


def label(target: Target) -> str:
    """The same in words: backend, dtype, quantisation; the device where it is not the cpu."""
    words = (target.backend, target.dtype, target.quantization, None if target.device == "cpu" else target.device)
    return " ".join(word for word in words if word)


def load(target: Target, plugins: Plugins, checkpoint: Checkpoint, **asked: Any) -> tuple[Backend, ModelRunner]:
    """Load a model for a target; `asked` are further fields of RunnerConfig."""
    backend: Backend = plugins.backends.get_factory(target.backend)()
    config = RunnerConfig(
        dtype=target.dtype,
        device=target.device,
        quantization=target.quantization,
        options=dict(target.options),
        **asked,
    )
    return backend, backend.load(checkpoint, config)
