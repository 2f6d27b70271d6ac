"""The suite's models with quantised weights: what those are is spelled out in core.rounded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..core.quantization import SCHEMES
from ..core.rounded import RoundedCheckpoint, is_rounded, rounded, rounded_as, rounded_rows
from .models import TinyModel
from .oracle import Oracle

__all__ = ["RoundedCheckpoint", "make_oracle", "quantized", "rounded", "rounded_as", "rounded_rows"]

Array = NDArray[np.float64]


def quantized(weights: Mapping[str, Array], quantization: str) -> dict[str, Array]:
    """Round every matrix but embeddings and routers; a tied lm_head comes apart from the embeddings."""
    made = dict(weights)
    made.setdefault("lm_head", made["embed_tokens"])
    for name, weight in made.items():
        if is_rounded(name, weight):
            made[name] = rounded_as(weight, quantization)
    return made


class ActivationsOracle(Oracle):
    """Rounds what every matrix but the router reads to 8 bits, with a scale for each row, as w8a8 and w4a8 do."""

    def _linear(self, x: Array, weight: Array) -> Array:
        return super()._linear(x if self._is_router(weight) else rounded_activations(x), weight)

    def _is_router(self, weight: Array) -> bool:
        return any(w is weight for name, w in self._w.items() if name.endswith("router"))


def rounded_activations(x: Array) -> Array:
    """Round rows of activations [..., K] to whole numbers from -127 to 127 times a scale, max|x| / 127, for each."""
    narrow = x.astype(np.float32)
    scale = np.abs(narrow).max(axis=-1, keepdims=True) / np.float32(127)
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1.0))
    whole = np.rint(narrow * np.reciprocal(scale)).clip(-127, 127)
    return whole.astype(np.float64) * scale.astype(np.float64)


def make_oracle(model: TinyModel, made: Mapping[str, Array], quantization: str | None) -> Oracle:
    """Return the exact answers of a model with weights `made`, or with what quantisation leaves of them."""
    if quantization is None:
        return Oracle(model, made)
    kind = ActivationsOracle if SCHEMES[quantization].activations == "int8" else Oracle
    return kind(model, quantized(made, quantization))
