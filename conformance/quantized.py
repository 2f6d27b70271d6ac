"""The suite's models with quantised weights: what those are is spelled out in core.rounded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..core.rounded import RoundedCheckpoint, is_rounded, rounded, rounded_as, rounded_rows

__all__ = ["RoundedCheckpoint", "quantized", "rounded", "rounded_as", "rounded_rows"]

Array = NDArray[np.float64]


def quantized(weights: Mapping[str, Array], quantization: str) -> dict[str, Array]:
    """Round every matrix but embeddings and routers; a tied lm_head comes apart from the embeddings."""
    made = dict(weights)
    made.setdefault("lm_head", made["embed_tokens"])
    for name, weight in made.items():
        if is_rounded(name, weight):
            made[name] = rounded_as(weight, quantization)
    return made
