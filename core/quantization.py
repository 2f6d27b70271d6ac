"""Quantisation by name: what weights and K/V may be stored as. The one list that engine, backends and docs read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from .capabilities import Capabilities
from .types import Unsupported

KV_CACHE_DTYPES: Mapping[str, int] = {"float32": 32, "bfloat16": 16, "float16": 16, "int8": 8}
"""What a backend may keep keys and values in, and the bits of a number; int8 has a scale for each token and head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationScheme:
    """What a name in `RunnerConfig.quantization` means: how a weight matrix [outputs, inputs] is stored and multiplied.

    Symmetric: a weight is a number of few bits times a scale, and zero is zero. Matrices only: embeddings, norms,
    biases and the routers of experts stay as they are; an lm_head that is tied to the embeddings gets its own copy.
    """

    name: str
    description: str  # one line
    weight_bits: int
    weight_type: Literal["integer", "float"] = "integer"
    scale_for: Literal["group", "output", "matrix"]  # which weights share a scale
    group_size: int = 0  # inputs of one output that share a scale, where scale_for is group
    activations: Literal["compute", "int8"] = "compute"  # int8: rounded, with a scale for each row, as they come

    def num_bytes(self, outputs: int, inputs: int, scale_bytes: int = 4) -> int:
        """Return what a matrix takes, scales included; inputs are filled up to whole groups."""
        num_groups = -(-inputs // self.group_size) if self.scale_for == "group" else 1
        stored = num_groups * self.group_size if self.scale_for == "group" else inputs
        num_scales = 1 if self.scale_for == "matrix" else outputs * num_groups
        return -(-outputs * stored * self.weight_bits // 8) + num_scales * scale_bytes

    def bytes_per_weight(self, scale_bytes: float = 4) -> float:
        """Return what one weight of a large matrix takes, with its share of a group's scale."""
        share = scale_bytes / self.group_size if self.scale_for == "group" else 0.0
        return self.weight_bits / 8 + share


INT8 = QuantizationScheme(
    name="int8",
    description="weights of 8 bits in groups of 32 inputs",
    weight_bits=8,
    scale_for="group",
    group_size=32,
)
INT4 = QuantizationScheme(
    name="int4",
    description="weights of 4 bits in groups of 32 inputs",
    weight_bits=4,
    scale_for="group",
    group_size=32,
)
W8A8 = QuantizationScheme(
    name="w8a8",
    description="weights of 8 bits with a scale for each output; activations rounded to 8 bits",
    weight_bits=8,
    scale_for="output",
    activations="int8",
)
W4A8 = QuantizationScheme(
    name="w4a8",
    description="weights of 4 bits in groups of 32 inputs; activations rounded to 8 bits",
    weight_bits=4,
    scale_for="group",
    group_size=32,
    activations="int8",
)
INT8_ROWS = QuantizationScheme(
    name="int8-rows",
    description="weights of 8 bits with a scale for each output",
    weight_bits=8,
    scale_for="output",
)
FP8 = QuantizationScheme(
    name="fp8",
    description="weights in float8 (e4m3) with one scale for the matrix",
    weight_bits=8,
    weight_type="float",
    scale_for="matrix",
)
SCHEMES: Mapping[str, QuantizationScheme] = {s.name: s for s in (INT8, INT4, W8A8, W4A8, INT8_ROWS, FP8)}
"""Those that isotoken defines. Plugins register further ones: `Plugins.quantizations` has all."""


def auto_dtype(
    name: str, can: Capabilities, dtypes: Collection[str], stored: str, *, weight_only: bool
) -> tuple[str, str]:
    """Return the compute dtype that "auto" is on a backend that computes in `dtypes`, and why.

    `stored` is the checkpoint's dtype; weight_only says that its weights, but not activations, are of fewer bits here.
    """
    fastest = can.weight_only_dtype
    if weight_only and stored in ("float16", "bfloat16") and fastest in dtypes and fastest != stored:
        return fastest, f"{name} multiplies weights of fewer bits fastest so; the checkpoint's {stored} has 16 bits too"
    if stored in dtypes:
        return stored, "the checkpoint's own"
    return "float32", f"{name} does not compute in the checkpoint's {stored}"


def refuse_absent(backend: str, can: Capabilities, *, quantization: str | None, kv_cache_dtype: str) -> None:
    """Raise Unsupported, saying what the backend does offer, for weights or K/V that it does not declare."""
    if quantization is not None and quantization not in can.quantizations:
        raise Unsupported(_refusal(backend, "quantization", quantization, sorted(can.quantizations) or ["none"]))
    if kv_cache_dtype not in ("auto", *can.kv_cache_dtypes):
        raise Unsupported(_refusal(backend, "kv_cache_dtype", kv_cache_dtype, ["auto", *sorted(can.kv_cache_dtypes)]))


def _refusal(backend: str, field: str, value: str, offered: list[str]) -> str:
    return f"backend {backend} does not offer {field}={value!r}; it offers: {', '.join(offered)}"
