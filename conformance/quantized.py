"""What quantised weights are, spelled out: the weights that the oracle computes with in place of the model's own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .targets import QUANTIZATIONS

Array = NDArray[np.float64]
BLOCK = 32
"""Consecutive inputs of one output that share a scale."""
_KEPT = ("embed_tokens", "router")


def rounded(weight: Array, bits: int) -> Array:
    """Round a weight [N, K] to whole numbers of `bits` bits times a scale for each block of 32 inputs.

    Symmetric: the scale is the block's largest magnitude over 2**(bits - 1) - 1, in float32, and zero stays zero.
    """
    most = 2 ** (bits - 1) - 1
    out = np.empty_like(weight)
    for start in range(0, weight.shape[1], BLOCK):
        block = weight[:, start : start + BLOCK]
        scale = (abs(block).max(axis=1, keepdims=True).astype(np.float32) / np.float32(most)).astype(np.float64)
        steps = np.rint(block / np.where(scale > 0, scale, 1.0))
        out[:, start : start + BLOCK] = np.clip(steps, -most, most) * scale
    return out


def quantized(weights: Mapping[str, Array], quantization: str) -> dict[str, Array]:
    """Round every matrix but embeddings and routers; a tied lm_head comes apart from the embeddings."""
    made = dict(weights)
    made.setdefault("lm_head", made["embed_tokens"])
    for name, weight in made.items():
        if weight.ndim == 2 and name.rsplit(".", 1)[-1] not in _KEPT:
            made[name] = rounded(weight, QUANTIZATIONS[quantization])
    return made
