"""Weights in memory: canonical names to arrays in the compute dtype, laid out for `layers.linear`."""

from __future__ import annotations

import numpy as np

from ...core.checkpoint import Checkpoint
from .layers import Array

Weights = dict[str, Array]


def load_weights(checkpoint: Checkpoint, dtype: str) -> Weights:
    """Copy every tensor; projections [outputs, inputs] become [inputs, outputs], as `layers.linear` reads them."""
    weights = {name: _convert(name, checkpoint.tensor(name), dtype) for name in checkpoint.names()}
    if checkpoint.spec.tied_embeddings:
        weights["lm_head"] = np.ascontiguousarray(weights["embed_tokens"].T)
    return weights


def _convert(name: str, tensor: Array, dtype: str) -> Array:
    is_projection = tensor.ndim == 2 and name != "embed_tokens"
    return np.array(tensor.T if is_projection else tensor, dtype, order="C")


def within(weights: Weights, prefix: str) -> Weights:
    """Return the weights whose names begin with `prefix`, by what follows it."""
    return {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}
