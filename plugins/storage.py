"""What weights and K/V are to be stored as: refused where a backend does not declare it, with who would do it."""

from __future__ import annotations

from typing import Any

from ..core.capabilities import Capabilities
from ..core.checkpoint import Checkpoint
from ..core.quantization import KV_CACHE_DTYPES, refuse_absent
from ..core.types import Unsupported
from .manager import Plugins

PACKED = ("gptq", "awq")


def check_storage(
    name: str,
    can: Capabilities,
    plugins: Plugins,
    checkpoint: Checkpoint,
    quantization: str | None,
    kv_cache_dtype: str,
) -> None:
    """Raise Unsupported for what backend `name` does not declare, and for weights that are quantised already."""
    if quantization is not None and checkpoint.packing is not None:
        raise Unsupported(
            f"{checkpoint.path} is quantised already ({checkpoint.packing}), so quantization={quantization!r} would "
            "round it a second time: leave it out, or use the original checkpoint"
        )
    try:
        refuse_absent(name, can, quantization=quantization, kv_cache_dtype=kv_cache_dtype)
    except Unsupported as refusal:
        if quantization is not None and quantization not in can.quantizations:
            more = _about("quantizations", quantization, set(plugins.quantizations), plugins)
        else:
            more = _about("kv_cache_dtypes", kv_cache_dtype, {"auto", *KV_CACHE_DTYPES}, plugins)
        raise Unsupported(f"{refusal}{more}") from None


def is_weight_only(quantization: str | None, plugins: Plugins) -> bool:
    """Whether weights alone are stored in fewer bits, and activations stay in the compute dtype."""
    if quantization is None or quantization not in plugins.quantizations:
        return False
    return bool(plugins.quantizations[quantization].factory().activations == "compute")


def _about(field: str, value: str, known: set[str], plugins: Plugins) -> str:
    """Who offers a value, or that nobody has heard of it."""
    if offering := [name for name in plugins.backends if value in _declared(name, field, plugins)]:
        return f"; backend {' or '.join(offering)} does"
    if value in PACKED:
        return f"; a checkpoint that is quantised as {value} is recognised by itself: leave the setting out"
    if value in known:
        return "; no backend that can be used here does"
    return f"; {value!r} is not known, there are: {', '.join(sorted(known))}"


def _declared(name: str, field: str, plugins: Plugins) -> Any:
    try:
        return getattr(plugins.backends[name].factory().capabilities, field)
    except Exception:  # whatever keeps a backend from being constructed here keeps it from helping
        return ()
