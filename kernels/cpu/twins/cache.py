"""K/V memory as dense arrays: the layouts of program.h's Cache, read and written."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from .. import program as p
from .memory import array
from .operand import quantize_rows

PIECE = p.TOKENS_A_BLOCK
DTYPES: dict[int, Any] = {p.FORM_F32: np.float32, p.FORM_BF16: ml_dtypes.bfloat16, p.FORM_I8: np.int8}
ELEMENTS_A_WORD = {p.FORM_F32: 1, p.FORM_BF16: 2, p.FORM_I8: 4}  # of keys: neighbouring dimensions that lie together

Array = NDArray[Any]
Int64 = NDArray[np.int64]


class CacheView:
    """The first `num_blocks` blocks of a layer's Cache."""

    def __init__(self, cache: p.Cache, num_blocks: int) -> None:
        self.block_size, self.head_dim, self.form = cache.block_size, cache.head_dim, cache.form
        width = -(-cache.head_dim // PIECE) * PIECE
        dtype, word = DTYPES[cache.form], ELEMENTS_A_WORD[cache.form]
        pieces = (num_blocks, cache.block_size // PIECE, cache.num_kv_heads)
        keys = array(cache.keys, (*pieces, width // word, PIECE, word), dtype)
        pair = 2 if cache.form == p.FORM_BF16 else 1
        values = array(cache.values, (*pieces, PIECE // pair, width, pair), dtype)
        # seen as [blocks, pieces, tokens / pair, pair, kv_heads, width / word, word]: views, so they can be written
        self._keys = keys.transpose(0, 1, 4, 2, 3, 5)  # [blocks, pieces, 16, kv_heads, width / word, word]
        self._values = values.transpose(0, 1, 3, 5, 2, 4)  # [blocks, pieces, 16 / pair, pair, kv_heads, width]
        self._pair, self._width = pair, width
        if cache.form == p.FORM_I8:
            self._key_scales = array(cache.key_scales, (*pieces, PIECE), np.float32)
            self._value_scales = array(cache.value_scales, (*pieces, PIECE), np.float32)

    def write(self, slots: Array, keys: Array, values: Array) -> None:
        """Store keys and values [T, kv_heads, D] float32 in slots [T]."""
        block, offset = np.divmod(slots.astype(np.int64), self.block_size)
        piece, token = np.divmod(offset, PIECE)
        if self.form == p.FORM_I8:
            keys, self._key_scales[block, piece, :, token] = quantize_rows(keys)
            values, self._value_scales[block, piece, :, token] = quantize_rows(values)
        filled_up = [(0, 0), (0, 0), (0, self._width - self.head_dim)]
        keys, values = np.pad(keys, filled_up), np.pad(values, filled_up)
        self._keys[block, piece, token] = keys.reshape(*keys.shape[:2], *self._keys.shape[4:])
        self._values[block, piece, token // self._pair, token % self._pair] = values

    def read(self, blocks: Array, num_tokens: int) -> tuple[Array, Array]:
        """Return keys and values [num_tokens, kv_heads, D] as float32, of I8 without their scales."""
        keys = self._keys[blocks].astype(np.float32)
        values = self._values[blocks].astype(np.float32)
        kv_heads = keys.shape[3]
        dense = (x.reshape(-1, kv_heads, self._width)[:num_tokens, :, : self.head_dim] for x in (keys, values))
        return next(dense), next(dense)

    def scales(self, blocks: Array, num_tokens: int) -> tuple[Array, Array]:
        """Return the scales of keys and values [num_tokens, kv_heads]."""
        both = (scales[blocks].swapaxes(2, 3) for scales in (self._key_scales, self._value_scales))
        dense = (x.reshape(-1, x.shape[-1])[:num_tokens] for x in both)
        return next(dense), next(dense)
