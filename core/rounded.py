"""What quantised weights are, spelled out apart from any kernel: the weights that an oracle computes with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checkpoint import Checkpoint
from .quantization import SCHEMES

Array = NDArray[np.float64]
BLOCK = 32
"""Consecutive inputs of one output that share a scale."""


def rounded(weight: Array, bits: int) -> Array:
    """Round a weight [N, K] to whole numbers of `bits` bits times a scale for each block of 32 inputs.

    The scale is the smallest under which no weight of the block is cut off, in float32; zero stays zero. All in
    float32, as kernels do, so that no tie falls otherwise.
    """
    half = 2 ** (bits - 1)
    out = np.empty_like(weight)
    for start in range(0, weight.shape[1], BLOCK):
        block = weight[:, start : start + BLOCK].astype(np.float32)
        above, below = block.max(axis=1, initial=0.0), -block.min(axis=1, initial=0.0)
        scale = np.maximum(above / np.float32(half - 1), below / np.float32(half))[:, None]
        scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1.0))  # fainter weights are zeros
        steps = np.clip(np.rint(block * np.reciprocal(scale)), -half, half - 1)
        out[:, start : start + BLOCK] = steps.astype(np.float64) * scale.astype(np.float64)
    return out


def rounded_rows(weight: Array, bits: int) -> Array:
    """Round a weight [N, K] to whole numbers of `bits` bits, the lowest left out, times a scale for each output."""
    most = np.float32(2 ** (bits - 1) - 1)
    narrow = weight.astype(np.float32)
    scale = np.abs(narrow).max(axis=1, initial=0.0)[:, None] / most
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1.0))
    return np.clip(np.rint(narrow / scale), -most, most).astype(np.float64) * scale.astype(np.float64)


def rounded_as(weight: Array, quantization: str) -> Array:
    """Round a weight [N, K] as quantised weights of that name are: whole numbers with a scale by group or by output."""
    scheme = SCHEMES[quantization]
    round_to = rounded_rows if scheme.scale_for == "output" else rounded
    return round_to(weight, scheme.weight_bits)


def is_rounded(name: str, weight: NDArray[Any]) -> bool:
    """Whether quantisation rounds a weight: every matrix but embeddings and routers."""
    return weight.ndim == 2 and name.rsplit(".", 1)[-1] not in ("embed_tokens", "router")


class RoundedCheckpoint(Checkpoint):
    """A checkpoint whose tensors are what quantised weights stand for: any backend that loads it computes with them."""

    def __init__(self, path: Path, quantization: str) -> None:
        super().__init__(path)
        self._quantization, self._tied = quantization, self.spec.tied_embeddings
        self.spec = replace(self.spec, tied_embeddings=False)

    def names(self) -> Iterator[str]:
        """As the checkpoint's, and lm_head, which is apart from the embeddings here."""
        yield from super().names()
        if self._tied:
            yield "lm_head"

    def tensor(self, name: str) -> NDArray[Any]:
        """The tensor, rounded where quantisation rounds it; computed anew at each call."""
        stored = super().tensor("embed_tokens" if name == "lm_head" and self._tied else name)
        return rounded_as(stored.astype(np.float64), self._quantization) if is_rounded(name, stored) else stored
