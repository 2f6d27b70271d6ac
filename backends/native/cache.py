"""Keys and values of all layers: one lazily committed pool of blocks, as program.h lays them out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.decoder_spec import DecoderSpec
from ...kernels.cpu import program as kernels
from .memory import Arena, round_up
from .precision import Precision

PIECE = kernels.TOKENS_A_BLOCK
ITEM_BYTES = {kernels.FORM_F32: 4, kernels.FORM_BF16: 2, kernels.FORM_I8: 1}


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The K/V memory of one model. Each layer has two halves, keys and values, of num_blocks blocks."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    block_size: int  # a multiple of PIECE
    form: int

    @classmethod
    def of(cls, spec: DecoderSpec, precision: Precision, block_size: int) -> CacheShape:
        """The shape that a model's cache has."""
        return cls(spec.num_layers, spec.num_kv_heads, spec.head_dim, block_size, precision.cache)

    @property
    def values_bytes(self) -> int:
        """Bytes of the keys, or of the values, of a block in one layer."""
        width = round_up(self.head_dim, PIECE)
        return self.block_size * self.num_kv_heads * width * ITEM_BYTES[self.form]

    @property
    def scales_bytes(self) -> int:
        """Bytes of their scales."""
        return self.block_size * self.num_kv_heads * 4 if self.form == kernels.FORM_I8 else 0

    @property
    def block_bytes(self) -> int:
        """Bytes of a block, all layers and both halves together."""
        return 2 * self.num_layers * (self.values_bytes + self.scales_bytes)


class Caches:
    """The pool: values [2 * layers, num_blocks, bytes of a block], and scales likewise where the form has them."""

    def __init__(self, shape: CacheShape, num_blocks: int) -> None:
        """Reserve it. Raises MemoryError where the system refuses that much."""
        self.shape = shape
        halves = 2 * shape.num_layers
        self._values = Arena(halves * num_blocks * shape.values_bytes)
        self._scales = Arena(halves * num_blocks * shape.scales_bytes)
        self._half_bytes = num_blocks * shape.values_bytes, num_blocks * shape.scales_bytes
        self._all = [
            arena.view(0, (halves, num_blocks, size // PIECE), f"V{PIECE}")
            for arena, size in ((self._values, shape.values_bytes), (self._scales, shape.scales_bytes))
            if size
        ]

    def layer(self, i: int) -> kernels.Cache:
        """Describe the memory of one layer."""
        values, scales = self._half_bytes
        keys_at = self._values.address + 2 * i * values
        scales_at = self._scales.address + 2 * i * scales
        has_scales = self.shape.form == kernels.FORM_I8
        return kernels.Cache(
            keys=keys_at,
            values=keys_at + values,
            key_scales=scales_at if has_scales else None,
            value_scales=scales_at + scales if has_scales else None,
            form=self.shape.form,
            block_size=self.shape.block_size,
            num_kv_heads=self.shape.num_kv_heads,
            head_dim=self.shape.head_dim,
        )

    def copy(self, copies: NDArray[np.int32]) -> None:
        """Carry out block copies [C, 3], one after the other: whole pieces of 16 tokens."""
        pieces_a_block = self.shape.block_size // PIECE
        for source, target, num_tokens in copies.tolist():
            if source == target:
                continue
            for memory in self._all:
                size = memory.shape[2] // pieces_a_block * -(-num_tokens // PIECE)
                memory[:, target, :size] = memory[:, source, :size]

    def close(self) -> None:
        """Give the memory back."""
        self._all = []
        self._values.close()
        self._scales.close()
